"""Answers merged from shards are those of the whole corpus."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from method_tvr.model_components import conv_predictors
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import NO_ENTRY, EncodedQueries, Moments, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.search.sharding import merge_moments, merge_videos, moments_of_shard, videos_of_shard

N_QUERIES = 9
SETTINGS = SearchSettings(max_vcmr_video=6, max_moments=25, q2c_alpha=3.0)


def shards_of(bounds: list[int]) -> list[range]:
    return [range(a, b) for a, b in pairwise(bounds) if b > a]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_merged_videos_are_the_best_of_all_whatever_the_shards(data):
    n, keep = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 14))
    scores = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))).float().expand(2, -1)
    bounds = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=3))), n]
    entries, best = [], []
    for shard in shards_of(bounds):
        own_scores, own = scores[:, shard.start : shard.stop].sort(dim=1, descending=True, stable=True)
        entries.append(own[:, :keep] + shard.start)
        best.append(own_scores[:, :keep])
    found, found_scores = merge_videos(entries, best, keep)
    expected = sorted(range(n), key=lambda i: (-scores[0, i], i))[:keep]
    assert found.tolist() == [expected, expected]
    assert torch.equal(found_scores, scores.gather(1, found))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_merged_moments_are_the_best_of_all_and_missing_ones_come_last(data):
    moment = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2))
    rows = data.draw(st.lists(st.lists(moment, max_size=4), min_size=1, max_size=3))
    keep = data.draw(st.integers(1, 12))
    parts = []
    for row in rows:
        entry, start, end, score = np.array([*row, (NO_ENTRY, 0, 0, -1)]).T
        parts.append(Moments(entry[None], start[None], end[None], *[score[None].astype(np.float32)] * 3))
    found = merge_moments(parts, keep)
    n = int((found.entry != NO_ENTRY).sum())
    expected = sorted((m for row in rows for m in row), key=lambda m: (-m[3], *m[:3]))[:keep]
    columns = (found.entry, found.st, found.ed, found.score)
    assert list(zip(*(column[0, :n].tolist() for column in columns), strict=True)) == expected
    assert (found.entry[0, n:] == NO_ENTRY).all()


@pytest.fixture(scope="module")
def corpus():
    """Entries of different lengths, some too short for a moment, and queries."""
    generator = torch.Generator().manual_seed(0)
    n_clips = [1 + (5 * i) % 13 for i in range(30)]
    rows = [torch.randn(n, 2, 8, generator=generator) for n in n_clips]
    directions = {m: torch.randn(N_QUERIES, 8, generator=generator) for m in ("video", "sub")}
    return rows, n_clips, EncodedQueries.build(directions, directions, ("video", "sub"))


def searcher(corpus, shard: range) -> Searcher:
    rows, n_clips, _ = corpus
    kernels = torch.tensor([0.2, 1.0, -0.3]), torch.tensor([-0.1, 1.0, 0.4])
    return Searcher(
        EncodedCorpus(rows[shard.start : shard.stop], n_clips[shard.start : shard.stop]),
        conv_predictors(*kernels),
        SETTINGS,
    )


def assert_same_moments(found: Moments, expected: Moments) -> None:
    there = expected.entry != NO_ENTRY
    assert np.array_equal(found.entry != NO_ENTRY, there)
    np.testing.assert_allclose(found.score[there], expected.score[there], rtol=1e-5)
    for name in ("entry", "st", "ed"):
        assert np.array_equal(getattr(found, name)[there], getattr(expected, name)[there]), name


@pytest.mark.parametrize("bounds", [[0, 30], [0, 15, 30], [0, 1, 29, 30], [0, 3, 4, 11, 30]])
def test_a_search_in_shards_finds_what_a_search_of_the_whole_corpus_finds(corpus, bounds):
    queries = corpus[2]
    expected, videos = next(searcher(corpus, range(30)).search(queries))
    shards = shards_of(bounds)
    searchers = [searcher(corpus, shard) for shard in shards]
    own = [s.find(queries) for s in searchers]
    entries, scores = merge_videos(
        [found.videos + shard.start for shard, found in zip(shards, own, strict=True)],
        [found.video_scores for found in own],
        SETTINGS.max_vcmr_video,
    )
    weights = torch.exp(SETTINGS.q2c_alpha * scores)
    assert np.array_equal(entries.numpy(), videos.entry)
    np.testing.assert_allclose(weights.numpy(), videos.score, rtol=1e-5)

    parts = []
    for shard, s in zip(shards, searchers, strict=True):
        parts.append(moments_of_shard(s.search_moments(queries, *videos_of_shard(entries, weights, shard)), shard))
    assert_same_moments(merge_moments(parts, SETTINGS.max_moments), expected)


def test_each_query_finds_the_moments_of_its_own_video_in_the_shard_that_has_it(corpus):
    queries = corpus[2]
    own = torch.tensor([[(7 * i) % 30] for i in range(N_QUERIES)])
    expected = searcher(corpus, range(30)).search_moments(queries, own)
    parts = []
    for shard in shards_of([0, 2, 16, 30]):
        there = videos_of_shard(own, torch.ones(own.shape), shard)
        parts.append(moments_of_shard(searcher(corpus, shard).search_moments(queries, *there), shard))
    assert_same_moments(merge_moments(parts, SETTINGS.max_moments), expected)


def test_a_moment_whose_score_is_zero_is_kept_and_one_of_a_filling_is_not():
    score = np.array([[0.0, -0.0, -0.5]], dtype=np.float32)
    zeros = np.zeros((1, 3), dtype=np.int64)
    found = moments_of_shard(Moments(np.array([[4, 0, NO_ENTRY]]), zeros, zeros, *[score] * 3), range(10, 20))
    assert found.entry.tolist() == [[14, NO_ENTRY, NO_ENTRY]]
