"""`--clip_length auto` for videos in TVR's form: times of averaged videos are right, in windows and encoded too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from method_tvr import inference, train
from method_tvr.ask import encode_corpus
from method_tvr.config import parse_inference_options
from method_tvr.inference import run_inference
from tests.support.golden_files import load_json
from tests.support.runs.commands import ON_THE_CPU, Finished
from tests.support.runs.rankings import assert_same_file
from tests.support.runs.tiny_corpus import Corpus, as_argv
from utils.basic_utils import read_json

Run = Callable[..., Finished]
MOST = 24  # clips that the model of the tiny corpus takes: most of its videos have more
TASKS = ("VCMR", "SVMR")


def clips_of(features: Path) -> dict[str, int]:
    """{vid_name: clips} of a feature file."""
    with h5py.File(features) as file:
        return {name: len(rows) for name, rows in file.items()}


def in_clips_of(seconds: float, predictions: dict[str, Any], own: dict[int, float]) -> dict[str, Any]:
    """Predictions as if the clips of all videos, which last {video_idx: seconds}, lasted so many `seconds`."""
    changed = json.loads(json.dumps(predictions))
    for task in TASKS:
        for row in (row for answer in changed[task] for row in answer["predictions"]):
            row[1:3] = [round(time / own[row[0]]) * seconds for time in row[1:3]]
    return changed


# ---------------------------------------------------------------------------- the reference's model


@pytest.fixture(scope="module")
def golden_auto(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reference's model asked with `--clip_length auto`: metrics and predictions."""
    folder = tmp_path_factory.mktemp("golden_auto")
    shutil.copytree(golden_dir, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        argv = ["--model_dir", "run", "--clip_length", "auto", "--eval_id", "auto", *ON_THE_CPU]
        metrics = run_inference(parse_inference_options(argv))
    return metrics, read_json(folder / "run" / "inference_tvr_val_auto_predictions_VCMR_SVMR_VR.json")


def test_clips_are_the_references_and_seconds_those_of_the_video(golden_auto, golden_dir):
    durations = read_json(golden_dir / "corpus" / "video2dur_idx.json")["val"]
    counts = clips_of(golden_dir / "corpus" / "video.h5")
    own = {idx: seconds / min(counts[name], 128) for name, (seconds, idx) in durations.items()}
    assert max(counts[name] for name in durations) > 128
    assert_same_file(in_clips_of(1.5, golden_auto[1], own), load_json("predictions/val_no_nms.json"))


def test_times_of_long_videos_go_on_to_their_end(golden_auto, golden_dir):
    counts, last = clips_of(golden_dir / "corpus" / "video.h5"), 127
    durations = read_json(golden_dir / "corpus" / "video2dur_idx.json")["val"]
    long = {idx: seconds for name, (seconds, idx) in durations.items() if counts[name] > 140}
    assert long
    for idx, seconds in long.items():
        ends = [
            max(row[2] for task in TASKS for answer in of[task] for row in answer["predictions"] if row[0] == idx)
            for of in (load_json("predictions/val_no_nms.json"), golden_auto[1])
        ]
        assert ends[0] <= last * 1.5 < ends[1] <= seconds * last / 128 + 1e-9


# ---------------------------------------------------------------------------- trained with it


class Auto:
    """A model of the tiny corpus, trained with clips of each video's own length."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        self.corpus, self.folder = corpus, folder
        self.clips = clips_of(corpus.paths["vid_feat_path"])
        self.durations: dict[str, list[float]] = read_json(corpus.paths["video_duration_idx_path"])["val"]

    def options(self, **options: object) -> list[str]:
        return as_argv({"model_dir": self.folder, "device": -1, "num_workers": 0, **options})

    def boundaries(
        self, eval_id: str, most: int | None, seconds_per_clip: float | None = None
    ) -> dict[str, list[tuple[str, int, int]]]:
        """{task: (vid_name, start, end) of all rows, in clips}, which all times have to be.

        Args:
            eval_id: of the predictions.
            most: clips that a video has at most; None for all that it has.
            seconds_per_clip: None for each video's own.
        """
        content = read_json(self.folder / f"inference_tvr_val_{eval_id}_predictions_VCMR_SVMR_VR.json")
        names = {idx: name for name, idx in content["video2idx"].items()}
        found: dict[str, list[tuple[str, int, int]]] = {}
        for task in TASKS:
            rows = [row for answer in content[task] for row in answer["predictions"]]
            videos = [names[row[0]] for row in rows]
            n_clips = np.array([min(self.clips[name], most or self.clips[name]) for name in videos])
            seconds = np.array([row[1:3] for row in rows])
            own = np.array([self.durations[name][0] for name in videos]) / n_clips
            clips = seconds / (own[:, None] if seconds_per_clip is None else seconds_per_clip)
            np.testing.assert_allclose(clips, np.rint(clips), atol=1e-9)
            assert (clips[:, 1] <= n_clips - 1 + 1e-9).all()
            found[task] = [(v, round(st), round(ed)) for v, (st, ed) in zip(videos, clips, strict=True)]
        return found


@pytest.fixture(scope="module")
def auto(tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Auto:
    root = tmp_path_factory.mktemp("auto")
    run = {"exp_id": "auto", "clip_length": "auto", "max_ctx_l": MOST, "n_epoch": 1, "bsz": 32, "results_root": root}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", *tiny_corpus.options(**run)])
        train.main()
    (folder,) = root.iterdir()
    return Auto(tiny_corpus, folder)


def test_a_typed_auto_is_kept_and_taken_over_at_inference(auto):
    assert read_json(auto.folder / "opt.json")["clip_length"] == "auto"
    opt = parse_inference_options(auto.options())
    assert (opt.clip_length, opt.label_rule) == ("auto", "floor_ceil")
    assert parse_inference_options(auto.options(clip_length=2)).clip_length == 2.0


def test_times_are_shares_of_the_averaged_videos(auto):
    for rows in auto.boundaries("auto", MOST).values():
        assert {name for name, _, _ in rows} <= set(auto.durations)
        assert {ed - st for _, st, ed in rows} <= set(range(2, 16))
        assert any(ed == MOST - 1 for _, _, ed in rows)


def test_windows_count_all_clips_of_a_video(auto, run_main: Run, tmp_path):
    assert max(auto.clips[name] for name in auto.durations) > 3 * MOST
    windows = {"long_videos": "windows", "max_pred_l": 10}
    finished = run_main(inference.main, auto.options(eval_id="windows", **windows))
    assert finished.code == 0, finished.err
    found = auto.boundaries("windows", None)
    for rows in found.values():
        assert {ed - st for _, st, ed in rows} <= set(range(2, 10))
    assert any(st > 3 * MOST for _, st, _ in found["VCMR"])
    fixed = run_main(inference.main, auto.options(eval_id="fixed", clip_length=1.5, **windows))
    assert fixed.code == 0, fixed.err
    assert auto.boundaries("fixed", None, 1.5) == found  # the clips are the same, only their seconds are not

    encoded = run_main(encode_corpus.main, auto.options(out=tmp_path / "encoded", **windows))
    assert encoded.code == 0, encoded.err
    finished = run_main(inference.main, auto.options(eval_id="stored", encoded_corpus=tmp_path / "encoded", **windows))
    assert finished.code == 0, finished.err
    stored = auto.boundaries("stored", None)
    for task, rows in found.items():
        assert len(set(stored[task]) ^ set(rows)) <= len(set(rows)) // 100  # ties at the cut


def test_windows_that_no_span_fits_into_are_refused_by_name(auto, run_main: Run):
    refused = run_main(inference.main, auto.options(long_videos="windows", max_pred_l=129))
    assert refused.code == 2
    assert f"--max_pred_l 129: such spans do not fit into windows of --max_ctx_l {MOST} clips" in refused.err
