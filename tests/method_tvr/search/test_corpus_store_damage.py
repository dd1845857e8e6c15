"""A corpus that was made to do harm, with digests that are right, is refused like a damaged one."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from method_tvr.search.corpus_store import DESCRIPTION, INDEX, NORMS, ROWS, CorpusStore
from method_tvr.search.corpus_writer import adding_to
from tests.support.search.encoded_corpora import RECIPE, a_video, encoded, read_all, rewrite, write
from utils.basic_utils import InputError
from utils.storage.whole_folder import write_sealed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All videos in two parts."""
    return write(tmp_path / "corpus", range(8), rows_a_part=40)


@pytest.fixture(params=["float32", "float16"])
def of_each_type(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same in the type that norms are compared in."""
    rows_a_part = {"float32": 40, "float16": 20}[request.param]
    return write(tmp_path / "corpus", range(8), replace(RECIPE, dtype=request.param), rows_a_part)


def restate(part: Path) -> None:
    """Have a part's sizes and digests fit its files."""
    said = {}
    for name in (ROWS, NORMS):
        content = (part / name).read_bytes()
        said[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite(part / INDEX, {"files": said})


def set_norms(part: Path, value: float) -> None:
    norms = np.lib.format.open_memmap(part / NORMS, "r+")
    norms[1, 2] = value
    norms.flush()


def set_rows(part: Path, value: float) -> None:
    rows = np.lib.format.open_memmap(part / ROWS, "r+")
    rows[3] = value
    rows.flush()


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 1e-12, 1e30])
def test_norms_that_are_not_those_of_the_rows_are_refused(of_each_type, value):
    set_norms(of_each_type / "part-00001", value)
    restate(of_each_type / "part-00001")
    with pytest.raises(InputError, match=r"part-00001/norms\.npy: does not hold the lengths of the rows"):
        read_all(of_each_type)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_no_numbers_are_refused_whatever_their_norms(of_each_type, value):
    set_rows(of_each_type / "part-00000", value)
    norms = np.lib.format.open_memmap(of_each_type / "part-00000" / NORMS, "r+")
    norms[:, 3] = value
    norms.flush()
    restate(of_each_type / "part-00000")
    with pytest.raises(InputError, match=r"part-00000/norms\.npy: does not hold the lengths of the rows"):
        read_all(of_each_type)


def test_files_that_begin_otherwise_are_no_arrays(folder):
    path = folder / "part-00000" / ROWS
    content = path.read_bytes()
    path.write_bytes(content.replace(b"False", b"True ", 1))
    restate(path.parent)
    with pytest.raises(InputError, match=r"part-00000/rows\.npy: is no array of shape"):
        read_all(folder)


def in_another_recipe(folder: Path, change: dict[str, object]) -> None:
    """Have the corpus and its parts say that they were made with something else."""
    content = orjson.loads((folder / DESCRIPTION).read_bytes())["content"] | change
    write_sealed(folder / DESCRIPTION, content)
    del content["format_version"]
    for index in folder.glob(f"part-*/{INDEX}"):
        rewrite(index, {"corpus": hashlib.sha256(orjson.dumps(content)).hexdigest()})


@pytest.mark.parametrize("number", [1 << 62, (1 << 64) - 1])  # four times the first is 0 in 64 bits
def test_more_rows_than_the_file_has_are_refused_before_they_are_counted(folder, number):
    in_another_recipe(folder, {"max_ctx_l": number})
    index = folder / "part-00000" / INDEX
    n_rows = orjson.loads(index.read_bytes())["content"]["n_rows"]
    rewrite(index, {"n_rows": [number] * 4 + n_rows[4:]} if len(n_rows) > 4 else {"n_rows": [number] * len(n_rows)})
    with pytest.raises(InputError, match=r"part-00000/rows\.npy: has fewer rows than index\.json says"):
        CorpusStore(folder)


@pytest.mark.parametrize("modalities", [[3], [["video"]], ["video", None]])
def test_modalities_without_names_are_refused(folder, modalities):
    in_another_recipe(folder, {"modalities": modalities})
    with pytest.raises(InputError, match="describes an impossible corpus"):
        CorpusStore(folder)


@pytest.mark.parametrize("duration", [0, -1.5])
def test_durations_that_no_video_has_are_refused(folder, duration):
    index = folder / "part-00000" / INDEX
    durations = orjson.loads(index.read_bytes())["content"]["durations"]
    rewrite(index, {"durations": [duration, *durations[1:]]})
    with pytest.raises(InputError, match=r"part-00000/index\.json: does not describe a part"):
        CorpusStore(folder)


def test_a_video_twice_in_one_part_is_refused(folder):
    index = folder / "part-00000" / INDEX
    names = orjson.loads(index.read_bytes())["content"]["names"]
    rewrite(index, {"names": [names[1], *names[1:]]})
    with pytest.raises(InputError, match=f"part-00000: has video {names[1]} twice: remove the folder part-00000"):
        CorpusStore(folder)


def test_a_part_has_a_number_in_plain_digits(folder):
    (folder / "part-00001").rename(folder / "part-٣")
    assert 0 < len(CorpusStore(folder)) < 8


# ---------------------------------------------------------------------------- what is written to


def add(folder: Path) -> None:
    recipe = CorpusStore(folder).recipe
    with adding_to(folder, recipe) as writer:
        writer.add(replace(a_video(0), vid_name="another"), 3, encoded(0))


def test_a_lock_that_is_a_link_is_refused_and_not_followed(folder):
    (folder / ".lock").unlink()
    (folder / ".lock").symlink_to(folder.with_name("elsewhere"))
    with pytest.raises(InputError, match="no corpus can be written there"):
        add(folder)
    assert not folder.with_name("elsewhere").exists()


def test_what_only_looks_like_a_part_half_written_is_left_alone(folder):
    os.mkfifo(folder / ".part-x")
    add(folder)
    assert "another" in CorpusStore(folder).where
    assert os.path.lexists(folder / ".part-x")
