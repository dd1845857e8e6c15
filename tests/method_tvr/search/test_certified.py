"""A certified search: its answers are the exact ones bit by bit, and it follows the corpus."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.model_components import conv_predictors
from method_tvr.search.corpus_store import CorpusStore
from method_tvr.search.corpus_writer import adding_to
from method_tvr.search.index.certified import certified_files, certified_index, upper_bounds
from method_tvr.search.index.certified.certified_files import DESCRIPTION, open_certified_index
from method_tvr.search.index.certified.certified_index import CertifiedIndex
from method_tvr.search.index.certified.upper_bounds import GAP, MANY, blocks_of
from method_tvr.search.records import EncodedQueries, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.search.scoring import scores_of_entries, scores_of_pairs
from method_tvr.search.stored_corpus import StoredCorpus
from tests.support.search.encoded_corpora import CPU, MODALITIES, RECIPE, a_video
from utils.basic_utils import InputError
from utils.storage.whole_folder import read_sealed, write_sealed

D = 96  # less than a row of the second level has room for
SETTINGS = SearchSettings(max_vcmr_video=5, max_moments=20, max_pred_l=6)
KERNELS = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------- searching


def rows_of(number: int) -> torch.Tensor:
    """Of a video of 3 to 8 clips with two rows of padding; every fifth is a copy of the one before it."""
    generator = torch.Generator().manual_seed(number - (number % 5 == 4))
    return torch.randn(n_clips(number) + 2, len(MODALITIES), D, generator=generator)


def n_clips(number: int) -> int:
    return 3 + (number - (number % 5 == 4)) % 6


def written(folder: Path, numbers: range, dtype: str = "float32") -> Path:
    with adding_to(folder, replace(RECIPE, hidden_size=D, dtype=dtype), part_bytes=40_000) as writer:
        for number in numbers:
            video = replace(a_video(0), vid_name=f"v{number}", duration=1.5 * n_clips(number), idx=number)
            writer.add(video, n_clips(number), rows_of(number))
    return folder


def opened(folder: Path, names: list[str] | None = None) -> tuple[StoredCorpus, CertifiedIndex]:
    store = CorpusStore(folder)
    corpus = StoredCorpus(store, names or sorted(store.where), CPU)
    return corpus, open_certified_index(folder.with_name("index"), store, corpus, lambda: np.empty((0, 2, D)))


@pytest.fixture(scope="module")
def queries() -> EncodedQueries:
    """Some about anything, and some that are clips."""
    generator = torch.Generator().manual_seed(3)
    video = torch.cat([torch.randn(4, 2, D, generator=generator), torch.stack([rows_of(4)[0], rows_of(21)[1]])])
    return EncodedQueries(F.normalize(video, dim=-1), torch.randn(6, 2, D, generator=generator))


def assert_identical(
    corpus: StoredCorpus, index: CertifiedIndex, queries: EncodedQueries, allowed=None, of=None, settings=SETTINGS
) -> None:
    """Of one query, and of several."""
    searchers = [
        Searcher(corpus, conv_predictors(*KERNELS), settings, video_of_entry=of, index=each) for each in (index, None)
    ]
    together, exact_together = (searcher.find(queries, allowed) for searcher in searchers)
    for name in ("entries", "entry_scores", "videos", "video_scores"):
        assert torch.equal(getattr(together, name), getattr(exact_together, name)), name
    for number in range(len(queries)):
        one = queries[number : number + 1]
        found, wanted = (searcher.find(one, allowed) for searcher in searchers)
        for name in ("entries", "entry_scores", "videos", "video_scores"):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), name
        (moments, videos), (exact_moments, exact_videos) = (next(each.search(one, allowed)) for each in searchers)
        for ours, theirs in ((moments, exact_moments), (videos, exact_videos)):
            for name, column in vars(theirs).items():
                np.testing.assert_array_equal(getattr(ours, name), column)


@pytest.fixture(autouse=True)
def few_directions(monkeypatch) -> None:
    """Rows of few bytes, though queries lie in all directions."""
    monkeypatch.setattr(certified_files, "LOST", math.inf)


@pytest.mark.parametrize("lost", [math.inf, 0.01])
@pytest.mark.parametrize(("dtype", "held"), [("float32", 1 << 20), ("float16", 0)])
def test_answers_are_the_exact_ones(tmp_path, queries, dtype, held, lost, monkeypatch):
    monkeypatch.setattr(certified_files, "LOST", lost)
    monkeypatch.setattr(certified_index, "SCORED_AT_A_TIME", 3)
    monkeypatch.setattr(certified_index, "PROMISING", 1)
    monkeypatch.setattr(upper_bounds, "ROWS_AT_A_TIME", 64)
    monkeypatch.setattr(upper_bounds, "GAP", 0)
    monkeypatch.setattr(certified_files, "HELD_BYTES", held)
    monkeypatch.setattr(certified_files, "ROW_BYTES", (64, 92))
    corpus, index = opened(written(tmp_path / "corpus", range(60), dtype))
    assert_identical(corpus, index, queries)
    assert index.work.scored < 0.7 * index.work.queries * 60  # the others are left out
    allowed = np.zeros(60, bool)
    allowed[[3, 8, 9, 40, 41, 42, 43, 44]] = True
    assert_identical(corpus, index, queries, allowed)
    few = np.zeros(60, bool)
    few[[3, 40]] = True
    assert_identical(corpus, index, queries, few)


@pytest.mark.parametrize(("n_directions", "n_known", "widths"), [(8, 40, [16, 32]), (96, 40, [96]), (8, 0, [96])])
def test_rows_have_all_numbers_where_queries_may_lie_in_all_directions(
    tmp_path, n_directions, n_known, widths, monkeypatch
):
    monkeypatch.setattr(certified_files, "ROW_BYTES", (16, 32))
    monkeypatch.setattr(certified_files, "LOST", 0.01)
    rng = np.random.default_rng(0)
    known = rng.standard_normal((n_known, 2, n_directions)) @ rng.standard_normal((n_directions, D))
    folder = written(tmp_path / "corpus", range(10))
    store = CorpusStore(folder)
    corpus = StoredCorpus(store, sorted(store.where), CPU)
    open_certified_index(tmp_path / "index", store, corpus, lambda: known)
    kept = [np.load(path, mmap_mode="r") for path in sorted((tmp_path / "index/part-00000").glob("*.npy"))]
    assert [rows.shape[0] * rows.shape[2] for rows in kept] == [2 * width for width in widths]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_where_little_can_be_left_out_one_pass_scores_the_rest(tmp_path, queries, dtype, monkeypatch):
    monkeypatch.setattr(certified_index, "A_PASS", 1 << 20)  # as if these few were most of the corpus
    monkeypatch.setattr(certified_index, "SCORED_AT_A_TIME", 1)
    monkeypatch.setattr(certified_files, "ROW_BYTES", (16, 32))
    corpus, index = opened(written(tmp_path / "corpus", range(60), dtype))
    passes = []
    monkeypatch.setattr(
        StoredCorpus,
        "unread_blocks",
        lambda self, n, own=StoredCorpus.unread_blocks: passes.append(n) or own(self, n),
    )
    index.find(corpus, queries.for_videos[:1], 5)
    assert len(passes) == 1
    allowed = np.arange(60) % 3 > 0
    assert_identical(corpus, index, queries)
    assert_identical(corpus, index, queries, allowed, np.arange(60) // 4)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), min_size=1, max_size=30), st.integers(1, 200))
def test_blocks_have_the_rows_of_each_entry(shapes, most):
    gaps, n_clips = np.array(shapes).T
    first = np.cumsum(gaps + n_clips) - n_clips
    blocks = list(blocks_of(first, n_clips, most, 7))
    assert [number for block in blocks for number in range(block.entries.start, block.entries.stop)] == [
        7 + number for number in range(len(first))
    ]
    for block in blocks:
        rows = np.concatenate([np.arange(stretch.start, stretch.stop) for stretch in block.stretches])
        assert len(rows) <= most + GAP * len(first) + 30
        for entry, (begin, end) in zip(
            range(block.entries.start - 7, block.entries.stop - 7), block.edges.reshape(-1, 2), strict=True
        ):
            assert rows[begin:end].tolist() == list(range(first[entry], first[entry] + n_clips[entry]))


@pytest.fixture(scope="module")
def many_queries() -> EncodedQueries:
    """More than are looked for one by one; the first are clips."""
    generator = torch.Generator().manual_seed(4)
    video = torch.cat([torch.stack([rows_of(4)[0], rows_of(21)[1]]), torch.randn(15, 2, D, generator=generator)])
    assert len(video) > 2 * MANY
    return EncodedQueries(F.normalize(video, dim=-1), torch.randn(17, 2, D, generator=generator))


@pytest.mark.parametrize(("dtype", "held"), [("float32", 1 << 20), ("float16", 0)])
def test_many_queries_look_at_videos_together(tmp_path, many_queries, dtype, held, monkeypatch):
    monkeypatch.setattr(certified_index, "A_PASS_OF_MANY", 2)  # as if the corpus were large
    monkeypatch.setattr(certified_index, "PROMISING", 1)
    monkeypatch.setattr(upper_bounds, "NUMBERS_AT_A_TIME", 1)
    monkeypatch.setattr(upper_bounds, "GAP", 0)
    monkeypatch.setattr(certified_files, "HELD_BYTES", held)
    corpus, index = opened(written(tmp_path / "corpus", range(60), dtype))
    scored = []
    monkeypatch.setattr(
        certified_index, "scores_of_pairs", lambda *args: scored.append(len(args[1])) or scores_of_pairs(*args)
    )
    index.find(corpus, many_queries.for_videos, 5)
    assert 17 * 5 <= sum(scored) < 0.5 * 17 * 60  # the others are left out
    assert index.work.scored == sum(scored)
    allowed = np.arange(60) % 3 > 0
    assert_identical(corpus, index, many_queries, allowed)
    assert_identical(corpus, index, many_queries, allowed, np.arange(60) // 4)


def test_where_little_can_be_left_out_one_pass_serves_many_queries(tmp_path, many_queries, monkeypatch):
    monkeypatch.setattr(certified_index, "A_PASS_OF_MANY", 12)
    monkeypatch.setattr(certified_index, "PROMISING", 1)
    monkeypatch.setattr(certified_files, "ROW_BYTES", (16, 32))
    corpus, index = opened(written(tmp_path / "corpus", range(60)))
    passes = []
    monkeypatch.setattr(
        StoredCorpus,
        "unread_blocks",
        lambda self, n, own=StoredCorpus.unread_blocks: passes.append(n) or own(self, n),
    )
    index.find(corpus, many_queries.for_videos, 5)
    assert len(passes) == 1
    assert_identical(corpus, index, many_queries)
    assert_identical(corpus, index, many_queries, of=np.arange(60) // 4)


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 16)), min_size=1, max_size=120))
def test_scores_of_pairs_are_those_of_all(searched, pairs):
    corpus, queries, of_all = searched
    entries, asked = np.array(pairs).T
    assert torch.equal(scores_of_pairs(corpus, entries, asked, queries), of_all[entries, asked])


@pytest.fixture(scope="module")
def searched(tmp_path_factory, many_queries) -> tuple[StoredCorpus, torch.Tensor, torch.Tensor]:
    """A corpus, queries, and the scores (Nv, Nq) of all."""
    corpus, _ = opened(written(tmp_path_factory.mktemp("searched") / "corpus", range(30), "float16"))
    return corpus, many_queries.for_videos, scores_of_entries(corpus, np.arange(30), many_queries.for_videos)


def test_several_in_a_small_corpus_are_searched_exactly_and_said_to_be_proved(tmp_path, many_queries, monkeypatch):
    corpus, index = opened(written(tmp_path / "corpus", range(30)))
    searcher = Searcher(corpus, conv_predictors(*KERNELS), SETTINGS, index=index)
    assert searcher.shortlist(many_queries).looks.tolist() == [1] * len(many_queries)
    assert index.said() == "that many at once were searched exactly, by one pass over the corpus"
    assert searcher.shortlist(many_queries[:1]).looks.tolist() == [1]
    assert "a query reads" in index.said()
    assert not index.is_worth_it(MANY, 5)
    monkeypatch.setattr(certified_index, "A_PASS_OF_MANY", 2)  # as if it were larger
    assert not index.is_worth_it(MANY, 5)  # but rows are too long for its few clips
    monkeypatch.setattr(certified_index, "CLIPS_A_BYTE", 0.1)
    assert index.is_worth_it(MANY, 5)


def test_equal_videos_come_in_the_order_of_their_numbers(tmp_path, queries):
    corpus, index = opened(written(tmp_path / "corpus", range(60)), [f"v{number}" for number in range(60)])
    found = Searcher(corpus, conv_predictors(*KERNELS), SETTINGS, index=index).find(queries[4:5])
    assert found.entries[0, :2].tolist() == [3, 4]
    assert found.entry_scores[0, 0] == found.entry_scores[0, 1]


def test_a_part_of_the_corpus_is_searched_alone(tmp_path, queries):
    corpus, index = opened(written(tmp_path / "corpus", range(60)), [f"v{number}" for number in range(50, 20, -1)])
    assert_identical(corpus, index, queries)


@pytest.mark.parametrize("parts", [4, 20, 60])  # of a video: with 20 there are fewer videos than are kept
def test_the_best_of_each_video_are_found_where_entries_are_parts_of_videos(
    tmp_path, queries, many_queries, parts, monkeypatch
):
    monkeypatch.setattr(certified_index, "SCORED_AT_A_TIME", 1)
    monkeypatch.setattr(certified_index, "PROMISING", 1)
    corpus, index = opened(written(tmp_path / "corpus", range(60)))
    of = np.arange(60) // parts
    assert_identical(corpus, index, queries, of=of)
    allowed = np.arange(60) % 3 > 0
    assert_identical(corpus, index, queries, allowed, of)
    monkeypatch.setattr(certified_index, "A_PASS_OF_MANY", 2)  # as if the corpus were large
    assert_identical(corpus, index, many_queries, allowed, of)


@pytest.mark.parametrize("query_block", [1, 8])
def test_a_query_that_a_block_leaves_over_is_answered_as_the_others(tmp_path, many_queries, query_block, monkeypatch):
    monkeypatch.setattr(certified_index, "A_PASS_OF_MANY", 2)
    corpus, index = opened(written(tmp_path / "corpus", range(60)))
    settings = replace(SETTINGS, query_block=query_block)
    assert len(many_queries) % 8 == 1
    assert_identical(corpus, index, many_queries, settings=settings)
    assert_identical(corpus, index, many_queries[:3], settings=settings)
    found = [
        Searcher(corpus, conv_predictors(*KERNELS), each).find(many_queries).entry_scores
        for each in (settings, SETTINGS)
    ]
    assert torch.equal(*found)


def test_scores_of_some_are_those_of_all(tmp_path, queries):
    corpus, _ = opened(written(tmp_path / "corpus", range(60)))
    exact = Searcher(corpus, conv_predictors(*KERNELS), replace(SETTINGS, max_vcmr_video=60)).find(queries)
    some = np.array([40, 3, 17])
    scores = scores_of_entries(corpus, some, queries.for_videos[2:4])
    by_entry = dict(zip(exact.entries[2].tolist(), exact.entry_scores[2].tolist(), strict=True))
    assert scores[:, 0].tolist() == [by_entry[entry] for entry in some.tolist()]


# ---------------------------------------------------------------------------- files


def test_videos_that_are_added_and_removed_are_so_in_the_index(tmp_path, queries):
    folder, index_folder = written(tmp_path / "corpus", range(30)), tmp_path / "index"
    opened(folder)
    before = {path: path.stat().st_mtime_ns for path in index_folder.rglob("*.npy")}
    written(folder, range(30, 60))
    assert_identical(*opened(folder), queries)
    assert all(path.stat().st_mtime_ns == written_then for path, written_then in before.items())
    shutil.rmtree(folder / "part-00001")
    assert_identical(*opened(folder), queries)
    assert not (index_folder / "part-00001").exists()


def test_a_part_that_is_another_is_indexed_again(tmp_path, queries):
    folder = written(tmp_path / "corpus", range(20))
    opened(folder)
    shutil.rmtree(folder)
    written(folder, range(40, 60))
    assert_identical(*opened(folder), queries)


def test_a_folder_that_is_no_index_stays(tmp_path):
    folder = written(tmp_path / "corpus", range(10))
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="index: is no certified index"):
        opened(folder)
    assert (tmp_path / "index" / "notes.txt").read_text() == "mine"


def test_what_is_not_of_the_index_stays_in_its_folder(tmp_path, queries):
    folder, own = written(tmp_path / "corpus", range(10)), tmp_path / "index" / "mine"
    opened(folder)
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    (tmp_path / "index" / "part-99999").symlink_to(own)
    assert_identical(*opened(folder), queries)
    assert (own / "notes.txt").read_text() == "mine"


def test_who_opens_an_index_waits_for_another_process_that_builds_it(tmp_path, queries, capsys):
    folder = written(tmp_path / "corpus", range(10))
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(opened, folder)
        time.sleep(0.3)
        assert not waiting.done()
        assert not (tmp_path / "index").exists()
        os.close(handle)
        assert_identical(*waiting.result(), queries)
    assert "waiting for another process that opens or builds" in capsys.readouterr().err


@pytest.mark.parametrize("lost", [math.inf, -1.0])
def test_an_index_that_another_process_writes_anew_is_not_read_as_it_was(tmp_path, queries, lost, monkeypatch):
    monkeypatch.setattr(certified_files, "HELD_BYTES", 0)
    folder = written(tmp_path / "corpus", range(60))
    corpus, index = opened(folder)
    shutil.rmtree(tmp_path / "index")
    monkeypatch.setattr(certified_files, "LOST", lost)
    others = np.random.default_rng(0).standard_normal((50, 2, D))
    open_certified_index(tmp_path / "index", CorpusStore(folder), corpus, lambda: others)
    with pytest.raises(InputError, match=r"written the index anew since it was opened: start again"):
        index.find(corpus, queries.for_videos, 5)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "make room"), (errno.EROFS, "allow it"), (errno.ENOTDIR, "remove the folder index")],
)
def test_what_keeps_an_index_from_being_opened_is_said_with_what_to_do(tmp_path, monkeypatch, number, advice):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    folder = written(tmp_path / "corpus", range(10))
    monkeypatch.setattr(certified_files, "write_sealed", fail)
    with pytest.raises(InputError, match=rf"index: .*{os.strerror(number)}.*{advice}"):
        opened(folder)


@pytest.mark.parametrize(
    "name", ["bases.npy", "part-00000/level-1.npy", "part-00000/level-2.npy", DESCRIPTION, f"part-00000/{DESCRIPTION}"]
)
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path, name, cut):
    folder = written(tmp_path / "corpus", range(10))
    opened(folder)
    path = tmp_path / "index" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data[:-3] if cut else data)
    with pytest.raises(InputError, match=r"is damaged: remove the folder index, and it is built again"):
        opened(folder)


@pytest.mark.parametrize(
    ("of", "name", "wrong"),
    [
        ("", "bases", None),
        *[("", "row_bytes", wrong) for wrong in (None, "x", 64, [], ["64", "128"], [64], [[64], [128]], [-3, -3])],
        *[("part-00000", "sha256", wrong) for wrong in (None, "x", [], {})],
        *[("part-00000", "scales", wrong) for wrong in (None, "x", [], [[]], [[{"steps": "x"}]], [[1], [2]])],
    ],
)
def test_a_description_that_says_something_else_is_refused_with_what_to_do(tmp_path, of, name, wrong):
    folder = written(tmp_path / "corpus", range(10))
    opened(folder)
    path = tmp_path / "index" / of / DESCRIPTION
    said = {key: value for key, value in read_sealed(path, "").items() if key != name}
    write_sealed(path, said if wrong is None else {**said, name: wrong})
    with pytest.raises(InputError, match=r"is damaged: remove the folder index, and it is built again"):
        opened(folder)
