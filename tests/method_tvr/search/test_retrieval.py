"""Searching blocks, the best videos and the allowed band gives what scoring and sorting everything gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from method_tvr.search import retrieval
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import NO_ENTRY, Moments
from method_tvr.search.scoring import ON_CPU
from tests.support.search.cases import a_case, cases

D = 4


def assert_best(found: Moments, row: int, everything: dict[tuple[int, int, int], float], most: int) -> None:
    """The row holds the `most` best of `everything`, best first, each once, and nothing impossible."""
    valid = found.entry[row] != NO_ENTRY
    n = int(valid.sum())
    assert valid[:n].all()
    assert n == min(most, len(everything))
    spans = list(zip(*(column[row, :n].tolist() for column in (found.entry, found.st, found.ed)), strict=True))
    assert len(set(spans)) == n
    score = found.score[row, :n]
    assert (np.diff(score) <= 0).all()
    np.testing.assert_allclose(score, [everything[span] for span in spans], rtol=1e-4, atol=1e-30)
    best = sorted(everything.values(), reverse=True)[:n]
    np.testing.assert_allclose(score, best, rtol=1e-4, atol=1e-30)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_search_finds_what_scoring_everything_finds(case):
    searcher, queries, scores = case.searcher(), case.queries(), case.video_scores()
    weights = np.exp(case.search.q2c_alpha * scores)
    keep = min(case.search.max_vcmr_video, len(case.n_clips))
    for block in searcher.query_blocks(len(queries)):
        moments, videos = next(searcher.search(queries[block]))
        assert videos.entry.shape == (block.stop - block.start, keep)
        everything = case.all_moments(weights, [[]] * block.start + videos.entry.tolist())
        for row in range(len(videos.entry)):
            query = block.start + row
            assert len(set(videos.entry[row].tolist())) == keep
            np.testing.assert_allclose(videos.score[row], weights[query, videos.entry[row]], rtol=1e-4)
            np.testing.assert_allclose(videos.score[row], np.sort(weights[query])[::-1][:keep], rtol=1e-4)
            assert_best(moments, row, everything[query], case.search.max_moments)


@settings(max_examples=40, deadline=None)
@given(cases(), st.data())
def test_moments_of_a_given_video_are_found_without_its_score(case, data):
    queries = case.queries()
    own = data.draw(
        st.lists(st.integers(0, len(case.n_clips) - 1), min_size=len(queries), max_size=len(queries)), label="own video"
    )
    moments = case.searcher().search_moments(queries, torch.tensor(own).unsqueeze(1))
    everything = case.all_moments(np.ones((len(own), len(case.n_clips))), [[v] for v in own])
    for row, spans in enumerate(everything):
        assert_best(moments, row, spans, case.search.max_moments)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_blocks_change_nothing(case):
    whole = replace(case, search=replace(case.search, query_block=100, clip_block=1 << 20)).searcher()
    queries, expected = case.queries(), next(whole.search(case.queries()))
    searcher = case.searcher()
    for block in searcher.query_blocks(len(queries)):
        moments, videos = next(searcher.search(queries[block]))
        np.testing.assert_allclose(videos.score, expected[1].score[block], rtol=1e-4)
        for row, query in enumerate(range(block.start, block.stop)):
            found, wanted = (
                part.score[i][part.entry[i] != NO_ENTRY] for part, i in ((moments, row), (expected[0], query))
            )
            np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("query_block", "queries_per_pass", "n_passes"), [(2, 4, 3), (2, 5, 3), (3, 1, 4), (100, 100, 1), (4, 1000, 1)]
)
def test_many_queries_are_answered_as_block_by_block_with_few_passes_over_the_corpus(
    monkeypatch, query_block, queries_per_pass, n_passes
):
    case = a_case([3, 12, 11, 1, 3], n_queries=10, query_block=query_block, queries_per_pass=queries_per_pass)
    searcher, queries, passes = case.searcher(), case.queries(), []
    blocks = list(searcher.query_blocks(len(queries)))
    one_by_one = [next(searcher.search(queries[block])) for block in blocks]
    go_through = EncodedCorpus.unread_blocks
    monkeypatch.setattr(EncodedCorpus, "unread_blocks", lambda corpus, n: passes.append(n) or go_through(corpus, n))
    for found, expected in zip(searcher.search(queries), one_by_one, strict=True):
        for part, other in zip(found, expected, strict=True):
            for name, values in vars(other).items():
                np.testing.assert_allclose(getattr(part, name), values, rtol=1e-5)
    assert len(passes) == n_passes


@pytest.mark.parametrize(("room", "n_times"), [(1 << 27, 2), (1, 5)])
def test_videos_are_looked_into_for_four_blocks_of_queries_at_a_time_where_there_is_room(monkeypatch, room, n_times):
    monkeypatch.setattr(retrieval, "SIMILARITY_BYTES", room)
    case = a_case([3, 12, 11, 1, 3], n_queries=10, query_block=2, queries_per_pass=10)
    searcher, asked = case.searcher(), []

    def similarity(corpus, queries, *where):
        asked.append(len(queries))
        return ON_CPU.clip_similarity(corpus, queries, *where)

    searcher._way = ON_CPU._replace(clip_similarity=similarity)
    assert [len(moments.entry) for moments, _ in searcher.search(case.queries())] == [2] * 5
    assert len(asked) == n_times


def test_a_corpus_is_ragged_and_keeps_the_rows_that_boundary_clips_see():
    case = a_case([3, 12, 11, 1, 3])
    corpus = case.corpus()
    assert [len(corpus.rows_of(entry)) for entry in range(5)] == [5, 12, 12, 3, 5]
    for entry in range(5):
        assert torch.equal(corpus.rows_of(entry), case.padded[entry, : len(corpus.rows_of(entry))])
    assert corpus.n_clips.tolist() == [3, 12, 11, 1, 3]
    assert len(corpus.rows) == 5 + 12 + 12 + 3 + 5


@pytest.mark.parametrize("max_rows", [1, 9, 10, 11, 1000])
def test_blocks_hold_runs_of_entries_of_one_shape_and_all_of_them(max_rows):
    case = a_case([3, 12, 11, 1, 3, 12, 3])
    corpus = case.corpus()
    seen = []
    for rows, norms, runs in corpus.blocks(max_rows):
        assert sum(len(run.entries) for run in runs) == 1 or len(rows) <= max_rows
        torch.testing.assert_close(norms, rows.norm(dim=-1).t())
        for entries, n_clips, of_run in runs:
            each = rows[of_run].view(len(entries), -1, 2, D)
            for entry, of_entry in zip(entries.tolist(), each, strict=True):
                assert case.n_clips[entry] == n_clips
                assert torch.equal(of_entry, corpus.rows_of(entry))
            seen += entries.tolist()
    assert sorted(seen) == list(range(7))


def test_many_more_videos_than_are_kept_leave_the_best():
    case = a_case([1 + i % 6 for i in range(150)], max_vcmr_video=2, clip_block=5)
    found = case.searcher().find(case.queries())
    entries, scores = found.videos, found.video_scores
    expected = case.video_scores()
    np.testing.assert_array_equal(entries.numpy(), np.argsort(-expected, axis=1)[:, :2])
    np.testing.assert_allclose(scores.numpy(), -np.sort(-expected, axis=1)[:, :2], rtol=1e-5)


def test_one_video_and_one_query_are_enough():
    case = a_case([4], n_queries=1)
    moments, videos = next(case.searcher().search(case.queries()))
    assert videos.entry.tolist() == [[0]]
    valid = moments.entry[0] != NO_ENTRY
    found = set(zip(moments.st[0][valid].tolist(), moments.ed[0][valid].tolist(), strict=True))
    assert found == {(0, 2), (1, 3), (0, 3)}


@pytest.mark.parametrize(("n_clips", "n_spans"), [(1, 0), (2, 0), (3, 1), (4, 3)])
def test_short_videos_have_only_the_spans_that_fit(n_clips, n_spans):
    case = a_case([n_clips, n_clips])
    moments, videos = next(case.searcher().search(case.queries()))
    assert videos.entry.shape == (2, 2)
    assert ((moments.entry != NO_ENTRY).sum(axis=1) == 2 * n_spans).all()


def test_a_band_no_video_reaches_finds_nothing():
    case = a_case([4, 6], min_pred_l=20, max_pred_l=30)
    moments, videos = next(case.searcher().search(case.queries()))
    assert (moments.entry != NO_ENTRY).sum() == 0
    assert videos.entry.shape == (2, 2)


def test_the_full_triangle_can_be_searched():
    case = a_case([5], min_pred_l=0, max_pred_l=100)
    moments, _ = next(case.searcher().search(case.queries()))
    assert ((moments.entry != NO_ENTRY).sum(axis=1) == 15).all()
