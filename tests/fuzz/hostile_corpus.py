"""Encoded corpora on disk that were hit on the way or made to do harm, and what opening and searching them does."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
import pytest
import torch

from method_tvr.dataset.annotations import Video
from method_tvr.model_components import conv_predictors
from method_tvr.search.corpus_store import (
    DESCRIPTION,
    DTYPES,
    INDEX,
    MADE_BY,
    NORMS,
    OPTIONS,
    PART_PREFIX,
    ROWS,
    CorpusStore,
)
from method_tvr.search.corpus_writer import adding_to
from method_tvr.search.records import NO_ENTRY, EncodedQueries, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.search.stored_corpus import StoredCorpus
from tests.fuzz.bystanders import PRECIOUS, add_bystander, nothing_touched_beside
from tests.fuzz.harness import keep
from tests.fuzz.mutations import hostile_json, mutate_bytes
from tests.support.search.encoded_corpora import CPU, MODALITIES, RECIPE, D, a_video, encoded
from tests.support.search.encoded_corpora import write as write_corpus
from utils.basic_utils import InputError

HEADERS = (  # what an npy file may begin with instead
    b"{'descr': '|O', 'fortran_order': False, 'shape': (20, 2, 4), }",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (20, 2, 4), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2, 4), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 2, 4), }",
    b"{'descr': [('x', '<f4', (9999999, 999999))], 'fortran_order': False, 'shape': (20, 2, 4), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (20L, 2, 4), 3: 4}", b"{[]: 1}", b"{'descr'", b"  x\n y",
    b"'''", b"(" * 150, b"-" * 9000, b"{'descr': " + b"[" * 90 + b"]" * 90 + b"}", b"__import__('os')", b"\xff",
)  # fmt: skip
ODD_NUMBERS = (0, 1, 12, 13, 1 << 31, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1, 1.5, 1e300, True, "1", None)


@cache
def _good(dtype: str) -> tempfile.TemporaryDirectory[str]:
    """A corpus of two parts. Read once, so that what it needs is imported."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    write_corpus(Path(folder.name) / "corpus", range(8), replace(RECIPE, dtype=dtype), 40 if dtype == "float32" else 20)
    add_bystander(Path(folder.name))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as other:
        read(Path(shutil.copytree(folder.name, other, dirs_exist_ok=True)))
    return folder


# ---------------------------------------------------------------- writing


def write(rng: Random, folder: Path) -> None:
    """A corpus in `folder`, with a file beside it that is none of its business."""
    for dtype in DTYPES:
        _good(dtype)
    shutil.copytree(_good(rng.choice(DTYPES)).name, folder, dirs_exist_ok=True)
    corpus = folder / "corpus"
    kinds = (_hit, _lie, _lie, _swap_values, _other_rows, _other_rows, _swap_header, _swap_file, _more_parts)
    for kind in rng.choices(kinds, k=rng.choice((1, 1, 2, 3))):
        kind(rng, corpus)
    if rng.random() < 0.8:  # as whoever means harm would
        _restate_files(corpus)


def _some_file(rng: Random, corpus: Path, *names: str) -> Path | None:
    files = [path for path in sorted(corpus.rglob("*")) if path.name in names and path.is_file()]
    return rng.choice(files) if files else None


def _hit(rng: Random, corpus: Path) -> None:
    path = _some_file(rng, corpus, DESCRIPTION, INDEX, ROWS, NORMS)
    if path is not None:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))


def _lie(rng: Random, corpus: Path) -> None:
    """A description or an index that says something else, under a seal that is right."""
    path = _some_file(rng, corpus, *(DESCRIPTION, INDEX, INDEX, INDEX))
    content = None if path is None else _content(path)
    if path is None or content is None:
        return
    columns = [name for name in ("names", "durations", "n_clips", "n_rows") if isinstance(content.get(name), list)]
    if rng.random() < 0.5 or not columns or not all(content[name] for name in columns):
        _write_sealed(path, hostile_json(rng, content))
    else:
        for name in rng.choices(columns, k=rng.choice((1, 1, 2))):
            at = rng.randrange(len(content[name]))
            near = (content[name][at - 1], str(at)) if name == "names" else (rng.randrange(1, 30), 3.25)
            value = rng.choice((*near, *near, *near, *ODD_NUMBERS))
            content[name][at] = value
            if rng.random() < 0.2:
                content[name] = [value] * len(content[name])
        if rng.random() < 0.1:
            content |= {name: content[name] * 2 for name in columns}
        _write_sealed(path, orjson.dumps(content))
    if path.name == DESCRIPTION and rng.random() < 0.7:
        _restate_recipe(corpus)


def _swap_values(rng: Random, corpus: Path) -> None:
    """Rows or norms with other numbers in them."""
    path = _some_file(rng, corpus, ROWS, NORMS)
    if path is not None and len(data := bytearray(path.read_bytes())) > 200:
        size = rng.choice((2, 4))
        dtype = {2: np.float16, 4: np.float32}[size]
        value = np.array(rng.choice((0, np.nan, np.inf, -1, 1e-30, 6e4, 3e38)), np.float32).astype(dtype).tobytes()
        first = 128 + size * rng.randrange((len(data) - 128) // size)
        n = rng.choice((1, 1, 4, 10**6))
        data[first : first + n * size] = value * (len(data[first : first + n * size]) // size)
        path.write_bytes(data)


def _other_rows(rng: Random, corpus: Path) -> None:
    """Rows of other numbers, with norms that are theirs as far as they have any."""
    path = _some_file(rng, corpus, ROWS)
    if (
        path is not None
        and path.with_name(NORMS).is_file()
        and (len(path.read_bytes()) - 128) % (len(MODALITIES) * D * 4) == 0
    ):
        dtype = np.float16 if b"f2" in path.read_bytes()[:60] else np.float32
        scale = rng.choice((0, 1e-45, 1e-20, 1e-12, 1e-3, 1, 1e3, 1e15, 1e19, 1e38))
        rows = np.frombuffer(path.read_bytes()[128:], dtype).reshape(-1, len(MODALITIES), D).astype(np.float64) * scale
        with np.errstate(over="ignore"):
            rows[rng.randrange(len(rows))] *= rng.choice((1, 0, 1e3))
            rows = rows.astype(dtype)
            norms = np.linalg.norm(rows.astype(np.float64), axis=-1).T.clip(1e-12).astype(np.float32)
        path.write_bytes(path.read_bytes()[:128] + rows.tobytes())
        path.with_name(NORMS).write_bytes(path.with_name(NORMS).read_bytes()[:128] + norms.tobytes())


def _swap_header(rng: Random, corpus: Path) -> None:
    path = _some_file(rng, corpus, ROWS, NORMS)
    if path is not None:
        header, data = rng.choice(HEADERS), path.read_bytes()[128:]
        header = header.ljust(rng.choice((0, 117)), b" ") + b"\n"
        version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x09\x00"))
        path.write_bytes(b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data)


def _swap_file(rng: Random, corpus: Path) -> None:
    """A link, a pipe, a folder or nothing in the place of a file or folder."""
    names = (DESCRIPTION, ".lock", ".part-x", "part-00000", *(f"part-00000/{name}" for name in (INDEX, ROWS, NORMS)))
    path = corpus / rng.choice(names)
    if path.parent.is_symlink() or not path.parent.is_dir():
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind = rng.randrange(4)
    if kind == 0:
        elsewhere = (path.name, f"../{PRECIOUS}", f"../../{PRECIOUS}", "/dev/zero", "..", "../new", "nothing")
        path.symlink_to(rng.choice(elsewhere))
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.mkdir()
        (path / "x").write_bytes(b"x")


def _more_parts(rng: Random, corpus: Path) -> None:
    """A part more under an odd number: one that is there already, or moved there, or nothing."""
    number = rng.choice(("00002", "0", "٣", "9" * 240, "00000\n", "-1", "x"))
    some, other = corpus / "part-00000", corpus / f"part-{number}"
    if os.path.lexists(other) or not some.is_dir() or rng.random() < 0.2:
        other.mkdir(exist_ok=True)
    elif rng.random() < 0.5:
        some.rename(other)
    else:
        keep(some, other)


def _content(path: Path) -> dict[str, Any] | None:
    """What a sealed file says, where it can be written again."""
    try:
        content = orjson.loads(path.read_bytes())["content"]
        orjson.dumps(content)
    except (ValueError, KeyError, TypeError):
        return None
    return content if isinstance(content, dict) else None


def _write_sealed(path: Path, text: bytes) -> None:
    """JSON text that may be anything, under the seal of what it is read as."""
    path.write_bytes(b'{"content":' + text + b',"sha256":"' + _seal(text).encode() + b'"}')


def _seal(text: bytes) -> str:
    try:
        return hashlib.sha256(orjson.dumps(orjson.loads(text))).hexdigest()
    except (ValueError, TypeError):
        return "0"


def _restate_recipe(corpus: Path) -> None:
    """Have all parts belong to what the description says now."""
    description = _content(corpus / DESCRIPTION) or {}
    recipe = orjson.dumps({name: value for name, value in description.items() if name != "format_version"})
    for index in corpus.glob(f"*/{INDEX}"):
        part = _content(index) if index.is_file() else None
        if part is not None:
            _write_sealed(index, orjson.dumps(part | {"corpus": _seal(recipe)}))


def _restate_files(corpus: Path) -> None:
    """Have all parts' sizes and digests fit their files."""
    for index in corpus.glob(f"*/{INDEX}"):
        part = _content(index) if index.is_file() else None
        if part is None or not isinstance(part.get("files"), dict):
            continue
        for name in (ROWS, NORMS):
            path = index.with_name(name)
            if path.is_file() and isinstance(part["files"].get(name), dict):
                data = path.read_bytes()
                part["files"][name] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        _write_sealed(index, orjson.dumps(part))


# ---------------------------------------------------------------- reading


def read(folder: Path) -> None:
    """Search the corpus in `folder` as inference does, and add a video to it as encoding does."""
    corpus = folder / "corpus"
    with nothing_touched_beside(corpus), patch.object(os, "fsync"):
        store = CorpusStore(corpus)
        asked = {name: getattr(RECIPE, name) for name in (*MADE_BY, *OPTIONS)}
        store.recipe.check_same(replace(store.recipe, **asked), store.folder)
        videos = [Video(name, store.parts[part].durations[place], 0) for name, (part, place) in store.where.items()]
        store.require(videos or [a_video(0)])
        _search(StoredCorpus(store, list(store.where), CPU))
        with adding_to(corpus, store.recipe) as writer:
            writer.add(Video("another", 4.5, 0), 3, encoded(0))
        again = CorpusStore(corpus)
        rows = StoredCorpus(again, ["another"], CPU).rows_of(0)
        torch.testing.assert_close(rows, encoded(0), rtol=1e-3, atol=1e-3)
        assert again.where.keys() == {*store.where, "another"}
        _cut_while_open(StoredCorpus(again, list(again.where), CPU), corpus)


def _cut_while_open(corpus: StoredCorpus, folder: Path) -> None:
    """Cut what is open and has been read: the next search is refused, and this process lives."""
    _search(corpus)
    for path in folder.glob(f"{PART_PREFIX}*/{ROWS}"):
        if not path.is_symlink() and not path.parent.is_symlink():
            os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match="has been cut short"):
        _search(corpus)


def _search(corpus: StoredCorpus) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = EncodedQueries(*torch.randn(2, 3, len(MODALITIES), D, generator=generator))
    kernels = torch.randn(2, 5, generator=generator)
    searcher = Searcher(corpus, conv_predictors(*kernels), SearchSettings(max_vcmr_video=3, clip_block=20))
    for moments, videos in searcher.search(queries):
        assert ((videos.entry >= 0) & (videos.entry < len(corpus))).all()
        assert np.isfinite(videos.score).all()
        found = moments.entry != NO_ENTRY
        assert ((moments.entry[found] >= 0) & (moments.entry[found] < len(corpus))).all()
        assert (moments.ed[found] <= corpus.n_clips[moments.entry[found]]).all()
        assert ((moments.st >= 0) & (moments.st < moments.ed))[found].all()
        assert np.isfinite(moments.score[found]).all()
    for entry in range(len(corpus)):
        assert corpus.rows_of(entry).shape == (corpus.n_rows[entry], len(MODALITIES), D)
