"""What faiss's cells say of clips that were not looked at holds; what is proved is what an exact search finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from method_tvr.model_components import conv_predictors
from method_tvr.options.values import PROVING_KINDS
from method_tvr.search.candidates import CandidateSettings, Nearest, _Answer, clip_vectors
from method_tvr.search.index import faiss_index
from method_tvr.search.index.faiss_cells import Cells
from method_tvr.search.index.faiss_index import DESCRIPTION, FaissIndex, FaissRecipe, open_faiss_index
from method_tvr.search.index.recall import index_recall
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import NO_ENTRY, UNPROVED, EncodedQueries, Proofs, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.search.scoring import products_alike
from utils.basic_utils import InputError, read_json
from utils.storage.whole_folder import write_sealed

pytest.importorskip("faiss", reason="faiss is not installed (index_requirements.txt)")

D, N = 16, 50
SETTINGS = SearchSettings(max_vcmr_video=5, max_moments=20, max_pred_l=6)
KERNELS = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
NARROW = CandidateSettings(n_clips=40, n_entries=8, n_probes=3)
KINDS = ("normal", "clustered", "equal", "one hot", "near ties", "with zeros")


def clips_of_kind(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Float32 rows of clips, as they may come, of a shape (…, D)."""
    normal = torch.randn(shape, generator=generator)
    some = torch.randint(0, 4, shape[:-1], generator=generator)
    return {
        "normal": normal,
        "clustered": F.normalize(torch.eye(D)[some] + 0.02 * normal, dim=-1),
        "equal": torch.randn(D, generator=generator).expand(shape).clone(),
        "one hot": torch.eye(D)[some] * (some % 2 * 2 - 1).unsqueeze(-1),
        "near ties": torch.ones(D) + 1e-6 * normal,
        "with zeros": torch.where((some == 0).unsqueeze(-1), 0, normal),
    }[kind]


def corpus_of(kind: str, seed: int = 0) -> EncodedCorpus:
    """50 videos of 3 to 8 clips with two rows of padding each."""
    generator, n_clips = torch.Generator().manual_seed(seed), np.random.default_rng(seed).integers(3, 9, N)
    return EncodedCorpus([clips_of_kind(kind, (int(n) + 2, 2, D), generator) for n in n_clips], n_clips)


def queries_on(corpus: EncodedCorpus, seed: int = 0) -> EncodedQueries:
    """Some about anything, and some that are near clips."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(7, 2, D, generator=generator)
    near = torch.stack([corpus.rows_of(entry)[0] for entry in (3, 7, 21, 30)])
    video = torch.cat([drawn[:3], near + 0.05 * drawn[3:]])
    return EncodedQueries(F.normalize(video, dim=-1), torch.randn(7, 2, D, generator=generator))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FaissIndex]:
    """Opens an index over `corpus_of` a kind, built once."""
    folder = tmp_path_factory.mktemp("indexes")

    def open_it(kind: str, of: str, asked: CandidateSettings = NARROW, two_level: bool = False) -> FaissIndex:
        with pytest.MonkeyPatch.context() as patch:
            if two_level:
                patch.setattr(faiss_index, "GRAPH_FROM", 1)  # as if it had millions of clips
            place = folder / f"{kind} {of} {two_level}"
            return open_faiss_index(place, FaissRecipe(kind, "seal"), corpus_of(of), 2, asked)

    return open_it


def assert_proved_answers_are_exact(
    corpus: EncodedCorpus, index: FaissIndex, queries: EncodedQueries, allowed: np.ndarray | None = None
) -> list[int]:
    """Of some queries alone, and of all at once; returns after how many looks each of all was proved."""
    found_by, exact = (Searcher(corpus, conv_predictors(*KERNELS), SETTINGS, index=each) for each in (index, None))
    for rows in (slice(0, 1), slice(5, 6), slice(0, len(queries))):
        found, wanted = found_by.find(queries[rows], allowed), exact.find(queries[rows], allowed)
        proved = found.looks != UNPROVED
        for name in ("entries", "entry_scores", "videos", "video_scores"):
            assert torch.equal(getattr(found, name)[proved], getattr(wanted, name)[proved]), name
    return found.looks.tolist()


# ---------------------------------------------------------------------------- bounds


def excess(index: FaissIndex, corpus: EncodedCorpus, queries: torch.Tensor, allowed: np.ndarray | None = None) -> float:
    """By how much a cosine that a search computes is above what the index says of it, at most."""
    worst = []
    for m in range(2):
        entries, vectors = map(np.concatenate, zip(*clip_vectors(corpus, m), strict=True))
        found = index.look(m, queries[:, m].numpy(), allowed)
        cosines = products_alike(torch.from_numpy(vectors), queries[:, m]).numpy().T
        for row, of_query in enumerate(cosines):
            best = dict.fromkeys(range(N), -np.inf)
            for entry, cosine in zip(found.entries[row].tolist(), found.cosines[row].tolist(), strict=True):
                if entry != NO_ENTRY:
                    best[entry] = max(best[entry], cosine + found.error)
            may = np.maximum([best[entry] for entry in entries.tolist()], found.above[row])
            worst.append((of_query - may)[slice(None) if allowed is None else allowed[entries]].max())
    return float(max(worst))


def excess_of_cells(index: FaissIndex, corpus: EncodedCorpus) -> float:
    """By how much a cosine of two clips is above what the cell of one says for the other, at most."""
    worst = []
    for m, (cells, of_faiss) in enumerate(zip(index._cells, index._indexes, strict=True)):
        vectors = np.concatenate([vectors for _, vectors in clip_vectors(corpus, m)])
        cell = of_faiss.quantizer.assign(vectors, 1)[:, 0]
        above = np.stack([cells.above(cells.centres @ vector) for vector in vectors])
        worst.append((vectors @ vectors.T - above[:, cell]).max())
    return float(max(worst))


@pytest.mark.parametrize("kind", PROVING_KINDS)
@pytest.mark.parametrize("of", KINDS)
def test_no_clip_has_a_cosine_above_what_an_index_says(opened, kind, of):
    corpus = corpus_of(of)
    queries = queries_on(corpus).for_videos
    for asked in (NARROW, replace(NARROW, n_clips=5), replace(NARROW, n_probes=1000)):
        assert excess(opened(kind, of, asked), corpus, queries) <= 0
    assert excess(opened(kind, of), corpus, queries, np.random.default_rng(1).random(N) < 0.4) <= 0


@pytest.mark.parametrize("of", KINDS)
def test_no_clip_has_a_cosine_above_what_its_cell_says(opened, of):
    assert excess_of_cells(opened("ivf", of), corpus_of(of)) <= 0


def test_where_cells_are_found_by_a_graph_bounds_hold_too(opened):
    corpus = corpus_of("normal")
    assert excess_of_cells(opened("ivfsq", "normal", two_level=True), corpus) <= 0
    assert excess(opened("ivfsq", "normal", two_level=True), corpus, queries_on(corpus).for_videos) <= 0


def test_an_angle_or_an_error_that_is_too_small_is_noticed(opened):
    """Each part of a bound is needed: without any of them the tests above fail."""
    index, corpus = opened("ivf", "normal"), corpus_of("normal")
    right = index._cells
    index._cells = [replace(cells, angles=0.98 * cells.angles) for cells in right]
    assert excess_of_cells(index, corpus) > 0
    wide = int(right[0].angles.argmax())
    index._cells = [replace(of, angles=np.where(np.arange(len(of.angles)) == wide, 0, of.angles)) for of in right]
    assert excess_of_cells(index, corpus) > 0
    index = opened("ivfsq", "normal", replace(NARROW, n_clips=1000, n_probes=1000))
    index._cells = [replace(cells, error=0.0) for cells in index._cells]
    assert excess(index, corpus, queries_on(corpus).for_videos) > 0


@given(st.integers(0, 2**32), st.floats(0, 0.6))
@settings(max_examples=30)
def test_a_cell_bounds_clips_at_its_edge(seed, spread):
    """For any query the bound holds for the clip that is farthest; where that lies between, no lower one would."""
    rng = np.random.default_rng(seed)
    centre, away, *drawn = rng.standard_normal((22, D))
    centre /= np.linalg.norm(centre)
    away -= centre * (away @ centre)
    away /= np.linalg.norm(away)
    edge = np.cos(spread) * centre + np.sin(spread) * away
    cells = Cells(centre[None].astype(np.float32), np.array([spread + 1e-6]), 0.0)
    for query in drawn:
        query = (query / np.linalg.norm(query)).astype(np.float32)
        assert edge @ query <= cells.above(cells.centres @ query)[0]
    beyond = (np.cos(spread + 0.3) * centre + np.sin(spread + 0.3) * away).astype(np.float32)
    assert cells.above(cells.centres @ beyond)[0] == pytest.approx(edge @ beyond, abs=2e-4)


# ---------------------------------------------------------------------------- answers


@pytest.mark.parametrize("kind", PROVING_KINDS)
@pytest.mark.parametrize("of", KINDS)
def test_what_is_proved_is_exact(opened, kind, of):
    corpus, rng, index = corpus_of(of), np.random.default_rng(1), opened(kind, of)
    cases = (
        (None, NARROW),
        (rng.random(N) < 0.5, replace(NARROW, n_clips=300, n_probes=40)),
        (rng.random(N) < 0.2, replace(NARROW, n_probes=1000, n_entries=20)),
        (np.arange(N) % 25 == 3, NARROW),  # fewer than are kept
    )
    for seed, (allowed, asked) in enumerate(cases):
        for prove in (False, True):
            index.settings = replace(asked, prove=prove)
            looks = assert_proved_answers_are_exact(corpus, index, queries_on(corpus, seed), allowed)
            assert not (prove and UNPROVED in looks)


def test_some_answers_are_proved_at_once_and_some_are_not(opened):
    corpus = corpus_of("clustered")
    queries, wide = queries_on(corpus), replace(NARROW, n_clips=200, n_probes=40)
    looks = assert_proved_answers_are_exact(corpus, opened("ivf", "clustered", wide), queries)
    assert {0, 1} <= set(looks)
    index = opened("ivf", "clustered", replace(wide, prove=True))
    assert 1 < max(assert_proved_answers_are_exact(corpus, index, queries)) <= 5
    proofs = index_recall(Searcher(corpus, conv_predictors(*KERNELS), SETTINGS, index=index), queries).proofs
    assert proofs == Proofs(7, looks.count(1), 7 - looks.count(1))
    assert f"7 of 7 answers are proved complete, {7 - looks.count(1)} of them by looking further" == str(proofs)


def test_no_more_is_looked_at_than_cells_require(opened):
    """The cells outside of what is looked at are bounded below what is needed, and those of fewer are not."""
    index = opened("ivf", "clustered")
    query = queries_on(corpus_of("clustered")).for_videos[4].numpy()
    needed = 0.9
    first, last = (wider.settings for wider in index.further(query, needed))
    assert last.n_probes == len(index._cells[0].centres) > first.n_probes > NARROW.n_probes
    above = np.mean([cells.above_outside(q) for cells, q in zip(index._cells, query, strict=True)], axis=0)
    assert above[first.n_probes] < needed <= above[first.n_probes - 1]
    assert (first.n_clips, last.n_clips) == (160, 640)


def test_an_entry_that_is_not_named_or_may_score_as_much_is_missing():
    corpus = corpus_of("normal")
    answer = _Answer(corpus, queries_on(corpus).for_videos[:1], 2, np.arange(4), 1)
    answer.add(np.array([0, 1]))
    needed = answer.needed

    def missing(named: list[int], cosines: list[float], above: float, error: float = 0.0) -> list[int] | None:
        one = Nearest(np.array([named]), np.array([cosines]), np.array([above]), error)
        found = answer.missing([one, one])
        return None if found is None else found.tolist()

    assert missing([2, 3], [needed - 0.1, needed - 0.2], needed - 0.3) == []
    assert missing([2, 3], [needed, needed - 0.2], needed - 0.3) == [2]
    assert missing([2, 3], [needed - 0.1, needed - 0.2], needed - 0.3, error=0.15) == [2]
    assert missing([2, NO_ENTRY], [needed - 0.1, -np.inf], needed - 0.3) == []
    assert missing([2, 2], [needed - 0.1, needed - 0.2], needed) is None
    assert missing([2, 3], [needed - 0.1, needed - 0.2], needed) == [2, 3]  # which are all there are


def test_in_half_precision_nothing_is_proved(opened):
    generator = torch.Generator().manual_seed(0)
    half = EncodedCorpus([torch.randn(4, 2, D, generator=generator) for _ in range(N)], np.full(N, 4), torch.bfloat16)
    queries = queries_on(corpus_of("normal"))
    assert (
        Searcher(half, conv_predictors(*KERNELS), SETTINGS, index=opened("flat", "normal")).find(queries).looks is None
    )


# ---------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    open_faiss_index(tmp_path / "index", FaissRecipe("ivf", "seal"), corpus_of("normal"), 2, NARROW)
    return tmp_path / "index"


def described_otherwise(folder: Path, **changed: object) -> None:
    said = {**read_json(folder / DESCRIPTION)["content"], **changed}
    write_sealed(folder / DESCRIPTION, {name: value for name, value in said.items() if value is not None})


def test_an_index_built_before_cells_were_measured_works_and_says_what_it_lacks(folder, capsys):
    described_otherwise(folder, cells=None)
    before, corpus = (folder / DESCRIPTION).stat().st_mtime_ns, corpus_of("normal")
    index = open_faiss_index(folder, FaissRecipe("ivf", "seal"), corpus, 2, NARROW)
    assert "index: was built before its cells were measured" in capsys.readouterr().err
    assert Searcher(corpus, conv_predictors(*KERNELS), SETTINGS, index=index).find(queries_on(corpus)).looks is None
    with pytest.raises(InputError, match=r"--prove: .*measured.*: remove the folder index, and it is built again"):
        open_faiss_index(folder, FaissRecipe("ivf", "seal"), corpus, 2, replace(NARROW, prove=True))
    assert (folder / DESCRIPTION).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "cells",
    [[], 3, [{}, {}], [{"angles": [1.0], "error": 0.0}] * 2, [{"angles": [9.0] * 64, "error": 0.0}] * 2]
    + [[{"angles": [1.0] * 64, "error": error}] * 2 for error in (-1.0, "much", None)],
)
def test_cells_that_cannot_be_are_refused_under_a_digest_that_is_right(folder, cells):
    assert len(read_json(folder / DESCRIPTION)["content"]["cells"][0]["angles"]) == 64
    described_otherwise(folder, cells=cells)
    with pytest.raises(InputError, match=r"index\.json: is damaged: remove the folder index, and it is built again"):
        open_faiss_index(folder, FaissRecipe("ivf", "seal"), corpus_of("normal"), 2, NARROW)
