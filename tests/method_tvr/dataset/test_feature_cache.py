"""Caches of packed features hold what the file holds, are shared, and never outlive or outlie it."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import threading
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import orjson
import pytest

from method_tvr.dataset import feature_cache
from method_tvr.dataset.feature_cache import NoRoomError, cache_root, packed_rows
from method_tvr.dataset.feature_rows import FeatureRows
from method_tvr.dataset.feature_store import Preparation
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.storage.array_file import ArrayFile

CLIPS = Preparation(max_rows=10, average=True, normalize=True)
TOKENS = Preparation(max_rows=4, average=False, normalize=False)
WIDTH = 5
N_ROWS = (3, 25, 1, 10, 11, 128)  # of the keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with new_feature_file(tmp_path / "video.h5") as features:
        for number, n_rows in enumerate(N_ROWS):
            features.put(f"v{number}", rng.normal(size=(n_rows, WIDTH)).astype(np.float32))
            features.put(f"v{number}-mask", np.ones(n_rows, dtype=np.float32))
    return tmp_path / "video.h5"


def pack(path: Path, preparation: Preparation = CLIPS, dtype: str = "float32", cache_dir=None) -> FeatureRows:
    return packed_rows(FeatureFile(path), WIDTH, preparation, dtype, cache_dir)


def folders(root: Path) -> list[Path]:
    """Caches, and whatever builders left behind."""
    return sorted(entry for entry in root.iterdir() if entry.is_dir())


def check(packed: FeatureRows, path: Path, preparation: Preparation = CLIPS) -> None:
    file = FeatureFile(path)
    keys = file.keys()
    assert sorted(packed.numbers) == [key for key in keys if not key.endswith("-mask")]
    for key in packed.numbers:
        expected = preparation(file.read(key)).astype(packed.rows.dtype)
        assert np.array_equal(packed.of(key), expected)
        assert packed.counts[packed.numbers[key]] == file.shape(key)[0]


@pytest.mark.parametrize("block_bytes", [feature_cache.BLOCK_BYTES, 20, 500])
@pytest.mark.parametrize("preparation", [CLIPS, TOKENS])
def test_rows_are_bit_for_bit_what_the_file_gives(path, preparation, block_bytes, monkeypatch):
    monkeypatch.setattr(feature_cache, "BLOCK_BYTES", block_bytes)
    check(pack(path, preparation), path, preparation)


def test_a_cache_is_made_once_and_read_from_then_on(path, capsys, monkeypatch):
    pack(path)
    assert "packing its features into" in capsys.readouterr().err
    monkeypatch.setattr(feature_cache, "_fill", None)
    packed = pack(path)
    check(packed, path)
    assert isinstance(packed.rows, ArrayFile)
    assert capsys.readouterr().err == ""


def test_a_cache_that_is_cut_short_while_it_is_open_is_said_and_the_process_lives(path):
    packed = pack(path)
    (rows,) = cache_root(path).glob("*/rows.npy")
    os.truncate(rows, 130)
    with pytest.raises(
        InputError, match=r"rows\.npy: has been cut short .*: run again, and its features are packed anew"
    ):
        packed.padded(packed.starts, packed.lengths, 10)
    check(pack(path), path)


def test_caches_prepared_in_other_ways_live_beside_each_other(path):
    check(pack(path, CLIPS), path, CLIPS)
    check(pack(path, TOKENS), path, TOKENS)
    assert len(folders(cache_root(path))) == 2
    check(pack(path, CLIPS), path, CLIPS)


def test_halved_rows_differ_by_their_rounding_only(path):
    whole, half = pack(path), pack(path, dtype="float16")
    assert half.rows.dtype == np.float16
    np.testing.assert_allclose(half.rows[:].astype(np.float32), whole.rows[:], rtol=2**-11, atol=2**-25)


def test_values_beyond_float16_are_named(path):
    with h5py.File(path, "r+") as features:
        features["v1"][0, 0] = 1e6
    with pytest.raises(InputError, match=r"video\.h5, key v1: .*--cache_dtype float32"):
        pack(path, Preparation(10, True, False), "float16")
    assert folders(cache_root(path)) == []
    pack(path, CLIPS, "float16")


def test_a_changed_file_is_packed_again_and_its_old_caches_go(path, capsys):
    pack(path)
    pack(path, TOKENS)
    with h5py.File(path, "r+") as features:
        features["v0"][0, 0] += 1
    capsys.readouterr()
    check(pack(path), path)
    assert "the file has changed since" in capsys.readouterr().err
    assert len(folders(cache_root(path))) == 1


def cut(name: str):
    def spoil(folder: Path) -> None:
        os.truncate(folder / name, (folder / name).stat().st_size - 7)

    return spoil


def emptied(folder: Path) -> None:
    os.truncate(folder / "rows.npy", 0)


def another_letter(folder: Path) -> None:
    index = (folder / "index.json").read_bytes()
    (folder / "index.json").write_bytes(index.replace(b'"v1"', b'"v7"'))


def gone(folder: Path) -> None:
    (folder / "rows.npy").unlink()


@pytest.mark.parametrize("spoil", [cut("rows.npy"), cut("index.json"), emptied, another_letter, gone])
def test_a_damaged_cache_is_made_again(path, spoil, capsys):
    pack(path)
    (folder,) = folders(cache_root(path))
    spoil(folder)
    capsys.readouterr()
    check(pack(path), path)
    assert "the one there is damaged" in capsys.readouterr().err
    assert folders(cache_root(path)) == [folder]


def header(old: bytes, new: bytes):
    def spoil(folder: Path) -> None:
        rows = (folder / "rows.npy").read_bytes()
        assert len(old) == len(new)
        assert old in rows
        (folder / "rows.npy").write_bytes(rows.replace(old, new, 1))

    return spoil


def index(**changes: object):
    """An index that says something else, with the checksum that belongs to it."""

    def spoil(folder: Path) -> None:
        content = orjson.loads((folder / "index.json").read_bytes().partition(b"\n")[2])
        text = orjson.dumps({**content, **{key: change(content[key]) for key, change in changes.items()}})
        (folder / "index.json").write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    return spoil


def text(content: bytes):
    def spoil(folder: Path) -> None:
        (folder / "index.json").write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    return spoil


def piped(folder: Path) -> None:
    (folder / "rows.npy").unlink()
    os.mkfifo(folder / "rows.npy")


def piped_index(folder: Path) -> None:
    (folder / "index.json").unlink()
    os.mkfifo(folder / "index.json")


HOSTILE = {
    "rows of objects": header(b"'<f4'", b"'|O' "),
    "rows are a pipe": piped,
    "index is a pipe": piped_index,
    "start before the rows": index(starts=lambda starts: [-1, *starts[1:]]),
    "end past the rows": index(starts=lambda starts: [*starts[:-1], starts[-1] + 1]),
    "start far past the rows": index(starts=lambda starts: [*starts[:-1], 2**63 - 1]),
    "start past int64": index(starts=lambda starts: [*starts[:-1], 2**64 - 1]),
    "no rows": index(lengths=lambda lengths: [0, *lengths[1:]]),
    "negative length": index(lengths=lambda lengths: [-1, *lengths[1:]]),
    "more rows than are kept": index(lengths=lambda lengths: [11, *lengths[1:]], counts=lambda counts: [11] * 6),
    "more rows than there were": index(counts=lambda counts: [0, *counts[1:]]),
    "fractions": index(starts=lambda starts: [0.5, *starts[1:]]),
    "numbers as text": index(counts=lambda counts: [*map(str, counts)]),
    "booleans": index(starts=lambda starts: [False, *starts[1:]]),
    "one number for all": index(counts=lambda counts: 3),
    "a number too few": index(counts=lambda counts: counts[1:]),
    "a key too few": index(keys=lambda keys: keys[1:]),
    "a key twice": index(keys=lambda keys: [keys[0], keys[0], *keys[2:]]),
    "a key that is none": index(keys=lambda keys: [3, *keys[1:]]),
    "keys that are none": index(keys=lambda keys: "abcdef"),
    "negative rows": index(n_rows=lambda n_rows: -n_rows),
    "very many rows": index(n_rows=lambda n_rows: 2**62),
    "rows as text": index(n_rows=str),
    "no JSON": text(b"{"),
    "no object": text(b"[]"),
    "no recipe": text(b'{"recipe": 1}'),
    "nothing but a recipe": text(b'{"recipe": {}}'),
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE)
def test_a_cache_that_lies_is_made_again(path, spoil):
    pack(path)
    (folder,) = folders(cache_root(path))
    spoil(folder)
    pack(path, TOKENS)  # one that is prepared in another way looks at it too
    check(pack(path), path)
    assert folder in folders(cache_root(path))


def test_the_lock_is_not_made_through_a_link(path, tmp_path, capsys):
    cache_root(path).mkdir()
    (cache_root(path) / ".lock").symlink_to(tmp_path / "victim")
    check(pack(path), path)
    assert "into this process's memory" in capsys.readouterr().err
    assert not (tmp_path / "victim").exists()


def test_arrays_that_the_file_cannot_hold_together_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as features:
        made = features.create_dataset("v", (10, 1 << 17), "f4")  # nothing of it is stored
        for number in range(200):
            features[f"v{number}"] = made
    with pytest.raises(InputError, match="claim far more than the file can hold"):
        packed_rows(FeatureFile(tmp_path / "a.h5"), 1 << 17, CLIPS, "float32")


def test_what_killed_runs_left_is_removed(path):
    (cache_root(path) / ".part-killed").mkdir(parents=True)
    pack(path)
    assert not (cache_root(path) / ".part-killed").exists()


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
def test_without_a_place_for_caches_rows_are_packed_in_memory(path, error, capsys, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(error, os.strerror(error))

    place = "os.pwrite" if error == errno.ENOSPC else "pathlib.Path.mkdir"
    monkeypatch.setattr(place, refuse)
    check(pack(path), path)
    said = capsys.readouterr().err
    assert os.strerror(error) in said
    assert "--feature_cache_dir" in said
    assert not cache_root(path).exists() or folders(cache_root(path)) == []


def test_a_full_disk_is_noticed_before_anything_is_packed(path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 3}))
    check(pack(path), path)
    assert "are free" in capsys.readouterr().err
    assert folders(cache_root(path)) == []


def test_rows_are_packed_in_memory_only_where_they_leave_some_of_it(path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 3}))
    takes = sum(min(n_rows, CLIPS.max_rows) for n_rows in N_ROWS) * WIDTH * 4
    monkeypatch.setattr(feature_cache, "available_memory", lambda: 2 * takes)
    check(pack(path), path)
    monkeypatch.setattr(feature_cache, "available_memory", lambda: 2 * takes - 1)
    with pytest.raises(
        NoRoomError, match=r"would fill the memory \(.* GiB are free\): give --feature_cache_dir a folder"
    ):
        pack(path)


@pytest.mark.parametrize(("dtype", "said"), [("float32", "--cache_dtype float16"), ("float16", "GiB of disk\n")])
def test_a_large_cache_says_what_it_takes_and_what_would_take_less(path, dtype, said, capsys, monkeypatch):
    pack(path, dtype=dtype, cache_dir=path.parent / "small")
    assert "GiB" not in capsys.readouterr().err
    monkeypatch.setattr(feature_cache, "LARGE_BYTES", 1)
    pack(path, dtype=dtype)
    assert said in capsys.readouterr().err


def test_a_large_cache_says_what_lies_beside_it(path, capsys, monkeypatch):
    monkeypatch.setattr(feature_cache, "LARGE_BYTES", 1)
    pack(path)
    assert "lie there" not in capsys.readouterr().err
    pack(path, dtype="float16")
    assert f"{cache_root(path)}: 0.0 GiB of other options or files lie there" in capsys.readouterr().err


def test_caches_can_lie_elsewhere(path, tmp_path):
    elsewhere = tmp_path / "caches"
    check(pack(path, cache_dir=elsewhere), path)
    assert not cache_root(path).exists()
    other = tmp_path / "other" / "video.h5"
    other.parent.mkdir()
    with new_feature_file(other) as features:
        features.put("w", np.ones((2, WIDTH), dtype=np.float32))
    check(pack(other, cache_dir=elsewhere), other)
    check(pack(path, cache_dir=elsewhere), path)
    assert len(folders(elsewhere)) == 2


def test_unusable_keys_are_left_out(path):
    with h5py.File(path, "r+") as features:
        features["v0"][1, 1] = np.nan
        features["wide"] = np.ones((2, WIDTH + 1), dtype=np.float32)
        features["whole"] = np.ones((2, WIDTH), dtype=np.int64)
    assert sorted(pack(path).numbers) == ["v1", "v2", "v3", "v4", "v5"]


def test_a_file_that_changes_while_it_is_packed_is_refused(path, monkeypatch):
    fill = feature_cache._fill

    def fill_and_touch(*args: object) -> np.ndarray:
        os.utime(path, (1, 1))
        return fill(*args)

    monkeypatch.setattr(feature_cache, "_fill", fill_and_touch)
    with pytest.raises(InputError, match=r"video\.h5: changed while it was read"):
        pack(path)
    assert folders(cache_root(path)) == []


def _pack_when_all_are_ready(path: Path, barrier) -> None:
    barrier.wait()
    check(pack(path), path)


@pytest.mark.parametrize("locks", [True, False])
def test_runs_that_build_at_once_end_with_one_whole_cache(path, locks, monkeypatch):
    if not locks:

        def refuse(*args: object) -> None:
            raise OSError(errno.ENOLCK, "no locks here")

        monkeypatch.setattr("fcntl.flock", refuse)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    runs = [context.Process(target=_pack_when_all_are_ready, args=(path, barrier)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    (folder,) = folders(cache_root(path))
    assert sorted(entry.name for entry in folder.iterdir()) == ["index.json", "rows.npy"]


def test_the_run_that_comes_second_takes_what_the_first_made(path, monkeypatch, capsys):
    fill, started, go_on, calls = feature_cache._fill, threading.Event(), threading.Event(), []

    def slow_fill(*args: object) -> np.ndarray:
        calls.append(args)
        started.set()
        assert go_on.wait(30)
        return fill(*args)

    monkeypatch.setattr(feature_cache, "_fill", slow_fill)
    first, second = (threading.Thread(target=pack, args=(path,)) for _ in range(2))
    first.start()
    assert started.wait(30)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    first.join(30)
    second.join(30)
    assert len(calls) == 1
    assert "waiting for another run" in capsys.readouterr().err


def test_packing_holds_a_few_blocks_only(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "BLOCK_BYTES", 1 << 16)
    n_keys, shape = 400, (16, 256)  # 6.3 MiB
    with new_feature_file(tmp_path / "big.h5") as features:
        for number in range(n_keys):
            features.put(str(number), np.full(shape, number, dtype=np.float32))
    tracemalloc.start()
    try:
        packed = packed_rows(FeatureFile(tmp_path / "big.h5"), 256, CLIPS, "float32")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert packed.rows.shape == (n_keys * 10, 256)
    assert peak < n_keys * 16 * 256 * 4 / 3


def replaced_unseen(path: Path) -> None:
    """Another file of the same size and time in the place of a feature file."""
    times, size = path.stat().st_mtime_ns, path.stat().st_size
    content = bytearray(path.read_bytes())
    with h5py.File(path, "r") as features:
        at = features["v1"].id.get_offset()
    content[at : at + 4] = np.float32(0.25).tobytes()
    other = path.with_name("other.h5")
    other.write_bytes(content)
    os.utime(other, ns=(times, times))
    os.replace(other, path)
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (times, size)


def without_digest(folder: Path) -> None:
    """The cache as earlier versions left it."""
    _, _, text = (folder / "index.json").read_bytes().partition(b"\n")
    content = orjson.loads(text)
    del content["sha256"]
    text = orjson.dumps(content)
    (folder / "index.json").write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_file_of_the_same_size_and_time_is_packed_again(path, capsys, earlier):
    pack(path)
    if earlier:
        without_digest(*folders(cache_root(path)))
    replaced_unseen(path)
    capsys.readouterr()
    check(pack(path), path)
    assert "the file may have changed since" in capsys.readouterr().err
    check(pack(path), path)
    assert capsys.readouterr().err == ""


def test_a_copy_of_a_file_and_its_cache_is_read_as_before_and_compared_once(path, tmp_path, capsys, monkeypatch):
    pack(path)
    copied = tmp_path / "copied"
    copied.mkdir()
    shutil.copytree(cache_root(path), cache_root(copied / path.name))
    (index,) = cache_root(copied / path.name).glob("*/index.json")
    shutil.copy2(path, copied)
    os.utime(index, ns=(0, 0))  # as of a cache that was copied with its time, before the file
    capsys.readouterr()
    check(pack(copied / path.name), path)
    monkeypatch.setattr(feature_cache, "file_digest", None)
    feature_cache._digest_of.cache_clear()
    check(pack(copied / path.name), path)
    assert capsys.readouterr().err == ""


def test_a_cache_of_an_earlier_version_is_read(path, capsys):
    pack(path)
    without_digest(*folders(cache_root(path)))
    capsys.readouterr()
    check(pack(path), path)
    assert capsys.readouterr().err == ""
