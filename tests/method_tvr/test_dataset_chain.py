"""Public annotation files -> converter -> training -> inference -> evaluation, as users of each dataset type it."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from method_tvr import inference, train
from method_tvr.ask import encode_corpus
from method_tvr.training.checkpoint import load_checkpoint
from standalone_eval import eval as standalone
from standalone_eval.eval import eval_retrieval
from tests.support.public_corpora import MAX_CTX_L, VIDEO_SIZE, PublicCorpus
from tests.support.runs.commands import Finished
from tests.support.runs.tiny_corpus import as_argv
from utils.basic_utils import read_json, read_jsonl

Run = Callable[..., Finished]
SMALL: dict[str, object] = {
    "hidden_size": 16, "n_heads": 2, "max_ctx_l": MAX_CTX_L, "n_epoch": 2, "bsz": 4, "device": -1, "num_workers": 0,
}  # fmt: skip
HERE: dict[str, object] = {"device": -1, "num_workers": 0}  # all that inference needs beside the model's folder
TASKS = ("VCMR", "SVMR", "VR")
# what each dataset's entry says, in figures
FINAL_NMS = {"anet_cap": 0.5, "charades_sta": 0.6, "didemo": 0.5}
IOU_THDS = {"anet_cap": [0.3, 0.5, 0.7], "charades_sta": [0.5, 0.7], "didemo": [0.5, 0.7]}
RECIPES: dict[str, dict[str, float]] = {
    "anet_cap": {"margin": 0.2, "lr": 2.5e-4, "q2c_alpha": 20},
    "charades_sta": {"margin": 0.1, "lr": 1e-4, "q2c_alpha": 30},
    "didemo": {"margin": 0.1, "lr": 1e-4, "q2c_alpha": 30},
}


@dataclass(frozen=True)
class Chain:
    """A trained model, the dataset that it was trained on, and what training said."""

    corpus: PublicCorpus
    folder: Path
    said: str

    @property
    def opt(self) -> dict[str, Any]:
        return read_json(self.folder / "opt.json")

    def file(self, split: str, eval_id: str, ending: str = ".json", tasks: str = "VCMR_SVMR_VR") -> Path:
        return self.folder / f"inference_{self.corpus.name}_{split}_{eval_id}_predictions_{tasks}{ending}"

    def rows(self, path: Path, task: str) -> Iterator[tuple[str, list[float]]]:
        """All rows of a task with the names of their videos."""
        content = read_json(path)
        names = {idx: vid_name for vid_name, idx in content["video2idx"].items()}
        for answer in content[task]:
            for row in answer["predictions"]:
                yield names[row[0]], row


@pytest.fixture(scope="module")
def chain(public_corpus: PublicCorpus) -> Chain:
    """Trained from the project's root, with the dataset's name and no path."""
    ctx_mode = {"ctx_mode": "video_tef"} if public_corpus.name == "anet_cap" else {}  # the default of all three
    argv = as_argv({"dset_name": public_corpus.name, "exp_id": "chain", **ctx_mode, **SMALL, **public_corpus.options})
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        patch.chdir(public_corpus.root)
        patch.setattr("sys.argv", ["train.py", *argv])
        train.main()
    (folder,) = (public_corpus.root / "results").iterdir()
    return Chain(public_corpus, folder, said.getvalue())


@pytest.fixture(scope="module")
def on_test(chain: Chain) -> Chain:
    """With predictions on the split `test`, asked for with the model's folder alone."""
    argv = as_argv({"model_dir": chain.folder.name, "eval_split_name": "test", "nms_thd": 0.5, **HERE})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(chain.corpus.root)
        patch.setattr("sys.argv", ["inference.py", *argv])
        inference.main()
    return chain


@pytest.fixture(autouse=True)
def _at_the_projects_root(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain.corpus.root)


def test_the_run_follows_from_the_dataset(chain):
    name, opt = chain.corpus.name, chain.opt
    assert chain.folder.name.startswith(f"{name}-video_tef-chain-")
    expected = {
        "clip_length": "auto", "label_rule": "best_iou", "min_pred_l": 1, "max_pred_l": 129, "ctx_mode": "video_tef",
        "final_nms_thd": FINAL_NMS[name], "iou_thds": IOU_THDS[name], "recall_ks": [1, 5, 10, 100],
        "sub_bert_path": None, **RECIPES[name],
    }  # fmt: skip
    assert {option: opt[option] for option in expected} == expected
    kind = {"anet_cap": "i3d", "charades_sta": "c3d", "didemo": "resnet_i3d"}[name]
    features = f"data/{name}/{name}_feature_release"
    assert opt["vid_feat_path"] == f"{features}/video_feature/{name}_{kind}.h5"
    assert opt["desc_bert_path"] == f"{features}/bert_feature/query_only/{name}_query_pretrained_w_query.h5"
    assert ("--margin 0.2 --lr 0.00025 --q2c_alpha 20, was never published" in chain.said) == (name == "anet_cap")
    assert "not yet run on the real features" in chain.said or name != "anet_cap"


def test_training_ends_with_the_datasets_nms(chain):
    thd = FINAL_NMS[chain.corpus.name]
    assert f"--nms_thd {thd}" in chain.said
    written = {path.name for path in chain.folder.glob("*_nms_thd_*")}
    stem = f"inference_{chain.corpus.name}_val_chain_predictions_VCMR_SVMR_VR_nms_thd_{thd}"
    assert written == {f"{stem}.json", f"{stem}_metrics.json"}


def test_metrics_are_those_of_the_standalone_evaluation(on_test, run_main: Run, tmp_path):
    thds, ks = IOU_THDS[on_test.corpus.name], [1, 5, 10, 100]
    files = {
        "val": [".json", f"_nms_thd_{FINAL_NMS[on_test.corpus.name]}.json"],
        "test": [".json", "_nms_thd_0.5.json"],
    }
    for split, endings in files.items():
        truth = on_test.corpus.path(split)
        for ending in endings:
            path = on_test.file(split, "chain", ending)
            argv = {"submission_path": path, "gt_path": truth, "save_path": tmp_path / "m.json"}
            finished = run_main(standalone.main, as_argv({**argv, "iou_thds": thds, "ks": ks}))
            assert finished.code == 0, finished.err
            metrics = read_json(path.with_name(f"{path.stem}_metrics.json"))
            assert metrics == read_json(tmp_path / "m.json")
            assert set(metrics) == ({"VCMR", "SVMR"} if "nms" in ending else set(TASKS))
            assert list(metrics["VCMR"]) == [f"{thd}-r{k}" for thd in thds for k in ks]


def test_epochs_are_evaluated_like_the_model_alone(chain, run_main: Run):
    best = read_json(chain.folder / f"best_{chain.corpus.name}_val_predictions_VCMR_SVMR_VR_metrics.json")
    finished = run_main(inference.main, as_argv({"model_dir": chain.folder, "eval_id": "again", **HERE}))
    assert finished.code == 0, finished.err
    assert read_json(chain.file("val", "again", "_metrics.json")) == best
    assert read_json(chain.file("val", "chain", "_metrics.json")) == best


@pytest.mark.parametrize("split", ["val", "test"])
def test_predicted_times_are_clips_of_their_own_video_and_end_with_it(on_test, split):
    videos = on_test.corpus.videos[split]
    seen, whole = set(), set()
    for task in ("VCMR", "SVMR"):
        for name, (_, start, end, _) in on_test.rows(on_test.file(split, "chain"), task):
            duration, n_clips = videos[name].duration, on_test.corpus.n_clips(name)
            clips = np.array([start, end]) / (duration / n_clips)
            np.testing.assert_allclose(clips, np.rint(clips), atol=1e-9)
            assert 0 <= start < end <= duration * (1 + 1e-12)
            seen.add(name)
            if round(clips[1] - clips[0]) == n_clips:
                whole.add(name)
    assert seen == set(videos)
    few = {name for name in videos if on_test.corpus.n_clips(name) <= 9}
    assert few
    assert whole >= few


def test_all_spans_of_a_short_video_are_predicted_and_fewer_when_lengths_are_limited(on_test, run_main: Run):
    corpus = on_test.corpus
    argv = as_argv({"model_dir": on_test.folder, "eval_split_name": "test", "eval_id": "narrow", **HERE})
    finished = run_main(inference.main, [*argv, "--min_pred_l", "2", "--max_pred_l", "4", "--tasks", "SVMR"])
    assert finished.code == 0, finished.err
    own = {query.desc_id: query for query in corpus.queries("test")}
    for path, lengths in (
        (on_test.file("test", "chain"), range(1, 129)),
        (on_test.file("test", "narrow", tasks="SVMR"), range(2, 4)),
    ):
        compared = 0
        for answer in read_json(path)["SVMR"]:
            query = own[answer["desc_id"]]
            n_clips = corpus.n_clips(str(query.vid_name))
            pairs = [(i, j) for i in range(n_clips) for j in range(i + 1, n_clips + 1) if j - i in lengths]
            if len(pairs) <= 100:
                assert query.duration is not None
                clip = query.duration / n_clips
                found = sorted((round(st / clip), round(ed / clip)) for _, st, ed, _ in answer["predictions"])
                assert found == pairs
                compared += 1
        assert compared


def test_an_encoded_corpus_gives_the_same_times(on_test, run_main: Run, tmp_path):
    encoded = tmp_path / "encoded"
    argv = {"model_dir": on_test.folder, "eval_split_name": "test", **HERE}
    finished = run_main(encode_corpus.main, as_argv({**argv, "out": encoded}))
    assert finished.code == 0, finished.err
    # durations and rows are then those on record: the features are not looked at
    hidden = shutil.move(str(on_test.corpus.root / on_test.opt["vid_feat_path"]), tmp_path / "hidden.h5")
    try:
        finished = run_main(inference.main, as_argv({**argv, "eval_id": "stored", "encoded_corpus": encoded}))
    finally:
        shutil.move(hidden, on_test.corpus.root / on_test.opt["vid_feat_path"])
    assert finished.code == 0, finished.err
    for task in TASKS:
        stored, plain = (list(on_test.rows(on_test.file("test", eval_id), task)) for eval_id in ("stored", "chain"))
        scores = [[row[3] for _, row in rows] for rows in (stored, plain)]
        np.testing.assert_allclose(*scores, rtol=1e-4)
        assert {(name, *row[1:3]) for name, row in stored} == {(name, *row[1:3]) for name, row in plain}


def test_a_corpus_encoded_with_other_clip_lengths_is_refused(chain, run_main: Run, tmp_path):
    argv = {"model_dir": chain.folder, **HERE}
    assert run_main(encode_corpus.main, as_argv({**argv, "out": tmp_path / "encoded"})).code == 0
    refused = run_main(inference.main, as_argv({**argv, "encoded_corpus": tmp_path / "encoded", "clip_length": 2}))
    assert refused.code == 2
    assert "was encoded with clip_length auto, but this run has 2.0" in refused.err


def test_several_annotated_moments_count_as_in_the_standalone_evaluation(on_test):
    """Of DiDeMo's queries, one has annotators of whom no two agree, so that no list of spans is right for it."""
    for split in ("val", "test"):
        truth = read_jsonl(on_test.corpus.path(split))
        submission = read_json(on_test.file(split, "chain"))
        recall = read_json(on_test.file(split, "chain", "_metrics.json"))["SVMR"]["0.5-r100"]
        any_of_them = eval_retrieval(submission, truth, several_from=1000)["SVMR"]["0.5-r100"]
        if on_test.corpus.name == "didemo":
            assert {len(row["ts"]) for row in truth} == ({4} if split == "val" else {3, 4})
            assert recall <= 75 < any_of_them
        else:
            assert all(len(row["ts"]) == 2 and isinstance(row["ts"][0], float) for row in truth)
            assert recall == any_of_them


def test_the_features_are_those_that_were_public(chain):
    """The model's context is as wide as they are and two numbers of tef; what is known of them stays with it."""
    checkpoint = load_checkpoint(chain.folder / "model.ckpt")
    assert checkpoint.config.input_sizes == {"video": VIDEO_SIZE + 2}
    if chain.corpus.name == "anet_cap":
        assert checkpoint.features["video"] == {"model": "i3d"}


def test_training_reads_every_moment_of_train(chain):
    n_queries = len(chain.corpus.queries("train"))
    assert f"{n_queries} training queries, {-(-n_queries // 4)} steps an epoch" in chain.said
    losses = [line for line in (chain.folder / "train.log.txt").read_text().splitlines() if "loss_st_ed" in line]
    assert len(losses) == 2
    assert "nan" not in "".join(losses)


def test_a_run_is_gone_on_with_as_the_dataset_has_it(chain, run_main: Run):
    finished = run_main(train.main, ["--resume", str(chain.folder)])
    assert finished.code == 0, finished.err
    assert "the run is finished" in finished.out
    for option, value, said in (("clip_length", "1.5", "auto"), ("label_rule", "floor_ceil", "best_iou")):
        refused = run_main(train.main, ["--resume", str(chain.folder), f"--{option}", value])
        assert refused.code == 2
        assert f"was started with {said}" in refused.err
