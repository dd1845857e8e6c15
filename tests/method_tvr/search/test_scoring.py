"""What a GPU computes in few launches is what a CPU computes in many, and a corpus is the same wherever it is held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from method_tvr.model_components import conv_predictors
from method_tvr.search import scoring, stored_corpus
from method_tvr.search.corpus import Corpus
from method_tvr.search.corpus_store import CorpusStore
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import NO_ENTRY, EncodedQueries, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.search.scoring import ON_CPU, ON_GPU
from method_tvr.search.stored_corpus import StoredCorpus, open_corpus
from tests.support.search.cases import a_case, cases
from tests.support.search.encoded_corpora import MODALITIES, RECIPE, encoded, stored, write

CPU = torch.device("cpu")


def on_gpu(searcher: Searcher) -> Searcher:
    """The searcher, computing as on a GPU."""
    searcher._way = ON_GPU
    return searcher


def assert_same_answers(found: Searcher, wanted: Searcher, queries: EncodedQueries) -> None:
    for (moments, videos), (other_moments, other_videos) in zip(
        found.search(queries), wanted.search(queries), strict=True
    ):
        np.testing.assert_allclose(videos.score, other_videos.score, rtol=1e-4)
        for row, other in zip(moments.entry, other_moments.entry, strict=True):
            assert (row != NO_ENTRY).sum() == (other != NO_ENTRY).sum()
        scores = [part.score[part.entry != NO_ENTRY] for part in (moments, other_moments)]
        np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-30)


@settings(max_examples=50, deadline=None)
@given(cases(), st.integers(1, 5), st.sampled_from([1, 2000, 1 << 30]), st.data())
def test_clip_similarities_at_once_are_those_of_one_video_after_another(case, width, product_bytes, data):
    corpus, longest = case.corpus(), max(case.n_clips) + case.kernels.shape[1]
    entry = st.integers(0, len(case.n_clips) - 1)
    of_query = st.lists(entry, min_size=width, max_size=width)
    entries = torch.tensor(data.draw(st.lists(of_query, min_size=len(case.span), max_size=len(case.span))))
    vectors = slice(None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "PRODUCT_BYTES", product_bytes)  # all rows at once, or those of some queries' entries
        similarities = [way.clip_similarity(corpus, case.span, entries, vectors) for way in (ON_GPU, ON_CPU)]
    found, wanted = (torch.nn.functional.pad(x, (0, longest - x.shape[1])) for x in similarities)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for row, number in enumerate(entries.flatten().tolist()):
        assert not found[row, corpus.n_rows[number] :].any()


@settings(max_examples=50, deadline=None)
@given(cases(), st.integers(1, 60), st.sampled_from([1, 2, 100]))
def test_videos_scored_at_once_have_the_scores_of_one_length_after_another(case, max_rows, most_padded):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "MOST_PADDED", most_padded)
        for block in case.corpus().blocks(max_rows):
            cosine = torch.randn(len(block.rows), 3, generator=torch.Generator().manual_seed(0))
            assert torch.equal(ON_GPU.pooled(cosine, block.runs), ON_CPU.pooled(cosine, block.runs))


def test_many_short_videos_are_not_padded_to_one_long_one(monkeypatch):
    case = a_case([1] * 40 + [12])
    (block,) = case.corpus().blocks(1000)
    lengths: list[tuple[int, ...]] = []
    monkeypatch.setattr(scoring, "MOST_PADDED", 2)
    monkeypatch.setattr(
        scoring, "pool_clips", lambda similarity: lengths.append(similarity.shape) or similarity.amax(2)
    )
    ON_GPU.pooled(torch.zeros(len(block.rows), 3), block.runs)
    assert lengths == [(40, 3, 1), (1, 3, 12)]


@settings(max_examples=50, deadline=None)
@given(cases())
def test_a_search_finds_on_a_gpu_what_it_finds_on_a_cpu(case):
    assert_same_answers(on_gpu(case.searcher()), case.searcher(), case.queries())


def test_a_search_of_some_videos_finds_on_a_gpu_what_it_finds_on_a_cpu():
    case = a_case([3, 12, 11, 1, 3, 7, 7, 9], max_vcmr_video=4, clip_block=20)
    allowed = np.array([0, 0, 1, 0, 1, 1, 0, 1], dtype=bool)
    found, wanted = (s.find(case.queries(), allowed) for s in (on_gpu(case.searcher()), case.searcher()))
    assert torch.equal(found.entries, wanted.entries)
    torch.testing.assert_close(found.entry_scores, wanted.entry_scores)
    assert set(found.entries.flatten().tolist()) <= set(np.flatnonzero(allowed).tolist())


def test_of_videos_in_several_entries_few_may_be_looked_at():
    case = a_case([5] * 8)
    searcher = Searcher(case.corpus(), conv_predictors(*case.kernels), case.search, np.arange(8) // 2)
    allowed = np.array([0, 0, 1, 1, 0, 1, 0, 0], dtype=bool)
    found = searcher.find(case.queries(), allowed)
    assert found.videos.shape == (2, 2)
    assert all({entry // 2 for entry in of_query} == {1, 2} for of_query in found.videos.tolist())
    assert found.entries.shape == (2, 3)


@pytest.mark.parametrize("way", [ON_CPU, ON_GPU])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_kept_in_half_precision_and_multiplied_in_float32_answer_as_their_float32_copies(dtype, way):
    case = a_case([3, 12, 11, 1, 3], n_queries=7)
    half = [rows.to(dtype) for rows in (case.corpus().rows_of(entry) for entry in range(5))]
    kept = EncodedCorpus(half, case.n_clips, kept=dtype)
    copied = EncodedCorpus([rows.float() for rows in half], case.n_clips)
    assert kept.rows.dtype == dtype
    searchers = [Searcher(corpus, conv_predictors(*case.kernels), case.search) for corpus in (kept, copied)]
    for searcher in searchers:
        searcher._way = way
    assert_same_answers(*searchers, case.queries())


# ---------------------------------------------------------------------------- a stored corpus and where it is held


def searched(corpus: Corpus) -> Searcher:
    kernels = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    return on_gpu(
        Searcher(corpus, conv_predictors(*kernels), SearchSettings(clip_block=20, query_block=2, max_vcmr_video=3))
    )


def some_queries() -> EncodedQueries:
    shape = 5, len(MODALITIES), encoded(0).shape[2]
    video, span = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    return EncodedQueries(torch.nn.functional.normalize(video, dim=-1), span)


@pytest.mark.parametrize("rows_a_part", [20, 10_000])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_corpus_that_fits_is_held_as_it_is_kept_and_answers_as_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dtype: str, rows_a_part: int
):
    numbers = [6, 2, 7, 1, 0]
    folder = write(tmp_path / "corpus", range(8), replace(RECIPE, dtype=dtype), rows_a_part)
    on_disk = stored(folder, numbers)
    monkeypatch.setattr(stored_corpus, "_free_bytes", lambda device: on_disk.n_bytes + stored_corpus.SEARCH_BYTES)
    held = open_corpus(CorpusStore(folder), [f"v{number}" for number in numbers], CPU)
    assert isinstance(held, EncodedCorpus)
    assert "is loaded onto cpu" in capsys.readouterr().err
    assert held.rows.dtype == getattr(torch, dtype)
    assert held.rows.nbytes + held._norms.nbytes == on_disk.n_bytes
    for entry in range(len(numbers)):
        assert torch.equal(held.rows_of(entry), on_disk.rows_of(entry))
    assert_same_answers(searched(held), searched(on_disk), some_queries())


def test_a_corpus_that_does_not_fit_stays_on_disk_which_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    store = CorpusStore(write(tmp_path / "corpus", range(8)))
    free = StoredCorpus(store, list(store.where), CPU).n_bytes + stored_corpus.SEARCH_BYTES - 1
    monkeypatch.setattr(stored_corpus, "_free_bytes", lambda device: free)
    assert isinstance(open_corpus(store, list(store.where), CPU), StoredCorpus)
    said = capsys.readouterr().err
    assert said.startswith("note: the encoded corpus")
    assert "stays on disk" in said
    assert "4.0 GiB are free" in said
    assert said.count("\n") == 1


def test_on_a_cpu_a_corpus_stays_on_disk_and_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = CorpusStore(write(tmp_path / "corpus", range(8)))
    assert isinstance(open_corpus(store, list(store.where), CPU), StoredCorpus)
    assert not capsys.readouterr().err


def test_scores_are_the_same_with_any_number_of_threads_and_whatever_asks_for_them():
    generator, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    n_clips = np.random.default_rng(0).integers(1, 60, 40)
    corpus = EncodedCorpus([torch.randn(int(n), 2, 384, generator=generator) for n in n_clips], n_clips)
    queries = torch.nn.functional.normalize(torch.randn(9, 2, 384, generator=generator), dim=-1)
    entries, asked = np.divmod(np.arange(40 * 9), 9)
    found = []
    try:
        for n in (1, 2, 8):
            torch.set_num_threads(n)
            scores = torch.empty(40, 9)
            for _, some, of_some in scoring.scores_by_a_pass(corpus, [queries], 300, ON_CPU):
                scores[some] = of_some
            of_pairs = scoring.scores_of_pairs(corpus, entries, asked, queries).view(40, 9)
            found += [scores, scoring.scores_of_entries(corpus, np.arange(40), queries), of_pairs]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(scores, found[0]) for scores in found)
