"""An hour-long video from files to predictions, in windows: found at its seconds, ranked once, encoded or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from method_tvr import inference
from method_tvr.ask import encode_corpus
from method_tvr.config import parse_inference_options
from method_tvr.inference import run_inference
from method_tvr.search.corpus_store import CorpusStore, write_recipe
from method_tvr.search.windows import Windows
from tests.support.golden_files import load_json
from tests.support.processes import results_of
from utils.basic_utils import InputError
from utils.ranks import Ranks

CLIP = 1.5
CPU = torch.device("cpu")
FILM_CLIPS = 2400  # an hour
ON_THE_CPU = ["--device", "-1", "--num_workers", "0"]


class Film:
    """The reference's model, queries and a few of its videos, some of them deep in hours of nothing.

    Attributes:
        root: folder with `run/` and `corpus/`, and the files named by `options`.
        films, planted: vid_names of the hours, and of the video in each.
        short: of videos that are searched as well.
    """

    PLANTED_AT = 1820  # so that a window ends in it, and another begins
    NAME = "film"

    def __init__(self, root: Path, golden_dir: Path) -> None:
        shutil.copytree(golden_dir, root, dirs_exist_ok=True)
        self.root = root
        self.rows = [json.loads(line) for line in (root / "corpus" / "val.jsonl").read_text().splitlines()]
        durations = json.loads((root / "corpus" / "video2dur_idx.json").read_text())["val"]
        self.short = [name for name, (seconds, _) in durations.items() if seconds < 128 * CLIP][:6]
        self.planted = list(durations)[6:16:2]  # one film each
        self.films = [f"{self.NAME}_{number}" for number in range(len(self.planted))]
        self.durations = {name: durations[name] for name in self.short}
        self.durations |= {name: [FILM_CLIPS * CLIP, 9000 + number] for number, name in enumerate(self.films)}
        for kind in ("video", "sub"):
            self._write_features(kind)
        self.queries = [row for row in self.rows if row["vid_name"] in self.short][:12]
        for film, planted in zip(self.films, self.planted, strict=True):
            for row in (row for row in self.rows if row["vid_name"] == planted):
                ts = [seconds + self.PLANTED_AT * CLIP for seconds in row["ts"]]
                self.queries.append({**row, "vid_name": film, "duration": FILM_CLIPS * CLIP, "ts": ts})
        (root / "films.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in self.queries))
        self.write_durations("durations.json", self.durations)

    def write_durations(self, name: str, durations: dict[str, list[float]]) -> None:
        (self.root / name).write_text(json.dumps({"val": durations}))

    def _write_features(self, kind: str) -> None:
        """Films, short videos, and the windows of the films cut by hand."""
        cut = Windows.for_spans(128, 16, 5).of(FILM_CLIPS)
        with h5py.File(self.root / "corpus" / f"{kind}.h5") as source, h5py.File(self.root / f"{kind}.h5", "w") as out:
            for name in self.short:
                out[name] = np.array(source[name])
            for film, planted in zip(self.films, self.planted, strict=True):
                features = np.zeros((FILM_CLIPS, source[planted].shape[1]), np.float32)
                features[self.PLANTED_AT : self.PLANTED_AT + len(source[planted])] = source[planted]
                out[film] = features
                for clips in cut:
                    out[f"{film}@{clips.start}"] = features[clips.start : clips.stop]

    def argv(self, eval_id: str, **options: object) -> list[str]:
        named = {
            "model_dir": self.root / "run",
            "eval_id": eval_id,
            "eval_path": self.root / "films.jsonl",
            "video_duration_idx_path": self.root / "durations.json",
            "vid_feat_path": self.root / "video.h5",
            "sub_bert_path": self.root / "sub.h5",
            "desc_bert_path": self.root / "corpus" / "query.h5",
            "train_path": self.root / "corpus" / "train.jsonl",
            "eval_context_bsz": 20,
            **options,
        }
        return [*ON_THE_CPU, *(word for name, value in named.items() for word in (f"--{name}", str(value)))]

    def predictions(self, eval_id: str) -> dict:
        (path,) = (self.root / "run").glob(f"inference_tvr_val_{eval_id}_predictions_*VR.json")
        return json.loads(path.read_text())

    def infer(self, eval_id: str, **options: object) -> tuple[dict, dict]:
        """Metrics and content of the prediction file."""
        metrics = run_inference(parse_inference_options(self.argv(eval_id, **options)))
        return metrics, self.predictions(eval_id)


@pytest.fixture(scope="module")
def film(golden_dir, tmp_path_factory) -> Film:
    return Film(tmp_path_factory.mktemp("film"), golden_dir)


@pytest.fixture(scope="module")
def by_windows(film) -> tuple[dict, dict]:
    return film.infer("windows", long_videos="windows")


def rows_by_query(predictions: dict, task: str) -> dict[int, list[list[float]]]:
    return {entry["desc_id"]: entry["predictions"] for entry in predictions[task]}


def share_found(film: Film, predictions: dict, n_rows: int) -> float:
    """Of the queries about films, how many have their moment (at an IoU of 0.5) among the first rows of SVMR."""
    ranked, found = rows_by_query(predictions, "SVMR"), []
    for row in film.queries:
        if row["vid_name"] in film.films:
            start, end = row["ts"]
            hits = [
                max(0.0, min(end, ed) - max(start, st)) >= 0.5 * (max(end, ed) - min(start, st))
                for _, st, ed, _ in ranked[row["desc_id"]][:n_rows]
            ]
            found.append(any(hits))
    return float(np.mean(found))


def test_moments_late_in_an_hour_are_found_at_their_seconds(film, by_windows):
    averaged = film.infer("average")[1]
    assert share_found(film, averaged, 100) == 0
    alone = {row["desc_id"]: row["predictions"] for row in load_json("predictions/val_no_nms.json")["SVMR"]}
    for rows in alone.values():
        for row in rows:
            row[1:3] = [seconds + film.PLANTED_AT * CLIP for seconds in row[1:3]]
    shown_alone = {"SVMR": [{"desc_id": desc_id, "predictions": rows} for desc_id, rows in alone.items()]}
    for n_rows, least in ((1, 0.2), (10, 0.5), (100, 0.8)):
        expected = share_found(film, shown_alone, n_rows)
        assert expected > least
        assert share_found(film, by_windows[1], n_rows) > 0.8 * expected


def test_each_video_is_ranked_once_by_its_best_window_and_no_moment_twice(film, by_windows):
    predictions = by_windows[1]
    assert predictions["video2idx"] == {name: idx for name, (_, idx) in film.durations.items()}
    for task, n_rows in (("VCMR", {100}), ("SVMR", {100}), ("VR", {len(film.durations)})):
        for rows in rows_by_query(predictions, task).values():
            assert len({tuple(row[:3]) for row in rows}) == len(rows) <= 100
            assert task == "SVMR" or len(rows) in n_rows
            assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
    for rows in rows_by_query(predictions, "VR").values():
        assert {row[0] for row in rows} == {idx for _, idx in film.durations.values()}


def by_hand(film: Film, predictions: dict, names: dict[int, str]) -> dict[int, dict[str, list]]:
    """What the search over windows cut by hand says of the whole videos: {desc_id: {task: rows}}."""
    found = {}
    for desc_id, rows in rows_by_query(predictions, "VCMR").items():
        best: dict[tuple, float] = {}
        for idx, start, end, score in rows:
            name, _, first = names[idx].partition("@")
            offset = int(first or 0) * CLIP
            best.setdefault((film.durations[name][1], start + offset, end + offset), score)
        videos: dict[int, float] = {}
        for idx, _, _, score in rows_by_query(predictions, "VR")[desc_id]:
            videos.setdefault(film.durations[names[idx].partition("@")[0]][1], score)
        found[desc_id] = {"VCMR": list(best.items()), "VR": list(videos.items())}
    return found


def test_what_is_found_is_what_a_search_over_windows_cut_by_hand_finds(film, by_windows):
    starts = [clips.start for clips in Windows.for_spans(128, 16, 5).of(FILM_CLIPS)]
    pieces = [f"{name}@{start}" for name in film.films[:3] for start in starts]
    durations = {name: [128 * CLIP, number] for number, name in enumerate(pieces)}
    film.write_durations("by_hand.json", durations)
    film.write_durations("three_films.json", {name: film.durations[name] for name in film.films[:3]})
    asked = [{name: row[name] for name in ("desc_id", "desc")} for row in film.queries]  # of no video in particular
    (film.root / "asked.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in asked))
    named = {"eval_path": film.root / "asked.jsonl", "max_vcmr_video": 20, "max_before_nms": 100}
    cut = film.infer("by_hand", **named, video_duration_idx_path=film.root / "by_hand.json")[1]
    own = film.infer("own", **named, video_duration_idx_path=film.root / "three_films.json", long_videos="windows")[1]
    expected = by_hand(film, cut, {idx: name for name, (_, idx) in durations.items()})
    repeated = 0
    for desc_id, of_query in expected.items():
        assert len(rows_by_query(own, "VCMR")[desc_id]) == 100
        found = {tuple(row[:3]): row[3] for row in rows_by_query(own, "VCMR")[desc_id]}
        repeated += 100 - len(of_query["VCMR"])
        threshold = of_query["VCMR"][-1][1] * (1 + 1e-4)  # the cut at 100 comes sooner with repeated moments
        for place, score in of_query["VCMR"]:
            if score > threshold:
                assert found[place] == pytest.approx(score, rel=1e-4)
        ranked = {row[0]: row[3] for row in rows_by_query(own, "VR")[desc_id]}
        for idx, score in of_query["VR"]:
            assert ranked[idx] == pytest.approx(score, rel=1e-4)
    assert repeated > 0


def test_nothing_changes_for_videos_that_need_no_windows(film):
    film.write_durations("short.json", {name: film.durations[name] for name in film.short})
    short = [row for row in film.queries if row["vid_name"] in film.short]
    (film.root / "short.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in short))
    options = {"eval_path": film.root / "short.jsonl", "video_duration_idx_path": film.root / "short.json"}
    averaged, windows = (film.infer(f"short_{mode}", **options, long_videos=mode) for mode in ("average", "windows"))
    assert averaged == windows


@pytest.mark.parametrize("feature_cache", ["disk", "device"])
def test_wherever_features_are_windows_are_the_same(film, by_windows, feature_cache):
    found = film.infer(feature_cache, long_videos="windows", feature_cache=feature_cache)
    assert_close(found[1], by_windows[1])


def assert_close(found: dict, expected: dict) -> None:
    """Predictions that differ in rounding alone."""
    assert found["video2idx"] == expected["video2idx"]
    for task in ("VCMR", "SVMR", "VR"):
        one, other = rows_by_query(found, task), rows_by_query(expected, task)
        assert one.keys() == other.keys()
        for desc_id, rows in other.items():
            scores = [row[3] for row in rows]
            np.testing.assert_allclose([row[3] for row in one[desc_id]], scores, rtol=1e-4)
            score_of = {tuple(row[:3]): row[3] for row in one[desc_id]}
            for row in rows:
                if row[3] > scores[-1] * (1 + 1e-4):  # others may fall behind the last one
                    assert score_of[tuple(row[:3])] == pytest.approx(row[3], rel=1e-4)


# ---------------------------------------------------------------------------- encoded once


@pytest.fixture(scope="module")
def encoded(film) -> Path:
    folder = film.root / "encoded"
    argv = [*film.argv("x", long_videos="windows"), "--out", str(folder)]
    encode_corpus.main(argv)
    return folder


def test_an_encoded_corpus_of_windows_is_searched_like_one_that_is_not(film, by_windows, encoded):
    film_of = CorpusStore(encoded)
    assert film_of.clip_counts(film.films[:1]) == [FILM_CLIPS]
    assert len(film_of) == len(film.durations)
    found = film.infer("encoded", long_videos="windows", encoded_corpus=encoded)
    assert_close(found[1], by_windows[1])
    shorter = film.infer("shorter_spans", long_videos="windows", encoded_corpus=encoded, max_pred_l=8)[1]
    assert max(row[2] - row[1] for rows in rows_by_query(shorter, "VCMR").values() for row in rows) == 7 * CLIP


def test_a_corpus_encoded_one_way_is_refused_for_the_other(film, encoded):
    with pytest.raises(InputError, match="was encoded with --long_videos windows, but this run has average"):
        film.infer("refused", encoded_corpus=encoded)
    with pytest.raises(InputError, match=r"share 19 clips, but spans of this run's --max_pred_l need 23"):
        film.infer("refused", encoded_corpus=encoded, long_videos="windows", max_pred_l=20)
    store = CorpusStore(encoded)
    averaged = replace(store.recipe, window_overlap=0)
    with pytest.raises(InputError, match="was encoded with --long_videos average, but this run has windows"):
        averaged.check_same(store.recipe, encoded)


@pytest.mark.parametrize("change", [{"n_rows": 22 * 128 - 1}, {"n_rows": 128}, {"n_clips": 2500}])
def test_a_part_that_says_other_than_windows_have_is_refused(encoded, change):
    recipe = CorpusStore(encoded).recipe
    said = {"n_clips": FILM_CLIPS, "n_rows": 22 * 128}
    assert recipe.rows_fit(**said)
    assert not recipe.rows_fit(**(said | change))


@pytest.mark.parametrize("overlap", [-1, 128, 1 << 40])
def test_a_corpus_of_impossible_windows_is_refused(encoded, tmp_path, overlap):
    write_recipe(tmp_path, replace(CorpusStore(encoded).recipe, window_overlap=overlap))
    with pytest.raises(InputError, match="describes an impossible corpus"):
        CorpusStore(tmp_path)


def test_a_corpus_of_averaged_videos_is_described_without_a_word_of_windows(encoded, tmp_path):
    averaged = replace(CorpusStore(encoded).recipe, window_overlap=0)
    write_recipe(tmp_path, averaged)
    assert b"window" not in (tmp_path / "corpus.json").read_bytes()
    assert CorpusStore(tmp_path).recipe == averaged


# ---------------------------------------------------------------------------- several processes


def infer_all(commands: Sequence[list[str]], ranks: Ranks) -> None:
    for argv in commands:
        inference.run_inference(parse_inference_options(argv), ranks)


def test_several_processes_give_the_answers_of_one(film, by_windows, encoded, tmp_path):
    film.write_durations("one_film.json", {film.films[0]: film.durations[film.films[0]]})
    of_film = [row for row in film.queries if row["vid_name"] == film.films[0]]
    (film.root / "of_film.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in of_film))
    one_film = {"eval_path": film.root / "of_film.jsonl", "video_duration_idx_path": film.root / "one_film.json"}
    expected = film.infer("one_film", long_videos="windows", **one_film)[1]
    commands = [
        film.argv("two", long_videos="windows"),
        film.argv("two_encoded", long_videos="windows", encoded_corpus=encoded),
        film.argv("less_than_two", long_videos="windows", **one_film),
        film.argv("less_than_two_encoded", long_videos="windows", encoded_corpus=encoded, **one_film),
    ]
    results_of(2, tmp_path, partial(infer_all, commands))
    for eval_id in ("two", "two_encoded"):
        assert_close(film.predictions(eval_id), by_windows[1])
    for eval_id in ("less_than_two", "less_than_two_encoded"):
        assert_close(film.predictions(eval_id), expected)
