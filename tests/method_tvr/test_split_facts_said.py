"""Facts about a split are said by each command that reads it, once, and only where something is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from method_tvr import data_check, inference, train
from method_tvr.ask import encode_corpus, search
from tests.support.runs.commands import ON_THE_CPU, Finished
from tests.support.runs.tiny_corpus import Corpus
from utils.basic_utils import read_json, write_json

Run = Callable[..., Finished]
LONG = "videos have more than --max_ctx_l"
SHORT = "too short to be found"
FACTS = (LONG, SHORT, "no prediction can be right for", "off the durations")


def said(finished: Finished) -> list[str]:
    """The lines that say a fact."""
    assert finished.code == 0, finished.err
    return [line for line in (finished.out + finished.err).splitlines() if any(fact in line for fact in FACTS)]


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model that takes 40 clips, of which many of the tiny corpus' videos have more."""
    return Path(shutil.copytree(tiny_model, tmp_path / "run"))


def test_training_says_it_once_and_of_a_healthy_corpus_nothing(
    run_main: Run, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    common = {"n_epoch": 1, "bsz": 32, "results_root": tmp_path}
    (line,) = said(run_main(train.main, tiny_corpus.options(**common, exp_id="a", iou_thds=[0.1])))
    assert f"of 30 {LONG} 40 clips" in line
    assert said(run_main(train.main, tiny_corpus.options(**common, exp_id="b", iou_thds=[0.1], max_ctx_l=160))) == []


def test_inference_and_encoding_and_search_say_it(
    run_main: Run, model: Path, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    argv = ["--model_dir", str(model), *ON_THE_CPU]
    evaluated = [*argv, "--eval_path", str(tiny_corpus.paths["eval_path"])]
    assert any(f"of 10 {LONG} 40 clips" in line for line in said(run_main(inference.main, evaluated)))
    windows = run_main(inference.main, [*evaluated, "--long_videos", "windows"])
    assert not any(LONG in line for line in said(windows))
    (line,) = said(run_main(encode_corpus.main, [*argv, "--out", str(tmp_path / "encoded")]))
    assert f"of 10 {LONG} 40 clips" in line
    for _ in ("videos are encoded", "they are there"):
        (line,) = said(run_main(search.main, [*argv, "Omar laughs."]))
        assert f"of 10 {LONG} 40 clips" in line
    asked = said(run_main(search.main, [*argv, "Omar laughs.", "--encoded_corpus", str(tmp_path / "encoded")]))
    assert asked == [line]


def test_a_search_names_videos_that_it_never_finds(run_main: Run, model: Path) -> None:
    argv = ["--model_dir", str(model), *ON_THE_CPU, "Omar laughs.", "--max_pred_l", "40", "--min_pred_l"]
    assert SHORT not in "".join(said(run_main(search.main, [*argv, "15"])))  # all have 16 clips or more
    assert any("a span takes 39 clips, more than 57 s" in line for line in said(run_main(search.main, [*argv, "38"])))


@pytest.mark.parametrize("clip_length", ["1.5", "auto"])
def test_features_of_more_rows_than_the_duration_has_room_for_are_refused(
    run_main: Run, own_corpus: Corpus, model: Path, tmp_path: Path, clip_length: str
) -> None:
    name = next(iter(read_json(own_corpus.paths["video_duration_idx_path"])["val"]))
    for option in ("vid_feat_path", "sub_bert_path"):
        with own_corpus.features(option) as h5_file:
            for key in [key for key in (name, f"{name}-mask") if key in h5_file]:
                rows = np.concatenate([h5_file[key][()]] * 3)
                del h5_file[key]
                h5_file[key] = rows
    options = own_corpus.options(exp_id="a", results_root=tmp_path / "results", clip_length=clip_length)
    refused = run_main(train.main, options)
    assert (refused.code, refused.err.count(f"{name} (")) == (2, 1)
    assert not list((tmp_path / "results").glob("*"))
    read = [word for option, path in own_corpus.paths.items() for word in (f"--{option}", str(path))]
    argv = ["--model_dir", str(model), *ON_THE_CPU, *read, "--clip_length", clip_length]
    for main, more in ((inference.main, []), (encode_corpus.main, ["--out", str(tmp_path / "encoded")])):
        refused = run_main(main, [*argv, *more])
        assert (refused.code, refused.err.count(f"{name} (")) == (2, 1)
    refused = run_main(data_check.main, [str(own_corpus.root), "--clip_length", clip_length])
    assert (refused.code, "NOT READY" in refused.out) == (2, True)
    assert name in refused.out


def test_a_search_of_durations_that_were_halved_is_refused(run_main: Run, own_corpus: Corpus, model: Path) -> None:
    path = own_corpus.paths["video_duration_idx_path"]
    splits = read_json(path)
    for videos in splits.values():
        for entry in videos.values():
            entry[0] /= 2
    write_json(splits, path)
    read = [word for option, path in own_corpus.paths.items() for word in (f"--{option}", str(path))]
    refused = run_main(search.main, ["--model_dir", str(model), *ON_THE_CPU, *read, "Omar laughs."])
    assert refused.code == 2
    assert "does not fit the durations of 10 of 10 videos" in refused.err


def test_the_check_says_it(run_main: Run, tiny_corpus: Corpus) -> None:
    (line,) = said(run_main(data_check.main, [str(tiny_corpus.root)]))
    assert f"2 of 40 {LONG} 128 clips" in line
