"""Videos longer than the model takes are searched window by window, and answered as one video with the right times."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from method_tvr.dataset.annotations import Entry, Video
from method_tvr.dataset.cached_store import CachedStore
from method_tvr.dataset.feature_store import FeatureStore, l2_normalize, temporal_endpoint_features
from method_tvr.model_components import conv_predictors
from method_tvr.search.answering import Answerer
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.predictions import CorpusTimes
from method_tvr.search.records import NO_ENTRY, EncodedQueries, Moments, RankedVideos, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.search.scoring import BestEntries
from method_tvr.search.windows import Windows, joined, most_sharing
from utils.basic_utils import InputError

CLIP = 1.5
CPU = torch.device("cpu")
FILM_CLIPS = 2400  # an hour
ON_THE_CPU = ["--device", "-1", "--num_workers", "0"]


# ---------------------------------------------------------------------------- cutting


@given(st.integers(1, 60), st.integers(0, 3), st.integers(0, 700), st.data())
@settings(max_examples=80, deadline=None)
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
    encoded = [
        (len(entry.clips or range(n_clips[entry.video.idx])), rows[number]) for number, entry in enumerate(entries)
    ]
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
    searcher, entries = (
        Searcher(corpus, conv_predictors(*kernels), SearchSettings()),
        torch.tensor([[0, 1], [2, 3], [3, 1]]),
    )
    apart, together = (searcher.span_probabilities(queries, entries, one_video) for one_video in (False, True))
    for each, of_all in zip(apart[:2], together[:2], strict=True):
        torch.testing.assert_close(of_all.sum(dim=(1, 2)), torch.ones(3))
        torch.testing.assert_close(of_all / of_all.sum(dim=2, keepdim=True), each)
    alone = searcher.span_probabilities(queries, entries[:, :1], one_video=True)[0]
    torch.testing.assert_close(alone, apart[0][:, :1])


@pytest.mark.parametrize("query_block", [1, 2, 9])
def test_in_one_video_all_its_windows_are_searched_and_queries_keep_their_order(query_block):
    generator = torch.Generator().manual_seed(1)
    entries = [Entry(Video("a", 13.5, 5)), *(Entry(Video("b", 22.5, 6), clips) for clips in (range(9), range(6, 15)))]
    corpus = EncodedCorpus([torch.randn(9, 2, 4, generator=generator) for _ in entries], [9] * 3)
    queries = EncodedQueries(*torch.randn(2, 4, 2, 4, generator=generator))
    searcher = Searcher(
        corpus, conv_predictors(*torch.randn(2, 3, generator=generator)), SearchSettings(query_block=query_block)
    )
    times = CorpusTimes.of_entries(entries, np.full(3, CLIP))
    rows = Answerer(searcher, entries, times, 30).search_in(queries, ["b", "a", "a", "b"])
    for number, own in enumerate([[1, 2], [0], [0], [1, 2]]):
        p_st, p_ed, _ = searcher.span_probabilities(queries.of(np.array([number])), torch.tensor([own]), True)
        best: dict[tuple, float] = {}
        for place, entry in enumerate(own):
            first = (entries[entry].clips or range(1)).start
            for start in range(9):
                for end in range(start + 2, 9):
                    moment = entries[entry].video.idx, (first + start) * CLIP, (first + end) * CLIP
                    score = float(p_st[0, place, start] * p_ed[0, place, end])
                    best[moment] = max(score, best.get(moment, 0.0))
        expected = sorted(best.items(), key=lambda item: -item[1])[:30]
        assert [tuple(row[:3]) for row in rows.of_query(number)] == [moment for moment, _ in expected]
        np.testing.assert_allclose([row[3] for row in rows.of_query(number)], [score for _, score in expected], 1e-5)


# ---------------------------------------------------------------------------- times


def test_one_moment_found_in_two_windows_is_one_row_at_its_best_and_in_the_videos_seconds():
    entries = [Entry(Video("a", 9.0, 70)), *(Entry(Video("b", 99.0, 71), clips) for clips in (range(10), range(7, 17)))]
    times = CorpusTimes.of_entries(entries, np.full(3, 1.1))  # 1.1 * 7 + 1.1 * 2 is not 1.1 * 9
    rows = [(2, 2, 4, 0.9), (1, 9, 11, 0.8), (0, 9, 11, 0.7), (1, 2, 4, 0.6), (2, 2, 5, 0.5), (2, 2, 4, 0.4)]
    padded = np.array([rows, [*rows[:1], *[(NO_ENTRY, 0, 0, -1.0)] * 5]])
    entry, start, end = padded[..., :3].astype(np.int64).transpose(2, 0, 1)
    found = times.moment_rows(Moments(entry, start, end, *[padded[..., 3].astype(np.float32)] * 3))
    assert [row[0] for row in found.of_query(0)] == [71, 70, 71, 71]
    expected = [(9 * 1.1, 11 * 1.1), (9 * 1.1, 11 * 1.1), (2 * 1.1, 4 * 1.1), (9 * 1.1, 12 * 1.1)]
    assert [row[1:3] for row in found.of_query(0)] == expected
    np.testing.assert_allclose([row[3] for row in found.of_query(0)], [0.9, 0.7, 0.6, 0.5], rtol=1e-6)
    assert found.of_query(1) == found.of_query(0)[:1]
    assert times.moment_rows(Moments(entry, start, end, *[entry.astype(np.float32)] * 3), 2).count.tolist() == [2, 1]
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
        "long_videos": "windows",
    }
    disk = FeatureStore(**described)
    packed = CachedStore(**described, cache_dir=tmp_path, device=device)
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


def test_windows_averages_and_what_is_cut_are_cached_apart(tiny_corpus, tmp_path):
    paths = {"video": tiny_corpus.paths["vid_feat_path"]}
    stores = [
        CachedStore(
            context_paths=paths,
            query_path=None,
            normalize={"video": False},
            max_ctx_l=12,
            max_desc_l=7,
            use_tef=False,
            sizes={},
            long_videos=long_videos,
            cache_dir=tmp_path,
        )
        for long_videos in ("average", "windows", "cut", "average")
    ]
    with h5py.File(paths["video"]) as h5_file:
        name = max(h5_file, key=lambda name: len(h5_file[name]))
        n_clips = len(h5_file[name])
    assert n_clips > 12
    assert [len(store.context(name)["video"]) for store in stores] == [12, n_clips, 12, 12]
    averaged, _, cut, again = (store.context(name)["video"] for store in stores)
    assert np.array_equal(averaged, again)
    assert np.array_equal(cut, stores[1].context(name)["video"][:12])
    assert not np.array_equal(averaged, cut)
