"""Files of a faiss index that were changed, or that others may have changed, are refused before faiss sees them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from method_tvr.search.candidates import CandidateSettings
from method_tvr.search.index.faiss_index import DESCRIPTION, FaissIndex, FaissRecipe, open_faiss_index
from tests.support.search.encoded_corpora import stored, write
from utils.basic_utils import InputError, read_json, write_json
from utils.storage.whole_folder import file_digest, write_sealed

pytest.importorskip("faiss", reason="faiss is not installed (index_requirements.txt)")
REMEDY = "remove the folder index, and it is built again"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory):
    return stored(write(tmp_path_factory.mktemp("faiss") / "corpus", range(8)), range(8))


@pytest.fixture(params=["flat", "ivf"])
def opened(request: pytest.FixtureRequest, corpus, tmp_path: Path) -> Callable[..., FaissIndex]:
    """Opens the index in `tmp_path`, which is there already."""

    def open_it(trusted: bool = False) -> FaissIndex:
        recipe = FaissRecipe(request.param, "seal")
        return open_faiss_index(tmp_path / "index", recipe, corpus, 2, CandidateSettings(), trusted)

    open_it()
    return open_it


def overwrite(path: Path, at: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)


FIRST, SECOND = "clips-0.faiss", "clips-1.faiss"


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        (FIRST, lambda path: os.truncate(path, 100)),
        (FIRST, lambda path: os.truncate(path, 0)),
        (FIRST, lambda path: overwrite(path, 20, b"\xff")),
        (SECOND, lambda path: overwrite(path, path.stat().st_size - 9, b"\x11")),
        (SECOND, lambda path: shutil.copy(path.with_name(FIRST), path)),
        (SECOND, lambda path: path.write_bytes(path.read_bytes() + b"\0")),
        (SECOND, Path.unlink),
        (SECOND, lambda path: (path.unlink(), os.mkfifo(path))),
        (DESCRIPTION, lambda path: os.truncate(path, 40)),
        (DESCRIPTION, lambda path: overwrite(path, 40, b"x")),
        (DESCRIPTION, lambda path: write_sealed(path, {**read_json(path)["content"], "files": 3})),
    ],
)
def test_a_changed_file_is_refused_with_what_to_do_and_doing_it_helps(opened, tmp_path, name, spoil):
    spoil(tmp_path / "index" / name)
    named = FIRST if name == DESCRIPTION and "content" in (tmp_path / "index" / name).read_text()[:12] else name
    with pytest.raises(InputError, match=rf"index/({name}|{named}): .*{REMEDY}"):
        opened()
    shutil.rmtree(tmp_path / "index")
    opened()


def test_an_index_of_an_earlier_version_is_built_again(opened, tmp_path):
    write_json(
        {"format_version": 2, "kind": "flat", "corpus": "seal", "pq_bytes": 48}, tmp_path / "index" / DESCRIPTION
    )
    opened()
    assert set(read_json(tmp_path / "index" / DESCRIPTION)) == {"content", "sha256"}


def test_impossible_entries_under_digests_that_are_right_name_the_folder(corpus, opened, tmp_path):
    path = tmp_path / "index" / FIRST
    if read_json(tmp_path / "index" / DESCRIPTION)["content"]["kind"] != "flat":
        pytest.skip("where entries lie is known for flat alone")
    overwrite(path, path.stat().st_size - 80, b"\x11" * 80)
    said = read_json(tmp_path / "index" / DESCRIPTION)["content"]
    said["files"][FIRST]["sha256"] = file_digest(path)
    write_sealed(tmp_path / "index" / DESCRIPTION, said)
    with pytest.raises(InputError, match=rf"index: the index is damaged: {REMEDY} \(it names entries"):
        opened().find(corpus, torch.nn.functional.normalize(torch.ones(1, 2, 4), dim=-1), 3)


@pytest.mark.parametrize("left", [0, 200])
def test_a_mapped_file_that_is_cut_short_is_refused_at_the_next_search(opened, tmp_path, left):
    index, query = opened(), np.ones((1, 4), dtype=np.float32) / 2
    index.nearest_clips(0, query, None)
    os.truncate(tmp_path / "index" / FIRST, left)
    if read_json(tmp_path / "index" / DESCRIPTION)["content"]["kind"] == "flat":  # is in memory
        index.nearest_clips(0, query, None)
        return
    with pytest.raises(InputError, match=rf"{FIRST}: was changed since it was opened: {REMEDY}"):
        index.nearest_clips(0, query, None)
    index.nearest_clips(1, query, None)


# ---------------------------------------------------------------------------- whose it is


def of_another_user(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(path, 12345, -1)


def linked(path: Path) -> None:
    """A link of the user's own to what belongs to another."""
    elsewhere = path.parent / f"theirs-{path.name}"
    path.rename(elsewhere)
    of_another_user(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("name", ["", FIRST, SECOND])
@pytest.mark.parametrize(
    "give", [lambda path: path.chmod(0o775), lambda path: path.chmod(0o757), of_another_user, linked]
)
def test_what_others_may_have_written_is_refused_unless_it_is_trusted(opened, tmp_path, monkeypatch, name, give):
    give(tmp_path / "index" / name)
    with open("/dev/null") as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        with pytest.raises(InputError, match=r"index: (belongs to another user|can be written to).*--trust_index"):
            opened()
    opened(trusted=True)


@pytest.mark.parametrize(("answer", "used"), [("y", True), ("", False)])
def test_at_a_terminal_the_user_is_asked(opened, tmp_path, monkeypatch, answer, used):
    (tmp_path / "index").chmod(0o777)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    if used:
        opened()
    else:
        with pytest.raises(InputError, match="--trust_index"):
            opened()


def test_what_is_built_is_the_users_own_where_a_group_may_write(corpus, tmp_path):
    before = os.umask(0o002)
    try:
        open_faiss_index(tmp_path / "index", FaissRecipe("flat", "seal"), corpus, 2, CandidateSettings())
    finally:
        os.umask(before)
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o755
