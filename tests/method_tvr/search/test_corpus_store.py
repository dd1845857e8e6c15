"""A corpus on disk is what was put into it, whole, searched as if it were in memory; anything else is refused."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from method_tvr.dataset.annotations import Video
from method_tvr.model_components import conv_predictors
from method_tvr.search import corpus_store, corpus_writer
from method_tvr.search.corpus_store import INDEX, NORMS, ROWS, CorpusStore
from method_tvr.search.corpus_writer import adding_to
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import NO_ENTRY, EncodedQueries, SearchSettings
from method_tvr.search.retrieval import Searcher
from tests.support.search.encoded_corpora import (
    MODALITIES,
    N_CLIPS,
    RECIPE,
    ROW_BYTES,
    D,
    a_video,
    encoded,
    read_all,
    rewrite,
    stored,
    write,
)
from utils.basic_utils import PROJECT_ROOT, InputError
from utils.storage.whole_folder import write_sealed


def in_memory(numbers: Sequence[int]) -> EncodedCorpus:
    return EncodedCorpus([encoded(number) for number in numbers], [N_CLIPS[number] for number in numbers])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All videos in three parts."""
    return write(tmp_path / "corpus", range(8))


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("part-*"))


ORDERS = [list(range(8)), [7, 0, 3, 1, 6], [2], [4, 1]]


@pytest.mark.parametrize("numbers", ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_back_as_float32_under_the_numbers_that_were_asked_for(tmp_path, dtype, numbers):
    corpus = stored(write(tmp_path / "corpus", range(8), replace(RECIPE, dtype=dtype)), numbers)
    assert len(corpus) == len(numbers)
    assert corpus.n_clips.tolist() == [N_CLIPS[number] for number in numbers]
    for entry, number in enumerate(numbers):
        rows = corpus.rows_of(entry)
        assert rows.dtype == torch.float32
        assert torch.equal(rows, encoded(number).to(getattr(torch, dtype)).float())


@pytest.mark.parametrize("rows_a_part", [1, 20, 10_000])
@pytest.mark.parametrize("max_rows", [1, 9, 15, 1000])
def test_blocks_are_runs_of_the_videos_asked_for_with_their_norms(tmp_path, rows_a_part, max_rows):
    folder = write(tmp_path / "corpus", range(8), rows_a_part=rows_a_part)
    for numbers in ORDERS:
        assert_runs_of(folder, numbers, max_rows)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_blocks_come_in_the_same_memory(tmp_path, dtype):
    """Memory of its own for each would not be given back between what stays of them."""
    folder = write(tmp_path / "corpus", range(8), replace(RECIPE, dtype=dtype), rows_a_part=1000)
    blocks = [(len(rows), rows.data_ptr()) for rows, _, _ in stored(folder, range(8)).blocks(12)]
    assert [n for n, _ in blocks] == [8, 10, 7, 12, 12, 12]
    assert len({place for _, place in blocks[-3:]}) == 1


def assert_runs_of(folder: Path, numbers: Sequence[int], max_rows: int) -> None:
    corpus, seen = stored(folder, numbers), []
    for rows, norms, runs in corpus.blocks(max_rows):
        assert sum(len(run.entries) for run in runs) == 1 or len(rows) <= max_rows
        torch.testing.assert_close(norms, rows.norm(dim=-1).t())
        for run in runs:
            each = rows[run.rows].unflatten(0, (len(run.entries), -1))
            for entry, of_entry in zip(run.entries.tolist(), each, strict=True):
                assert corpus.n_clips[entry] == run.n_clips
                assert torch.equal(of_entry, encoded(numbers[entry]))
        seen += [entry for run in runs for entry in run.entries.tolist()]
    assert sorted(seen) == list(range(len(numbers)))


def test_clips_are_the_same_whether_they_were_expected_or_not_and_exactly_they_are_read_ahead(tmp_path, monkeypatch):
    numbers = list(range(8))
    plain, expected = (stored(write(tmp_path / name, numbers), numbers) for name in ("plain", "expected"))
    asked: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fadvise", lambda handle, start, n, advice: asked.append(n))
        expected.expect(np.array([4, 1]))
    assert asked == [N_CLIPS[4] * ROW_BYTES, N_CLIPS[1] * ROW_BYTES]
    for entry in numbers:
        expected.expect(np.array([entry]))  # the first and the last of each file among them
        for found, wanted in zip(expected.clips_of(np.array([entry])), plain.clips_of(np.array([entry])), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_in_a_part_videos_lie_in_order_of_length(tmp_path):
    (part,) = CorpusStore(write(tmp_path / "corpus", range(8), rows_a_part=1000)).parts
    assert part.n_clips.tolist() == sorted(N_CLIPS)
    lengths = [len(run.entries) for _, _, runs in stored(tmp_path / "corpus", range(8)).blocks(1000) for run in runs]
    assert lengths == [1, 3, 1, 1, 2]


@pytest.mark.parametrize("numbers", [list(range(8)), [6, 2, 7, 1]])
@pytest.mark.parametrize("search", [SearchSettings(), SearchSettings(query_block=2, queries_per_pass=4, clip_block=7)])
def test_a_search_finds_what_it_finds_in_memory(folder, numbers, search, monkeypatch):
    monkeypatch.setattr(corpus_store, "MAX_OPEN", 1)  # parts come and go meanwhile
    generator = torch.Generator().manual_seed(0)
    queries = EncodedQueries(*torch.randn(2, 7, len(MODALITIES), D, generator=generator))
    kernels = torch.randn(2, 5, generator=generator)
    answers = [
        list(Searcher(corpus, conv_predictors(*kernels), replace(search, max_vcmr_video=3)).search(queries))
        for corpus in (stored(folder, numbers), in_memory(numbers))
    ]
    assert len(answers[0]) == -(-7 // search.query_block)
    for (moments, videos), (expected_moments, expected_videos) in zip(*answers, strict=True):
        assert np.array_equal(videos.entry, expected_videos.entry)
        np.testing.assert_allclose(videos.score, expected_videos.score, rtol=1e-5)
        assert (moments.entry != NO_ENTRY).any()
        for name in ("entry", "st", "ed"):
            assert np.array_equal(getattr(moments, name), getattr(expected_moments, name))
        np.testing.assert_allclose(moments.score, expected_moments.score, rtol=1e-5)


def test_adding_appends_parts_and_leaves_the_others_as_they_are(tmp_path):
    folder = write(tmp_path / "corpus", range(3))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write(folder, range(3, 8))
    assert {path: path.read_bytes() for path in before} == before
    assert len(parts(folder)) > len({path.parent for path in before} - {folder})
    assert all(torch.equal(stored(folder, range(8)).rows_of(number), encoded(number)) for number in range(8))


def test_an_option_may_be_written_as_a_whole_number_or_not(tmp_path):
    folder = write(tmp_path / "corpus", [0], replace(RECIPE, clip_length=2.0))
    write(folder, [1], replace(RECIPE, clip_length=2))
    assert len(CorpusStore(folder)) == 2


def test_a_video_is_not_added_twice(folder):
    for second in (3, 3):
        with pytest.raises(InputError, match="v3 is in the corpus already"):
            write(folder, [second])
    with pytest.raises(InputError, match="v0 is in the corpus already"):
        write(folder.parent / "other", [0, 0])


# ---------------------------------------------------------------------------- stopped while writing

KILLED = """
import os, signal, sys
from pathlib import Path
from method_tvr.search import corpus_writer
from tests.support.search import encoded_corpora

write_sealed, written = corpus_writer.write_sealed, []
def die_at_the_second(path, content):
    written.append(path)
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write_sealed(path, content)

corpus_writer.write_sealed = die_at_the_second
encoded_corpora.write(Path(sys.argv[1]), range(8))
"""


def test_a_kill_leaves_whole_parts_and_the_next_run_goes_on(tmp_path):
    folder = tmp_path / "corpus"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED, folder], env=environment, cwd=PROJECT_ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert parts(folder) == ["part-00000"]
    assert list(folder.glob(".part-*"))
    done = [int(name[1:]) for name in CorpusStore(folder).where]
    assert 0 < len(done) < 8
    write(folder, [number for number in range(8) if number not in done])
    assert not list(folder.glob(".part-*"))
    assert all(torch.equal(stored(folder, range(8)).rows_of(number), encoded(number)) for number in range(8))


def test_an_error_on_the_way_leaves_whole_parts_and_frees_the_folder(tmp_path):
    folder = tmp_path / "corpus"
    with pytest.raises(IndexError):
        write(folder, [0, 1, 2, 3, 99])
    assert 0 < len(CorpusStore(folder)) < 5
    write(folder, [number for number in range(8) if f"v{number}" not in CorpusStore(folder).where])
    assert len(CorpusStore(folder)) == 8


def test_a_full_disk_is_said_and_leaves_whole_parts(tmp_path, monkeypatch):
    folder = write(tmp_path / "corpus", range(3))
    before = parts(folder)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(corpus_writer, "_write_array", full)
    with pytest.raises(InputError, match=r"No space left on device\).*make room"):
        write(folder, range(3, 8))
    assert parts(folder) == before
    assert not list(folder.glob(".part-*"))
    assert len(CorpusStore(folder)) == 3


def test_two_runs_do_not_add_at_once(folder):
    with adding_to(folder, RECIPE), pytest.raises(InputError, match="another run is adding videos"):
        write(folder, [])
    write(folder, [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_encodings_that_are_no_numbers_in_the_type_they_are_kept_in_are_refused_by_name(tmp_path, value):
    rows = encoded(0)
    rows[1, 1, 1] = value
    remedy = "keep it in fp32" if value == 1e6 else "check the video's features"
    with (
        pytest.raises(InputError, match=rf"v0: its encodings .* float16: {remedy}"),
        adding_to(tmp_path / "corpus", replace(RECIPE, dtype="float16")) as writer,
    ):
        writer.add(a_video(0), 3, rows)


# ---------------------------------------------------------------------------- stale, foreign and damaged


@pytest.mark.parametrize(
    "change",
    [
        {"ctx_mode": "video_sub"},
        {"clip_length": 2.0},
        {"max_ctx_l": 100},
        {"trim_padding": True},
        {"no_norm_vfeat": False},
        {"no_norm_tfeat": True},
        {"dtype": "float16"},
    ],
)
def test_a_corpus_made_with_other_options_is_refused_by_their_name(folder, change):
    ((name, value),) = change.items()
    with pytest.raises(InputError, match=f"was encoded with {name} {getattr(RECIPE, name)}, but this run has {value}"):
        write(folder, [], replace(RECIPE, **change))


def test_a_corpus_of_another_model_is_refused(folder):
    with pytest.raises(
        InputError, match=r"encoded by another model \(digest aaaaaaaaaaaa…, this one's is bbbbbbbbbbbb…"
    ):
        write(folder, [], replace(RECIPE, model="b" * 64))


def test_videos_that_are_missing_or_of_another_length_are_named(folder):
    store = CorpusStore(folder)
    store.require([a_video(3), a_video(7)])
    with pytest.raises(InputError, match="lacks 2 videos that are to be searched: x, y"):
        store.require([a_video(3), Video("x", 1.5, 90), Video("y", 1.5, 91)])
    with pytest.raises(InputError, match=r"a video v3 of 1\.5 s, but the one asked for takes 9\.0 s"):
        store.require([replace(a_video(3), duration=9.0)])


def test_folders_that_hold_something_else_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"give a folder that encode\.sh wrote"):
        CorpusStore(tmp_path / "nothing")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(InputError, match=r"give a folder that encode\.sh wrote"):
        CorpusStore(tmp_path / "photos")
    with pytest.raises(InputError, match="is not empty and no encoded corpus"):
        write(tmp_path / "photos", range(8))
    with pytest.raises(InputError, match="no corpus can be written there"):
        write(tmp_path / "photos" / "cat.jpg" / "corpus", range(8))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 64
    path.write_bytes(content)


def cut(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        (ROWS, lambda path: flip(path, -1)),
        (ROWS, lambda path: flip(path, 20)),
        (ROWS, lambda path: cut(path, -1)),
        (ROWS, Path.unlink),
        (NORMS, lambda path: flip(path, -1)),
        (NORMS, lambda path: cut(path, 60)),
        (INDEX, lambda path: flip(path, 40)),
        (INDEX, lambda path: cut(path, 40)),
        (INDEX, lambda path: path.write_text("[]")),
        (INDEX, Path.unlink),
    ],
)
def test_a_damaged_part_is_refused_with_what_to_do_and_doing_it_helps(folder, name, spoil: Callable[[Path], object]):
    part = folder / "part-00001"
    spoil(part / name)
    with pytest.raises(InputError, match=rf"part-00001/{name}: .*(remove the folder part-00001|was it written whole)"):
        read_all(folder)
    for path in part.iterdir():
        path.unlink()
    part.rmdir()
    write(folder, [number for number in range(8) if f"v{number}" not in CorpusStore(folder).where])
    read_all(folder)


@pytest.mark.parametrize("at", [3, 30, 200])
def test_a_damaged_description_is_refused(folder, at):
    flip(folder / "corpus.json", at)
    with pytest.raises(InputError, match=r"corpus\.json: is (damaged|not valid JSON)"):
        CorpusStore(folder)


def test_another_format_is_refused(folder):
    write_sealed(folder / "corpus.json", {"format_version": 2, **asdict(RECIPE)})
    with pytest.raises(InputError, match="has format version 2, this code reads 1"):
        CorpusStore(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "object"},
        {"hidden_size": "4"},
        {"hidden_size": 0},
        {"modalities": []},
        {"x": 1},
        {"clip_length": None},
    ],
)
def test_a_description_of_nothing_is_refused(folder, change):
    write_sealed(folder / "corpus.json", {"format_version": 1, **asdict(RECIPE), **change})
    with pytest.raises(
        InputError, match=r"corpus\.json: (does not describe an encoded|describes an impossible) corpus"
    ):
        CorpusStore(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"names": None},
        {"names": []},
        {"names": ["v0", "v2"]},
        {"names": [["v0"], ["v2"], ["v1"]]},
        {"n_clips": [0, 11, 12]},
        {"n_clips": [3, 11, 13]},
        {"n_rows": [5, 12, 1 << 60]},
        {"n_rows": [5, 12, 12.0]},
        {"n_clips": [True, 11, 12]},
        {"durations": ["1", 2, 3]},
        {"files": {}},
        {"files": {ROWS: 3, NORMS: {}}},
    ],
)
def test_a_part_that_describes_nonsense_is_refused(folder, change):
    rewrite(folder / "part-00000" / INDEX, change)
    with pytest.raises(InputError, match=r"part-00000/index\.json: does not describe a part"):
        CorpusStore(folder)


def test_a_seal_around_what_cannot_be_sealed_is_refused(folder):
    deep = b"[" * 300 + b"]" * 300
    (folder / "part-00000" / INDEX).write_bytes(b'{"content": {"x": ' + deep + b'}, "sha256": "0"}')
    with pytest.raises(InputError, match=r"part-00000/index\.json: is damaged"):
        CorpusStore(folder)


def test_rows_of_another_shape_than_described_are_refused(folder):
    rewrite(folder / "part-00000" / INDEX, {"n_rows": [4, 12, 12]})
    with pytest.raises(InputError, match=r"rows\.npy: is no array of shape \(28, 2, 4\) in float32"):
        read_all(folder)


def test_a_part_of_another_corpus_is_refused(folder, tmp_path):
    other = write(tmp_path / "other", range(8), replace(RECIPE, model="b" * 64))
    (other / "part-00001").rename(folder / "part-00009")
    with pytest.raises(InputError, match="part-00009: is a part of another corpus"):
        CorpusStore(folder)


def test_a_video_in_two_parts_is_refused(folder, tmp_path):
    other = write(tmp_path / "other", [3])
    (other / "part-00000").rename(folder / "part-00009")
    with pytest.raises(InputError, match=r"part-00009: video v3 is in part-0000\d already"):
        CorpusStore(folder)
