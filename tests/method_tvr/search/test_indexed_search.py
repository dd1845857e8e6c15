"""What an index names is scored as an exact search scores it; a complete index loses nothing."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.model_components import conv_predictors
from method_tvr.options.values import FAISS_KINDS, PROVING_KINDS
from method_tvr.search.candidates import CandidateIndex, CandidateSettings, clip_vectors, nearest_entries
from method_tvr.search.index import faiss_index, faiss_package
from method_tvr.search.index.faiss_index import DESCRIPTION, FaissRecipe, open_faiss_index, two_level_centres
from method_tvr.search.index.milvus_index import open_milvus_index
from method_tvr.search.index.recall import index_recall
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import NO_ENTRY, EncodedQueries, SearchSettings
from method_tvr.search.retrieval import Searcher
from utils.basic_utils import InputError

D = 16
ALL_CLIPS = CandidateSettings(n_clips=10_000, n_entries=10_000, n_probes=1_000)
SETTINGS = SearchSettings(max_vcmr_video=7, max_moments=20, max_pred_l=6)


@dataclass
class Case:
    corpus: EncodedCorpus
    queries: EncodedQueries
    kernels: torch.Tensor

    def exact(self) -> Searcher:
        return Searcher(self.corpus, conv_predictors(*self.kernels), SETTINGS)

    def by(self, index: CandidateIndex) -> Searcher:
        return Searcher(self.corpus, conv_predictors(*self.kernels), SETTINGS, index=index)


def made_case(n_videos: int, seed: int = 5) -> Case:
    """Videos of 4 to 12 clips with two rows of padding each, and 9 queries."""
    generator = torch.Generator().manual_seed(seed)
    n_clips = np.random.default_rng(seed).integers(4, 13, n_videos)
    rows = [torch.randn(int(n) + 2, 2, D, generator=generator) for n in n_clips]
    video, span = torch.randn(2, 9, 2, D, generator=generator)
    queries = EncodedQueries(F.normalize(video, dim=-1), span)
    return Case(EncodedCorpus(rows, n_clips), queries, torch.randn(2, 5, generator=generator))


@pytest.fixture(scope="module")
def case() -> Case:
    return made_case(60)


class AllClips(CandidateIndex):
    """Compares all clips, with numpy."""

    def __init__(self, corpus: EncodedCorpus, settings: CandidateSettings) -> None:
        self.settings = settings
        parts = [list(zip(*clip_vectors(corpus, m), strict=True)) for m in range(2)]
        self.entries = [np.concatenate(entries) for entries, _ in parts]
        self.vectors = [np.concatenate(vectors) for _, vectors in parts]

    def nearest_clips(
        self, modality: int, queries: np.ndarray, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        entries, scores = self.entries[modality], queries @ self.vectors[modality].T
        if allowed is not None:
            scores = np.where(allowed[entries], scores, -np.inf)
        order = np.argsort(-scores, axis=1)[:, : self.settings.n_clips]
        best = np.take_along_axis(scores, order, axis=1)
        return np.where(np.isfinite(best), entries[order], NO_ENTRY), best


def assert_same_answers(found: Searcher, exact: Searcher, queries: EncodedQueries, allowed=None) -> None:
    answers = zip(found.search(queries, allowed), exact.search(queries, allowed), strict=True)
    for (moments, videos), (wanted_moments, wanted) in answers:
        np.testing.assert_array_equal(videos.entry, wanted.entry)
        np.testing.assert_allclose(videos.score, wanted.score, rtol=1e-4)
        for name in ("entry", "st", "ed"):
            np.testing.assert_array_equal(getattr(moments, name), getattr(wanted_moments, name))
        np.testing.assert_allclose(moments.score, wanted_moments.score, rtol=1e-4)


@pytest.fixture(scope="module", params=["numpy", *FAISS_KINDS, "large ivf", "milvus"])
def index(request: pytest.FixtureRequest, case: Case, tmp_path_factory: pytest.TempPathFactory) -> CandidateIndex:
    """One that looks at everything; compressed vectors are ranked wrongly, but there is room for all entries."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "numpy":
        return AllClips(case.corpus, ALL_CLIPS)
    if request.param == "milvus":
        pytest.importorskip("pymilvus", reason="pymilvus and milvus-lite are not installed (index_requirements.txt)")
        return open_milvus_index(str(folder / "clips.db"), None, "ivf", "a" * 64, case.corpus, 2, ALL_CLIPS)
    pytest.importorskip("faiss", reason="faiss is not installed (index_requirements.txt)")
    kind = request.param.removeprefix("large ")
    recipe = FaissRecipe(kind, "seal", pq_bytes=1)
    with pytest.MonkeyPatch.context() as patch:
        if kind != request.param:
            patch.setattr(faiss_index, "GRAPH_FROM", 1)  # as if it had millions of clips
        return open_faiss_index(folder / "index", recipe, case.corpus, 2, ALL_CLIPS)


def test_an_index_that_names_everything_gives_the_exact_answers(case, index):
    assert_same_answers(case.by(index), case.exact(), case.queries)
    assert index_recall(case.by(index), case.queries).videos == 1
    assert index_recall(case.by(index), case.queries).first_moment == 1


def test_which_indexes_prove_answers(case, index, request):
    kind = request.node.callspec.params["index"].removeprefix("large ")
    assert (case.by(index).find(case.queries).looks is not None) == (kind in PROVING_KINDS)


def test_only_allowed_entries_are_found(case, index):
    allowed = np.zeros(60, dtype=bool)
    allowed[10:30] = True
    assert_same_answers(case.by(index), case.exact(), case.queries, allowed)
    assert allowed[case.by(index).find(case.queries, allowed).entries.numpy()].all()
    few = np.zeros(60, dtype=bool)
    few[[3, 50]] = True
    assert_same_answers(case.by(index), case.exact(), case.queries, few)
    assert case.exact().find(case.queries, few).entries.sort(dim=1).values.tolist() == [[3, 50]] * 9


def test_fewer_candidates_than_are_kept_are_filled_up_and_the_best_of_them_found(case):
    narrow = case.by(AllClips(case.corpus, CandidateSettings(n_clips=1, n_entries=2)))
    found, wanted = narrow.find(case.queries), case.exact().find(case.queries)
    assert found.entries.shape == wanted.entries.shape
    for entries, scores in zip(found.entries.tolist(), found.entry_scores, strict=True):
        assert len(set(entries)) == 7
        assert (scores.diff() <= 0).all()
    recall = index_recall(narrow, case.queries)
    assert 0 < recall.videos < 1


@pytest.mark.parametrize("impossible", [60, -2, 2**62, -(2**63)])
def test_entries_that_the_corpus_does_not_have_are_refused(case, impossible):
    index = AllClips(case.corpus, ALL_CLIPS)
    index.entries[1][3] = impossible
    with pytest.raises(InputError, match=r"build it again \(it names entries that the corpus does not have\)"):
        case.by(index).find(case.queries)


@given(st.data())
def test_the_best_entries_are_those_with_the_best_mean_of_nearest_clips(data):
    n = data.draw(st.integers(1, 12))
    found = []
    for _ in range(2):
        entries = data.draw(st.lists(st.integers(-1, 6), min_size=n, max_size=n))
        scores = data.draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n))
        found.append((np.array(entries), np.array(scores, dtype=np.float32)))
    expected: dict[int, float] = {}
    for entry in {entry for entries, _ in found for entry in entries.tolist()} - {NO_ENTRY}:
        for entries, scores in found:
            there = scores[entries != NO_ENTRY]
            own = scores[entries == entry]
            nearest = own.max() if len(own) else there.min() if len(there) else 0.0
            expected[entry] = expected.get(entry, 0.0) + float(nearest)
    keep = data.draw(st.integers(1, 8))
    chosen = nearest_entries(found, keep).tolist()
    assert len(chosen) == len(set(chosen)) == min(keep, len(expected))
    assert sorted(expected[entry] for entry in chosen) == sorted(expected.values())[-len(chosen) :] or not chosen


# ---------------------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("kind", "n_clips", "text"),
    [
        ("flat", 1_000_000, "IDMap,Flat"),
        ("ivf", 1_120_000, "IVF4096,Flat"),
        ("ivfsq", 20_000_000, "IVF16384_HNSW32,SQ8"),
        ("ivfpq", 20_000_000, "PCAR144,IVF16384_HNSW32,PQ48"),
    ],
)
def test_an_index_is_of_its_kind_with_cells_by_the_number_of_clips(kind, n_clips, text):
    assert FaissRecipe(kind, "seal").factory_text(n_clips, 384) == text


def test_reduced_vectors_keep_the_order_of_their_products(tmp_path):
    pytest.importorskip("faiss", reason="faiss is not installed (index_requirements.txt)")
    generator = torch.Generator().manual_seed(7)
    mean = torch.tensor([3.0, 1.0, 0, 0] + [0] * 12)  # what all clips share must not turn the order round
    rows = [
        mean + torch.cat([torch.randn(1, 2, 4, generator=generator), torch.zeros(1, 2, 12)], dim=2) for _ in range(900)
    ]
    corpus = EncodedCorpus(rows, np.ones(900, dtype=np.int64))
    settings = CandidateSettings(n_clips=50, n_probes=1000)
    index = open_faiss_index(tmp_path / "index", FaissRecipe("ivfpq", "seal", pq_bytes=2), corpus, 1, settings)
    vectors = np.concatenate([vectors for _, vectors in clip_vectors(corpus, 0)])
    entries = np.concatenate([entries for entries, _ in clip_vectors(corpus, 0)])
    queries = F.normalize(
        torch.cat([torch.randn(20, 4, generator=generator), torch.zeros(20, 12)], dim=1), dim=1
    ).numpy()
    found, _ = index.nearest_clips(0, queries, None)
    nearest = entries[np.argsort(-queries @ vectors.T, axis=1)[:, :50]]
    shares = [len(np.intersect1d(a, b)) / 50 for a, b in zip(found, nearest, strict=True)]
    assert np.mean(shares) > 0.8


def test_vectors_are_not_reduced_to_more_numbers_than_they_have():
    assert FaissRecipe("ivfpq", "seal", pq_bytes=192).factory_text(1000, 384) == "IVF128,PQ192"


def unit_vectors(n: int, seed: int) -> np.ndarray:
    return F.normalize(torch.randn(n, D, generator=torch.Generator().manual_seed(seed)), dim=-1).numpy()


@pytest.mark.parametrize(("n_same", "n_drawn", "n"), [(0, 4000, 64), (1000, 20, 16), (1000, 20, 1020), (0, 1, 1)])
def test_cells_found_in_two_steps_are_as_many_as_asked_for_however_vectors_lie(n_same, n_drawn, n):
    pytest.importorskip("faiss", reason="faiss is not installed (index_requirements.txt)")
    sample = np.concatenate([np.repeat(unit_vectors(1, 1), n_same, axis=0), unit_vectors(n_drawn, 2)])
    centres = two_level_centres(sample, n)
    assert centres.shape == (n, D)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, rtol=1e-5)


def test_cells_found_in_two_steps_are_nearer_than_drawn_ones_and_nearly_as_near_as_those_of_one_step():
    faiss = pytest.importorskip("faiss", reason="faiss is not installed (index_requirements.txt)")
    sample = unit_vectors(4000, 3)
    one_step = faiss.Kmeans(D, 64, spherical=True, seed=1)
    one_step.train(sample)
    near = [(sample @ c.T).max(axis=1).mean() for c in (sample[:64], two_level_centres(sample, 64), one_step.centroids)]
    assert near[0] < near[1]
    assert near[2] - near[1] < (near[2] - near[0]) / 2


# ---------------------------------------------------------------------------- files


def test_an_index_is_built_once_and_again_for_another_corpus_or_kind(case, tmp_path):
    pytest.importorskip("faiss", reason="faiss is not installed (index_requirements.txt)")
    folder = tmp_path / "index"

    def stamp(recipe: FaissRecipe) -> int:
        open_faiss_index(folder, recipe, case.corpus, 2, ALL_CLIPS)
        return (folder / DESCRIPTION).stat().st_mtime_ns

    first = stamp(FaissRecipe("ivf", "one"))
    assert stamp(FaissRecipe("ivf", "one")) == first
    second = stamp(FaissRecipe("ivf", "two"))
    assert second > first
    assert stamp(FaissRecipe("flat", "two")) > second
    assert [path.name for path in tmp_path.iterdir()] == ["index"]  # nothing unfinished is left


def test_wrong_sizes_are_refused(case, tmp_path):
    pytest.importorskip("faiss", reason="faiss is not installed (index_requirements.txt)")
    with pytest.raises(InputError, match="--pq_bytes 5: does not divide 16"):
        open_faiss_index(tmp_path / "pq", FaissRecipe("ivfpq", "one", pq_bytes=5), case.corpus, 2, ALL_CLIPS)


def test_an_unfinished_collection_is_filled_again_and_other_corpora_have_their_own(case, tmp_path):
    pymilvus = pytest.importorskip("pymilvus", reason="pymilvus is not installed (index_requirements.txt)")
    uri = str(tmp_path / "clips.db")
    index = open_milvus_index(uri, None, "ivf", "a" * 64, case.corpus, 2, ALL_CLIPS)
    client = index._milvus._client
    assert isinstance(client, pymilvus.MilvusClient)
    name = f"clips_{'a' * 32}_ivf_1"
    client.delete(name, ids=[0, 1, 2])
    again = open_milvus_index(uri, None, "ivf", "a" * 64, case.corpus, 2, ALL_CLIPS)
    assert_same_answers(case.by(again), case.exact(), case.queries)
    open_milvus_index(uri, None, "ivf", "b" * 64, case.corpus, 2, ALL_CLIPS)
    assert len(client.list_collections()) == 4


def test_a_disk_that_fills_up_under_milvus_is_said_in_one_line(case, tmp_path, monkeypatch, caplog):
    lite = pytest.importorskip("milvus_lite.engine.flush", reason="milvus-lite is not installed (index_requirements)")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lite, "write_data_file", full)
    with pytest.raises(InputError, match=r"clips\.db: .*No space left on device.*: is there room"):
        open_milvus_index(str(tmp_path / "clips.db"), None, "ivf", "a" * 64, case.corpus, 2, ALL_CLIPS)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_milvus_that_cannot_be_reached_is_named(case):
    pytest.importorskip("pymilvus", reason="pymilvus is not installed (index_requirements.txt)")
    with pytest.raises(InputError, match=r"http://127.0.0.1:9: .*is --index_uri the address of a running Milvus"):
        open_milvus_index("http://127.0.0.1:9", None, "ivf", "a" * 64, case.corpus, 2, ALL_CLIPS)


@pytest.mark.parametrize(
    ("capability", "told", "core"),
    [("AVX512", None, "SkylakeX"), ("AVX2", None, "Haswell"), ("DEFAULT", None, None), ("AVX2", "Zen", "Zen")],
)
def test_faiss_multiplies_as_the_processor_can(monkeypatch, capability, told, core):
    """While it is imported: what is started later is told nothing."""
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.delenv(faiss_package.CORE, raising=False)
    if told:
        monkeypatch.setenv(faiss_package.CORE, told)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(faiss_package, "needed", lambda *_: os.environ.get(faiss_package.CORE))
    assert faiss_package.import_faiss() == core
    assert os.environ.get(faiss_package.CORE) == told
