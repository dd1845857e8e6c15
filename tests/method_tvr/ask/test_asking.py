"""A sentence asked in words gets what the same query of the dataset gets, with no file of queries, and no trust."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from method_tvr.ask import asking, encode_corpus
from method_tvr.ask.asking import read_sentences, run_asking
from method_tvr.ask.moments import clock
from method_tvr.config import parse_inference_options
from method_tvr.inference import run_inference
from method_tvr.options.rules import ensure_dataset
from method_tvr.training.checkpoint import load_checkpoint
from tests.support.processes import results_of
from tests.support.runs.tiny_corpus import Corpus
from tests.support.search.asking import answers_in, ask, options_of
from utils.basic_utils import InputError
from utils.mini_tvr import TINY
from utils.ranks import Ranks


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to write answers into."""
    return Path(shutil.copytree(tiny_model, tmp_path / "run"))


@pytest.fixture(scope="module")
def queries(tiny_corpus: Corpus) -> list[dict]:
    return [json.loads(line) for line in tiny_corpus.annotations("val").read_text().splitlines()]


def test_a_query_of_the_dataset_asked_in_words_gets_the_same_moments(tiny_corpus, model, queries, tmp_path):
    run_inference(parse_inference_options(options_of(model, eval_path=tiny_corpus.annotations("val"))))
    (path,) = model.glob("inference_*_predictions_VCMR_SVMR_VR.json")
    stored = json.loads(path.read_text())
    name_of = {idx: name for name, idx in stored["video2idx"].items()}
    (tmp_path / "asked.txt").write_text("\n".join(row["desc"] for row in queries[1:]), encoding="utf-8")
    answers = ask(model, query=queries[0]["desc"], query_file=tmp_path / "asked.txt", top_k=100)
    assert len(answers) == len(queries) == 50
    for answer, row, entry in zip(answers, queries, stored["VCMR"], strict=True):
        assert answer["query"] == row["desc"] == entry["desc"]
        found = [(moment["vid_name"], moment["start"], moment["end"]) for moment in answer["moments"]]
        assert found == [(name_of[idx], start, end) for idx, start, end, _ in entry["predictions"]]
        scores = [moment["score"] for moment in answer["moments"]]
        np.testing.assert_allclose(scores, [prediction[3] for prediction in entry["predictions"]], rtol=1e-5)


def test_no_annotations_and_no_query_features_are_needed(own_corpus, model, queries):
    asked = {"query": [row["desc"] for row in queries[:3]]}
    expected = ask(model, **asked)
    files = {name: path for name, path in own_corpus.paths.items() if name != "train_path"}
    files["eval_path"].unlink()
    files["desc_bert_path"].unlink()
    assert ask(model, **asked, **files) == expected


def test_an_encoded_corpus_alone_will_do(own_corpus, model, queries, tmp_path, run_main):
    asked = {"query": [row["desc"] for row in queries[:3]]}
    expected = ask(model, **asked)
    own_corpus.paths["desc_bert_path"].unlink()
    paths = {name: path for name, path in own_corpus.paths.items() if name not in ("train_path", "eval_path")}
    argv = [*options_of(model, **paths), "--out", str(tmp_path / "encoded")]
    assert run_main(encode_corpus.main, argv).code == 0
    found = ask(model, **asked, **paths, encoded_corpus=tmp_path / "encoded")
    for one, other in zip(found, expected, strict=True):
        for moment, wanted in zip(one["moments"], other["moments"], strict=True):
            assert {**moment, "score": 0} == {**wanted, "score": 0}
            assert moment["score"] == pytest.approx(wanted["score"], rel=1e-4)


def test_the_command_prints_a_table_and_writes_json(model, run_main):
    argv = options_of(model, query=["Nora opens the drawer.", "Er öffnet\x1b[2J die Tür 抽屉"], top_k=3, eval_id="me")
    finished = run_main(asking.main, argv)
    assert (finished.code, "Traceback" in finished.err) == (0, False)
    written = answers_in(model)
    assert [path.name for path in model.glob("*answers*")] == ["inference_tvr_val_me_answers.json"]
    assert written["split"] == "val"
    assert "seed 2018" in written["text_model"]
    assert [answer["query"] for answer in written["answers"]] == ["Nora opens the drawer.", argv[9]]
    lines = [line.split() for line in finished.out.splitlines()]
    assert lines.count(["rank", "video", "start", "end", "of", "best"]) == 2
    rows = [row for row in lines if len(row) == 6 and row[5] == "%"]
    moments = [moment for answer in written["answers"] for moment in answer["moments"]]
    assert len(rows) == len(moments) == 6
    for row, moment in zip(rows, moments, strict=True):
        assert row[1:4] == [moment["vid_name"], clock(moment["start"]), clock(moment["end"])]
    for answer, first in zip(written["answers"], (0, 3), strict=True):
        best, *others = (moment["score"] for moment in answer["moments"])
        assert [row[4:] for row in rows[first : first + 3]] == [
            ["100", "%"],
            *([f"{int(100 * score / best)}", "%"] for score in others),
        ]
    assert "\x1b" not in finished.out
    assert "2 sentences over 10 videos" in finished.out


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "00:00"), (59.99, "00:59"), (60.0, "01:00"), (3599.0, "59:59"), (3600.0, "01:00:00"), (45296.5, "12:34:56")],
)
def test_times_are_minutes_and_from_an_hour_on_hours(seconds, shown):
    assert clock(seconds) == shown
    assert clock(7 * 1.1 * 60 / 7.7) == "01:00"  # 59.99999999999999


def test_long_sentences_are_cut_with_a_note(model, capsys):
    long = " ".join(["Nora opens the drawer"] * 20)
    cut = " ".join(long.split()[:30])
    answers = ask(model, query=[long, "Nora"])
    assert "note: of its 80 tokens only the first 30 are looked at: Nora opens" in capsys.readouterr().err
    first, shorter = answers[0]["moments"][0], ask(model, query=[cut, "Nora"])[0]["moments"][0]
    assert first["vid_name"] == shorter["vid_name"]  # the last word differs a little: it has lost its neighbour


def test_nms_drops_what_overlaps(model):
    usual, after = (ask(model, query="Nora", top_k=50, **more)[0]["moments"] for more in ({}, {"nms_thd": 0.5}))
    kept = [moment for moment in usual if moment in after]
    assert 0 < len(kept) < len(usual)
    assert usual[0] == after[0]


def test_more_moments_than_inference_keeps_can_be_asked_for(model):
    assert len(ask(model, query="Nora", top_k=300)[0]["moments"]) == 300


@pytest.mark.parametrize("blank", ["", "  ", "\t\n"])
def test_blank_sentences_are_refused_and_blank_lines_passed_over(tmp_path, blank):
    with pytest.raises(InputError, match="--query: is blank"):
        read_sentences(["Nora", blank], None)
    file = tmp_path / "asked.txt"
    file.write_bytes(f"\ufeffNora\r\n{blank}\r\nÉlise rit\r\n".encode())
    assert read_sentences(None, str(file)) == ["Nora", "Élise rit"]
    file.write_bytes("Nora\r\nÉlise rit\r\n".encode("utf-16"))
    assert read_sentences(None, str(file)) == ["Nora", "Élise rit"]
    file.write_text(blank)
    with pytest.raises(InputError, match=r"asked\.txt: has no sentences"):
        read_sentences(None, str(file))


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("Élise".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt: is not UTF-8 text: save it as UTF-8"):
        read_sentences(None, str(tmp_path / "latin.txt"))
    with pytest.raises(InputError, match=r"nowhere\.txt: cannot be read .*one sentence a line"):
        read_sentences(None, str(tmp_path / "nowhere.txt"))
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_sentences([b"caf\xe9".decode("utf-8", "surrogateescape")], None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 3}, "--top_k: is for sentences that are asked"),
        ({"text_model": "x"}, "--text_model: is for sentences that are asked"),
        ({"query": "Nora", "tasks": "VR"}, "--tasks: are those of the split's queries"),
        ({"query": "Nora", "top_k": 0}, "--top_k 0 must be above 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tiny_model, options, message):
    with pytest.raises(InputError, match=message):
        parse_inference_options(options_of(tiny_model, **options))


def answers_of(argv: list[str], ranks: Ranks) -> list:
    searcher, _ = run_asking(parse_inference_options(argv), ranks)
    return searcher.find(searcher.encode(["Omar", "Nora opens the drawer."]), 5)


def test_several_processes_answer_as_one_does(model, tmp_path):
    argv = options_of(model, query="Nora")
    alone = answers_of(argv, Ranks())
    for answers in results_of(2, tmp_path / "by_2", partial(answers_of, argv)):
        for one, other in zip(answers, alone, strict=True):
            assert [(m.vid_name, m.start, m.end) for m in one] == [(m.vid_name, m.start, m.end) for m in other]
            np.testing.assert_allclose([m.score for m in one], [m.score for m in other], rtol=1e-4)


def test_the_mini_corpus_is_recognised_without_a_word(monkeypatch, model, tiny_corpus):
    monkeypatch.setattr(sys, "stdin", None)  # nobody to be asked
    assert load_checkpoint(model / "model.ckpt").config.query_input_size == TINY.text_feat_size
    assert ask(model, query="Nora")[0]["moments"]
    ensure_dataset(parse_inference_options(options_of(model)))  # makes nothing where it is not asked to


def test_more_tokens_than_the_model_has_positions_for_are_refused_over_an_encoded_corpus_too(model, tmp_path):
    encode_corpus.main(["--model_dir", str(model), "--out", str(tmp_path / "encoded"), "--device", "-1"])
    with pytest.raises(InputError, match="--max_desc_l 50: the model in"):
        ask(model, query=["a b"], encoded_corpus=tmp_path / "encoded", max_desc_l=50)
