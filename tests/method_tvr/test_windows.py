"""Videos longer than the model takes are searched window by window, and answered as one video with the right times."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from method_tvr import encode_corpus, inference
from method_tvr.annotations import Video
from method_tvr.answering import Answerer
from method_tvr.best_entries import BestEntries
from method_tvr.config import parse_inference_options
from method_tvr.corpus_store import CorpusStore, write_recipe
from method_tvr.feature_store import FeatureStore, l2_normalize, temporal_endpoint_features
from method_tvr.inference import run_inference
from method_tvr.packed_store import PackedStore
from method_tvr.predictions import CorpusTimes
from method_tvr.ranks import Ranks
from method_tvr.retrieval import (
    NO_ENTRY,
    EncodedCorpus,
    EncodedQueries,
    Moments,
    RankedVideos,
    Searcher,
    SearchSettings,
)
from method_tvr.windows import Windows, joined, most_sharing
from tests.golden_files import load_json
from tests.method_tvr.processes import results_of
from utils.basic_utils import InputError

CLIP = 1.5
CPU = torch.device("cpu")
FILM_CLIPS = 2400  # an hour
ON_THE_CPU = ["--device", "-1", "--num_workers", "0"]


# ---------------------------------------------------------------------------- cutting


@given(st.integers(1, 60), st.integers(0, 3), st.integers(0, 700), st.data())
@settings(max_examples=200, deadline=None)
def test_some_window_holds_each_allowed_span_with_what_the_predictors_see_around_it(max_pred_l, reach, more, data):
    size = max(2, max_pred_l + 2 * reach) + data.draw(st.integers(0, 40))
    n_clips = data.draw(st.integers(1, size + more))
    windows = Windows.for_spans(size, max_pred_l, 2 * reach + 1)
    cut = windows.of(n_clips)
    assert len(cut) == windows.count(n_clips)
    assert (cut[0].start, cut[-1].stop) == (0, n_clips)
    assert {len(clips) for clips in cut} == {min(n_clips, size)}
    for st_clip in range(n_clips):
        first, last = max(0, st_clip - reach), min(n_clips - 1, st_clip + max_pred_l - 1 + reach)
        assert any(clips.start <= first and last < clips.stop for clips in cut), (cut, first, last)


def test_there_are_no_more_windows_than_are_needed():
    windows = Windows.for_spans(128, 16, 5)
    assert (windows.overlap, windows.step) == (19, 109)
    assert [windows.count(n) for n in (1, 128, 129, 237, 238, 346, 347, FILM_CLIPS)] == [1, 1, 2, 2, 3, 3, 4, 22]


def test_spans_that_fit_into_no_window_are_refused():
    assert Windows.for_spans(20, 16, 5).step == 1
    with pytest.raises(InputError, match=r"--max_pred_l 17: .* windows of --max_ctx_l 20 clips: give at most 16"):
        Windows.for_spans(20, 17, 5)


@given(st.integers(2, 9), st.integers(0, 90))
def test_sharing_counts_the_windows_that_a_clip_is_in(step, n_clips):
    windows = Windows(10, 10 - step)
    entries = windows.cut([Video("a", 9.0, 1), Video("b", 3.0, 2)], [n_clips + 1, 3])
    of_clip = [sum(entry.vid_name == "a" and clip in (entry.clips or ()) for entry in entries) for clip in range(99)]
    assert most_sharing(entries) == max(1, *of_clip)


def test_windows_put_together_again_are_the_videos_they_were_cut_from():
    videos, n_clips = [Video(name, 9.0, idx) for idx, name in enumerate("abcd")], [30, 4, 10, 25]
    entries = Windows(10, 3).cut(videos, n_clips)
    rows = [torch.full((len(entry.clips or range(6)), 2, 3), float(number)) for number, entry in enumerate(entries)]
    encoded = [(len(entry.clips or range(n_clips[entry.idx])), rows[number]) for number, entry in enumerate(entries)]
    whole = list(joined(entries, encoded))
    assert [(video, n) for video, n, _ in whole] == list(zip(videos, n_clips, strict=True))
    assert torch.equal(torch.cat([of_video for _, _, of_video in whole]), torch.cat(rows))


# ---------------------------------------------------------------------------- the best of each video


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_of_each_video_only_its_best_entry_is_kept(data):
    n, keep, block = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
    videos = data.draw(st.lists(st.integers(0, data.draw(st.integers(0, 9))), min_size=n, max_size=n))
    scores = torch.from_numpy(np.random.default_rng(n).permuted(np.tile(np.arange(n), (3, 1)), axis=1)).float()
    best = BestEntries(keep, torch.tensor(videos))
    for some in torch.arange(n).split(block):
        best.add(some, scores[:, some].t())
    entries, found = best.result()
    for row in range(3):
        first = {}
        for entry in sorted(range(n), key=lambda entry: -scores[row, entry]):
            first.setdefault(videos[entry], entry)
        assert entries[row].tolist() == list(first.values())[:keep]
        assert torch.equal(found[row], scores[row, entries[row]])


def test_probabilities_in_one_video_are_over_the_clips_of_all_its_windows():
    generator = torch.Generator().manual_seed(0)
    n_clips, kernels = [9, 9, 5, 9], torch.randn(2, 3, generator=generator)
    corpus = EncodedCorpus([torch.randn(n, 2, 4, generator=generator) for n in n_clips], n_clips)
    queries = EncodedQueries(*torch.randn(2, 3, 2, 4, generator=generator))
    searcher, entries = Searcher(corpus, *kernels, SearchSettings()), torch.tensor([[0, 1], [2, 3], [3, 1]])
    apart, together = (searcher.span_probabilities(queries, entries, one_video) for one_video in (False, True))
    for each, of_all in zip(apart[:2], together[:2], strict=True):
        torch.testing.assert_close(of_all.sum(dim=(1, 2)), torch.ones(3))
        torch.testing.assert_close(of_all / of_all.sum(dim=2, keepdim=True), each)
    alone = searcher.span_probabilities(queries, entries[:, :1], one_video=True)[0]
    torch.testing.assert_close(alone, apart[0][:, :1])


@pytest.mark.parametrize("query_block", [1, 2, 9])
def test_in_one_video_all_its_windows_are_searched_and_queries_keep_their_order(query_block):
    generator = torch.Generator().manual_seed(1)
    entries = [Video("a", 13.5, 5), *(Video("b", 22.5, 6, clips) for clips in (range(9), range(6, 15)))]
    corpus = EncodedCorpus([torch.randn(9, 2, 4, generator=generator) for _ in entries], [9] * 3)
    queries = EncodedQueries(*torch.randn(2, 4, 2, 4, generator=generator))
    searcher = Searcher(corpus, *torch.randn(2, 3, generator=generator), SearchSettings(query_block=query_block))
    rows = Answerer(searcher, entries, CLIP, 30).search_in(queries, ["b", "a", "a", "b"])
    for number, own in enumerate([[1, 2], [0], [0], [1, 2]]):
        p_st, p_ed, _ = searcher.span_probabilities(queries.of(np.array([number])), torch.tensor([own]), True)
        best: dict[tuple, float] = {}
        for place, entry in enumerate(own):
            first = (entries[entry].clips or range(1)).start
            for start in range(9):
                for end in range(start + 2, 9):
                    moment = entries[entry].idx, (first + start) * CLIP, (first + end) * CLIP
                    score = float(p_st[0, place, start] * p_ed[0, place, end])
                    best[moment] = max(score, best.get(moment, 0.0))
        expected = sorted(best.items(), key=lambda item: -item[1])[:30]
        assert [tuple(row[:3]) for row in rows.of_query(number)] == [moment for moment, _ in expected]
        np.testing.assert_allclose([row[3] for row in rows.of_query(number)], [score for _, score in expected], 1e-5)


# ---------------------------------------------------------------------------- times


def test_one_moment_found_in_two_windows_is_one_row_at_its_best_and_in_the_videos_seconds():
    entries = [Video("a", 9.0, 70), *(Video("b", 99.0, 71, clips) for clips in (range(10), range(7, 17)))]
    times = CorpusTimes.of_entries(entries, 1.1)  # 1.1 * 7 + 1.1 * 2 is not 1.1 * 9
    rows = [(2, 2, 4, 0.9), (1, 9, 11, 0.8), (0, 9, 11, 0.7), (1, 2, 4, 0.6), (2, 2, 5, 0.5), (2, 2, 4, 0.4)]
    padded = np.array([rows, [*rows[:1], *[(NO_ENTRY, 0, 0, -1.0)] * 5]])
    entry, start, end = padded[..., :3].astype(np.int64).transpose(2, 0, 1)
    found = times.moment_rows(Moments(entry, start, end, padded[..., 3].astype(np.float32)))
    assert [row[0] for row in found.of_query(0)] == [71, 70, 71, 71]
    expected = [(9 * 1.1, 11 * 1.1), (9 * 1.1, 11 * 1.1), (2 * 1.1, 4 * 1.1), (9 * 1.1, 12 * 1.1)]
    assert [row[1:3] for row in found.of_query(0)] == expected
    np.testing.assert_allclose([row[3] for row in found.of_query(0)], [0.9, 0.7, 0.6, 0.5], rtol=1e-6)
    assert found.of_query(1) == found.of_query(0)[:1]
    assert times.moment_rows(Moments(entry, start, end, entry.astype(np.float32)), 2).count.tolist() == [2, 1]
    ranked = RankedVideos(np.array([[2, 0]]), np.array([[3.0, 2.0]], dtype=np.float32))
    assert times.video_rows(ranked).of_query(0) == [(71, 0, 0, 3.0), (70, 0, 0, 2.0)]


# ---------------------------------------------------------------------------- features


@pytest.mark.parametrize("device", [None, CPU])
def test_windows_of_packed_features_are_those_of_the_files_with_tefs_of_their_own(tiny_corpus, tmp_path, device):
    described = {
        "context_paths": {"video": tiny_corpus.paths["vid_feat_path"], "sub": tiny_corpus.paths["sub_bert_path"]},
        "query_path": None,
        "normalize": {"video": False, "sub": True},
        "max_ctx_l": 12,
        "max_desc_l": 7,
        "use_tef": True,
        "sizes": {},
        "average": False,
    }
    disk = FeatureStore(**described)
    packed = PackedStore(**described, cache_dir=tmp_path, device=device)
    with h5py.File(tiny_corpus.paths["sub_bert_path"]) as h5_file:
        names = [key for key in h5_file if not key.endswith("-mask")][:6]
        subs = {name: np.array(h5_file[name]) for name in names}
    assert packed.clip_counts(names) == disk.clip_counts(names) == [len(subs[name]) for name in names]
    packed.require([], names, "videos.json")
    clips = [range(3, 12), None, range(12), range(1, 2), range(8, 20), None]
    batch = packed.context_batch(names, None, clips)
    for number, (name, some) in enumerate(zip(names, clips, strict=True)):
        expected = l2_normalize(subs[name][slice(some.start, some.stop) if some else slice(None)])
        expected = np.concatenate([expected, temporal_endpoint_features(len(expected))], axis=1)
        assert batch["ctx_lengths"][number] == len(expected)
        assert np.array_equal(disk.context(name, some)["sub"], expected)
        for modality, rows in disk.context(name, some).items():
            assert np.array_equal(packed.context(name, some)[modality], rows)
            padded = batch[f"{modality}_feat"][number].cpu().numpy()
            assert np.array_equal(padded[: len(rows)], rows)
            assert not padded[len(rows) :].any()


def test_windows_and_averages_are_cached_apart(tiny_corpus, tmp_path):
    paths = {"video": tiny_corpus.paths["vid_feat_path"]}
    stores = [
        PackedStore(paths, None, {"video": False}, 12, 7, False, {}, average, cache_dir=tmp_path)
        for average in (True, False, True)
    ]
    with h5py.File(paths["video"]) as h5_file:
        name = max(h5_file, key=lambda name: len(h5_file[name]))
        n_clips = len(h5_file[name])
    assert n_clips > 12
    assert [len(store.context(name)["video"]) for store in stores] == [12, n_clips, 12]


# ---------------------------------------------------------------------------- an hour, from files to predictions


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


def test_a_corpus_of_averaged_videos_is_described_as_before_there_were_windows(encoded, tmp_path):
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
