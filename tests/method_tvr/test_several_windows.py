"""Queries whose answer is several separate windows: how they are trained on and judged, by `--several`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from method_tvr import data_check, inference, train
from method_tvr.config import parse_inference_options, parse_train_options
from method_tvr.dataset.annotations import Query
from method_tvr.dset_configs import DATASETS
from method_tvr.options.rules import evaluation_rule
from method_tvr.options.saved import save_options
from method_tvr.report.data import ReportData, find_annotations, read_report_data
from method_tvr.report.evaluation_options import evaluation_options
from method_tvr.report.examples import Video, is_right
from method_tvr.start_end_dataset import StartEndDataset
from tests.support.runs.tiny_corpus import as_argv
from utils.basic_utils import InputError, read_json, read_jsonl, write_jsonl

REMEDY = "where moments are separate windows, give --several any"
PATHS = dict.fromkeys(("train_path", "eval_path", "video_duration_idx_path", "vid_feat_path"), "x")
PATHS |= {"desc_bert_path": "x", "sub_bert_path": "x", "min_pred_l": "1", "max_pred_l": "9"}


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("custom", "qvhighlights")])
def test_the_rule_of_the_original_is_the_default_of_its_datasets(name):
    opt = parse_train_options(["--dset_name", name, "--exp_id", "x"])
    assert (opt.several, evaluation_rule(opt).least_right) == ("agree", 2)


def test_what_a_run_was_made_with_is_what_it_is_judged_by(tmp_path):
    opt = parse_train_options(["--dset_name", "custom", "--exp_id", "x", *as_argv(PATHS), "--clip_length", "2"])
    assert (opt.several, evaluation_rule(opt).least_right) == ("any", 1)
    for said, least_right in (("any", 1), ("agree", 2), (None, 2)):  # None: of a run before there was a choice
        save_options({key: value for key, value in {**opt, "several": said}.items() if value is not None}, tmp_path)
        found = evaluation_rule(parse_inference_options(["--model_dir", str(tmp_path)]))
        assert found.least_right == least_right
        words = evaluation_options(tmp_path, "val")
        assert (words[words.index("--ks") + 5 :][:2] == ["--several", "any"]) == (said == "any")
    argv = ["--model_dir", str(tmp_path), "--several", "any"]
    assert evaluation_rule(parse_inference_options(argv)).least_right == 1
    save_options({**opt, "several": "both"}, tmp_path)
    with pytest.raises(InputError, match="several 'both'"):
        evaluation_options(tmp_path, "val")


@pytest.fixture
def windows(own_corpus):
    """The corpus with four separate windows a query, in val of three queries alone."""
    for split, few in (("train", None), ("val", 3)):
        rows = read_jsonl(own_corpus.annotations(split))
        for row in rows[:few]:
            row["ts"] = [[start, start + 1.5] for start in (0.0, 3.0, 6.0, 9.0)]
        write_jsonl(rows, own_corpus.annotations(split))
    return own_corpus


def test_a_run_draws_windows_and_is_judged_by_any_of_them(windows, run_main, tmp_path, monkeypatch):
    drawn = []
    draw = StartEndDataset.draw_moments

    def noted(self, generator):
        draw(self, generator)
        drawn.append([query.ts for query in self.queries])

    monkeypatch.setattr(StartEndDataset, "draw_moments", noted)
    argv = windows.options(dset_name="custom", exp_id="x", clip_length=1.5, min_pred_l=1, max_pred_l=9, n_epoch=2,
                           bsz=32, results_root=tmp_path)  # fmt: skip
    done = run_main(train.main, argv)
    assert done.code == 0, done.err
    assert REMEDY not in done.err
    assert len(drawn) == 2
    assert drawn[0] != drawn[1]
    (folder,) = tmp_path.glob("custom-*")
    assert read_json(folder / "opt.json")["several"] == "any"
    judged = {}
    for several in ("any", "agree"):
        options = {"model_dir": folder, "device": -1, "num_workers": 0, "several": several, "eval_id": several}
        done = run_main(inference.main, as_argv({**options, "iou_thds": 0.7}))
        assert done.code == 0, done.err
        assert done.err.count(f"{REMEDY} (3)") == (several == "agree")
        judged[several] = read_json(next(folder.glob(f"*val_{several}_*_metrics.json")))["SVMR"]["0.7-r100"]
    assert judged["any"] > judged["agree"]


def test_training_by_agreement_warns_once_and_draws_nothing(windows, run_main, tmp_path, monkeypatch):
    monkeypatch.setattr(StartEndDataset, "draw_moments", None)
    done = run_main(train.main, windows.options(exp_id="x", n_epoch=1, bsz=32, results_root=tmp_path))
    assert done.code == 0, done.err
    assert done.err.count(REMEDY) == 1
    assert f"{REMEDY} (3): desc_id" in done.err


def test_the_data_check_notes_them_where_the_dataset_asks_for_agreement(windows, run_main):
    for record, told in (({"dataset": "didemo"}, 1), ({"dataset": "mine"}, 0)):
        (windows.root / "mini_made_by.json").write_text(json.dumps(record))
        checked = run_main(data_check.main, [str(windows.root), "--quick", "--splits", "val"])
        assert checked.out.count(f"{REMEDY} (3)") == told


def report_data(path: Path, gt_path: Path, several: str | None = None) -> ReportData:
    return read_report_data([path], find_annotations([path], gt_path), several=several)


def test_a_report_says_which_form_a_file_is_of(tmp_path):
    write_jsonl([{"desc_id": 1, "desc": "waves", "vid_name": "a", "ts": [0, 1]}], tmp_path / "gt.jsonl")
    rows = [{"qid": i, "query": "waves", "vid": "a", "pred_relevant_windows": [[0, 1, 0.9]]} for i in (1, 2)]
    write_jsonl(rows, tmp_path / "p.jsonl")
    with pytest.raises(InputError, match=r"p\.jsonl: holds predictions in Moment-DETR's form"):
        report_data(tmp_path / "p.jsonl", tmp_path / "gt.jsonl")
    with pytest.raises(InputError, match=r"p\.jsonl: holds predictions in Moment-DETR's form"):
        report_data(tmp_path / "gt.jsonl", tmp_path / "p.jsonl")


def test_examples_and_reports_judge_by_the_rule(tmp_path, capsys):
    apart = ((0.0, 2.0), (4.0, 6.0), (8.0, 9.0), (9.5, 10.0))
    query = Query(1, "waves", 1, "a", apart[0], moments=apart)
    assert [bool(is_right([[0, 4, 6, 1]], query, Video("a", 10, 0), 0.5, n)[0]) for n in (1, 2)] == [True, False]
    write_jsonl([{"desc_id": 1, "desc": "waves", "vid_name": "a", "ts": list(apart)}], tmp_path / "gt.jsonl")
    entries = [{"desc_id": 1, "predictions": [[0, 4, 6, 1]]}]
    (tmp_path / "p.json").write_text(json.dumps({"video2idx": {"a": 0}, "SVMR": entries}))
    for several, right in ((None, False), ("any", True)):
        data = report_data(tmp_path / "p.json", tmp_path / "gt.jsonl", several=several)
        assert data.first.outcomes["SVMR"].hits(1, 0.5).tolist() == [right]
        assert (f"{REMEDY} (1)" in capsys.readouterr().err) != right
