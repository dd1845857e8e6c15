"""Folders of a faiss index that were damaged or tampered with, and what opening and asking them does.

Digests that are right around other files are not tried but for the numbers of entries: faiss does not defend itself,
which is why others' folders are refused.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import torch

from method_tvr.search.candidates import CandidateSettings
from method_tvr.search.index.faiss_index import DESCRIPTION, FaissRecipe, open_faiss_index
from method_tvr.search.stored_corpus import StoredCorpus
from tests.fuzz.mutations import hostile_json, mutate_bytes
from tests.support.search.encoded_corpora import MODALITIES, D, stored
from tests.support.search.encoded_corpora import write as write_corpus
from utils.basic_utils import read_json
from utils.storage.whole_folder import file_digest, write_sealed

KINDS = ("flat", "ivf", "ivfsq")
TAMPERED = "tampered"  # beside an index whose digests are right, but not its entries
FILES = ("clips-0.faiss", "clips-1.faiss")
QUERIES = torch.nn.functional.normalize(torch.randn(3, len(MODALITIES), D, generator=torch.Generator().manual_seed(1)))


@cache
def _corpus() -> tuple[tempfile.TemporaryDirectory[str], StoredCorpus]:
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    return folder, stored(write_corpus(Path(folder.name) / "corpus", range(8)), range(8))


def _best(folder: Path, kind: str) -> list[list[int]]:
    """Entries that an index in a folder finds; it is built where there is none."""
    corpus, settings = _corpus()[1], CandidateSettings(n_clips=20, n_entries=4)
    index = open_faiss_index(folder / "index", FaissRecipe(kind, "seal"), corpus, len(MODALITIES), settings)
    return index.find(corpus, QUERIES, 3).entries.tolist()


@cache
def _good(kind: str) -> tuple[tempfile.TemporaryDirectory[str], list[list[int]]]:
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    return folder, _best(Path(folder.name), kind)


def write(rng: Random, folder: Path) -> None:
    """An index in `folder`, of the kind that a file beside it names."""
    kind = rng.choice(KINDS)
    shutil.copytree(_good(kind)[0].name, folder, dirs_exist_ok=True)
    (folder / "kind").write_text(kind)
    path = folder / "index" / rng.choice((*FILES, DESCRIPTION))
    spoil = rng.choice((_hit, _hit, _swap, _replace, _lie, _other_entries, lambda rng, path: None))
    spoil(rng, path)


def _hit(rng: Random, path: Path) -> None:
    path.write_bytes(mutate_bytes(rng, path.read_bytes()))


def _swap(rng: Random, path: Path) -> None:
    """One file in the place of another."""
    path.write_bytes(path.with_name(rng.choice((*FILES, DESCRIPTION))).read_bytes())


def _replace(rng: Random, path: Path) -> None:
    """A link, a pipe, a folder or nothing in the place of a file."""
    path.unlink()
    kind = rng.randrange(4)
    if kind == 0:
        path.symlink_to(rng.choice((path.name, "/dev/zero", "..", "nothing", *FILES)))
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.mkdir()


def _lie(rng: Random, path: Path) -> None:
    """A description that says something else, under a seal that is right or not."""
    description = path.with_name(DESCRIPTION)
    content = read_json(description)["content"]
    if rng.random() < 0.5:
        description.write_bytes(hostile_json(rng, {"content": content, "sha256": "0" * 64}))
    else:
        name = rng.choice(sorted(content))
        write_sealed(description, {**content, name: rng.choice((None, 3, [], {}, {FILES[0]: 1}, "flat"))})


def _other_entries(rng: Random, path: Path) -> None:
    """Other numbers of entries in a flat index, under a digest that is right."""
    description, path = path.with_name(DESCRIPTION), path.with_name(FILES[0])
    said = read_json(description)["content"]
    if said["kind"] != "flat":
        return
    n, data = rng.randrange(1, 40), bytearray(path.read_bytes())
    data[-8 * n :] = b"".join(rng.choice((-2, 8, 2**62, -(2**63))).to_bytes(8, "little", signed=True) for _ in range(n))
    path.write_bytes(data)
    said["files"][FILES[0]]["sha256"] = file_digest(path)
    write_sealed(description, said)
    (path.parent.parent / TAMPERED).touch()


def read(folder: Path) -> None:
    """Ask an index: what it finds is what it found before it was damaged, or there at least, under right digests."""
    kind = (folder / "kind").read_text()
    found = np.array(_best(folder, kind))
    assert ((found >= 0) & (found < 8)).all()
    assert (folder / TAMPERED).exists() or np.array_equal(found, _good(kind)[1])
