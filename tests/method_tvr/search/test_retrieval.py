"""Searching blocks, the best videos and the allowed band gives what scoring and sorting everything gives."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import NO_ENTRY, EncodedQueries, Moments, SearchSettings
from method_tvr.search.retrieval import Searcher

D = 4


@dataclass
class Case:
    """A corpus as the model leaves it: every video padded to the most clips, with encodings of padding."""

    padded: torch.Tensor  # (Nv, max_ctx_l, M, D)
    n_clips: list[int]
    query: torch.Tensor  # (Nq, M, D)
    span: torch.Tensor  # (Nq, M, D)
    kernels: torch.Tensor  # (2, kernel)
    search: SearchSettings

    def corpus(self) -> EncodedCorpus:
        reach = self.kernels.shape[1] // 2
        rows = [video[: n + reach] for video, n in zip(self.padded, self.n_clips, strict=True)]
        return EncodedCorpus(rows, self.n_clips)

    def queries(self) -> EncodedQueries:
        modalities = [str(m) for m in range(self.query.shape[1])]
        by_modality = ({m: x[:, i] for i, m in enumerate(modalities)} for x in (self.query, self.span))
        return EncodedQueries.build(*by_modality, modalities)

    def searcher(self) -> Searcher:
        return Searcher(self.corpus(), self.kernels[0], self.kernels[1], self.search)

    # ------------------------------------------------------------ the same, dense and in float64

    def video_scores(self) -> np.ndarray:
        """(Nq, Nv)."""
        scores = np.zeros((len(self.query), len(self.n_clips)))
        for v, n in enumerate(self.n_clips):
            cosine = torch.cosine_similarity(
                self.query[:, None].double(), self.padded[None, v, :n].double(), dim=-1
            )  # (Nq, n, M)
            scores[:, v] = cosine.amax(dim=1).mean(dim=1).numpy()
        return scores

    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """(Nq, Nv, max_ctx_l) of starts and ends, 0 past a video's clips."""
        similarity = torch.einsum("qmd,vlmd->qvl", self.span.double(), self.padded.double()) / self.span.shape[1]
        kernel = self.kernels.shape[1]
        flat = similarity.flatten(0, 1).unsqueeze(1)
        logits = F.conv1d(flat, self.kernels.double().unsqueeze(1), padding=kernel // 2)
        logits = logits.view(*similarity.shape[:2], 2, -1)
        missing = torch.arange(logits.shape[-1]) >= torch.tensor(self.n_clips).view(-1, 1, 1)
        both = logits.masked_fill(missing, -1e10).softmax(dim=-1).numpy()
        return both[:, :, 0], both[:, :, 1]

    def all_moments(self, weights: np.ndarray, videos: list[list[int]]) -> list[dict[tuple[int, int, int], float]]:
        """Per query {(video, st, ed): score} of every possible span."""
        p_st, p_ed = self.probabilities()
        band = range(self.search.min_pred_l, self.search.max_pred_l)
        return [
            {
                (v, i, i + n): p_st[q, v, i] * p_ed[q, v, i + n] * weights[q, v]
                for v in of_query
                for n in band
                for i in range(self.n_clips[v] - n)
            }
            for q, of_query in enumerate(videos)
        ]


@st.composite
def cases(draw) -> Case:
    kernel = draw(st.sampled_from([1, 3, 5, 7]))
    max_ctx_l = draw(st.integers(1, 14))
    # few different lengths, the most among them, so that blocks hold several videos and rows meet the cap
    lengths = st.sampled_from(sorted({1, min(2, max_ctx_l), min(3, max_ctx_l), max(1, max_ctx_l - 1), max_ctx_l}))
    n_clips = draw(st.lists(lengths, min_size=1, max_size=9))
    n_queries, n_modalities = draw(st.integers(1, 5)), draw(st.integers(1, 2))
    min_pred_l = draw(st.integers(0, 4))
    search = SearchSettings(
        q2c_alpha=draw(st.sampled_from([0.0, 1.0, 30.0])),
        max_vcmr_video=draw(st.integers(1, 12)),
        max_moments=draw(st.integers(1, 200)),
        min_pred_l=min_pred_l,
        max_pred_l=draw(st.sampled_from([min_pred_l + 1, min_pred_l + 3, 16])),
        query_block=draw(st.integers(1, 6)),
        clip_block=draw(st.integers(1, 60)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Case(
        normal(len(n_clips), max_ctx_l, n_modalities, D),
        n_clips,
        normal(n_queries, n_modalities, D),
        normal(n_queries, n_modalities, D),
        normal(2, kernel),
        search,
    )


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


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=75, deadline=None)
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
    go_through = EncodedCorpus.blocks
    monkeypatch.setattr(EncodedCorpus, "blocks", lambda corpus, n: passes.append(n) or go_through(corpus, n))
    for found, expected in zip(searcher.search(queries), one_by_one, strict=True):
        for part, other in zip(found, expected, strict=True):
            for name, values in vars(other).items():
                np.testing.assert_allclose(getattr(part, name), values, rtol=1e-5)
    assert len(passes) == n_passes


def a_case(n_clips: list[int], max_ctx_l: int = 12, n_queries: int = 2, **search: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    shapes = (len(n_clips), max_ctx_l, 2, D), (n_queries, 2, D), (n_queries, 2, D), (2, 5)
    padded, query, span, kernels = (torch.randn(*shape, generator=generator) for shape in shapes)
    return Case(padded, n_clips, query, span, kernels, SearchSettings(**search))


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
