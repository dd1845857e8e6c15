"""Public annotation files, and folders of npy files, that were hit on the way or made to do harm: converting them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzz.mutations import hostile_json, mutate_bytes
from utils.annotations import convert
from utils.annotations.convert_features import convert as convert_features
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.feature_forms.npy_folder import NpyFolder

ANET = {
    "v_a": {"duration": 82.73, "timestamps": [[0.83, 19.86], [56.26, 82.99]], "sentences": ["She stands.", "Ü."]},
    "v_b": {"duration": 61, "timestamps": [[41.95, 61.1]], "sentences": ["He “throws” the ball."]},
}
DIDEMO = [
    {"annotation_id": number, "video": video, "description": "the dog", "times": times, "num_segments": 6}
    for number, video, times in ((7, "1@N0_1.mov", [[1, 1], [0, 1], [1, 1]]), (9, "2@N0_2.mov", [[5, 5]]))
]
STA = ["AO8RW 0.0 6.9##a person puts a book on a shelf.", "AO8RW 0.0 6.9##person begins.", "Y6R7T 20.8 30##ü ## ü."]
LENGTHS = [
    "id,subject,script,length",
    'AO8RW,HR43,"A person, ""tidy"".\nThen a book.",33.67',
    "Y6R7T,HR43,A person laughs.,29.50",
]
ODD_FIELDS = (
    "", " ", "nan", "inf", "-1", "1e999", "1_0", "٣", "0x10", "AO8RW", "../x", "\x00", '"', '""', "\r", "\n", ",", "##",
    "\ufeff", "\u2028", "x" * 200_000, "9" * 5000,
)  # fmt: skip
HEADERS = (
    b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 3), }",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (4, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 12), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (4L, 3L), }",
    b"{'descr': [('x', '<f4', (9999999, 999999))], 'fortran_order': False, 'shape': (4, 3), }",
    b"{'descr': ('<f4', (2, 2)), 'fortran_order': False, 'shape': (4, 3), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }",
    b"{'descr': '<f2', 'fortran_order': False, 'shape': (8, 3), }",
    b"{'descr': '>f4', 'fortran_order': False, 'shape': (4, 1, 3), }",
    b"{'descr': '<f16', 'fortran_order': False, 'shape': (1, 3), }",
    b"{'descr': '<c8', 'fortran_order': False, 'shape': (2, 3), }", b"{[]: 1}", b"{'descr'", b"  x\n y", b"'''",
    b"(" * 150, b"-" * 9000, b"{'descr': " + b"[" * 90 + b"]" * 90 + b"}", b"__import__('os')", b"\xff", b"1" * 5000,
)  # fmt: skip


def _write_json(tree: object, names: tuple[str, ...], rng: Random, folder: Path) -> None:
    """Files of which at least one is hostile."""
    (folder / "public").mkdir()
    hostile = rng.choice(names)
    for name in names:
        content = json.dumps(tree).encode()
        if name == hostile or rng.random() < 0.2:
            content = mutate_bytes(rng, content) if rng.random() < 0.3 else hostile_json(rng, tree)
        (folder / "public" / name).write_bytes(content)


def _write_charades(rng: Random, folder: Path) -> None:
    (folder / "public").mkdir()
    names = ("charades_sta_train.txt", "charades_sta_test.txt", "Charades_v1_train.csv", "Charades_v1_test.csv")
    hostile = {rng.choice(names) for _ in range(rng.choice((1, 1, 2)))}
    for name in names:
        lines = list(STA if name.endswith("txt") else LENGTHS)
        if name in hostile and rng.random() < 0.6:
            lines = _hostile_fields(rng, lines, " " if name.endswith("txt") else ",")
        content = "\n".join([*lines, ""]).encode("utf-8", "surrogatepass")
        if name in hostile and rng.random() < 0.5:
            content = mutate_bytes(rng, content)
        if rng.random() < 0.95:
            (folder / "public" / name).write_bytes(content)


def _hostile_fields(rng: Random, lines: list[str], separator: str) -> list[str]:
    """Lines in which a field is another value, gone, or there twice."""
    at = rng.randrange(len(lines))
    fields = lines[at].split(separator)
    place, kind = rng.randrange(len(fields)), rng.randrange(4)
    if kind == 0:
        del fields[place]
    elif kind == 1:
        fields.insert(place, fields[place])
    else:
        fields[place] = rng.choice(ODD_FIELDS)
    return [*lines[:at], separator.join(fields), *lines[at + (rng.random() < 0.8) :]]


def _read(dataset: str, folder: Path) -> None:
    """Convert, and read what was written, which must then be sound."""
    from method_tvr.dataset.annotations import load_queries, load_videos

    reader, splits = convert.read(dataset, folder / "public")
    out = folder / "corpus"
    out.mkdir()
    convert.write(dataset, out, reader, splits)
    try:
        videos = load_videos(out / "corpus_video2dur_idx.json")
        for split, content in splits.items():
            queries = load_queries(out / f"corpus_{split}_release.jsonl", videos)
            assert [query.desc_id for query in queries] == [query.desc_id for query in content.queries]
            assert {query.vid_name for query in queries} <= set(videos[split])
            for query, converted in zip(queries, content.queries, strict=True):
                assert query.annotated == tuple(converted.moments)
                assert query.desc == converted.desc
                assert query.duration is not None
                assert all(0 <= start < end <= query.duration for start, end in query.annotated)
    except InputError as err:
        raise AssertionError(f"what was written is refused: {err}") from err
    dropped = sum(source.n_read - len(source.queries) for source in reader.sources)
    assert dropped <= sum(len(source.left_out) for source in reader.sources)


def _write_npy(rng: Random, folder: Path) -> None:
    public = folder / "public"
    public.mkdir()
    arrays = np.random.default_rng(rng.randrange(1 << 30))
    for number in range(3):
        np.save(public / f"v{number}.npy", arrays.normal(size=(number + 2, 3)).astype(np.float32))
    hit = public / f"v{rng.randrange(3)}.npy"
    content, kind = hit.read_bytes(), rng.randrange(5)
    if kind == 0:
        text = rng.choice(HEADERS)
        version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
        size = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
        hit.write_bytes(b"\x93NUMPY" + version + size + text + content[-48:])
    elif kind == 1:
        odd = (np.nan, np.inf, -np.inf, 3e38, 1e-40)
        np.save(hit, np.full((2, 3), rng.choice(odd), rng.choice((np.float32, np.float64))))
    elif kind == 2:
        os.mkfifo(public / "pipe.npy")  # reading it would never end
        (public / "folder.npy").mkdir()
        hit.rename(public / rng.choice(("ü.npy", "\udce4.npy", " .npy", "a\nb.npy", ".npy", "-x.npy")))
    else:
        hit.write_bytes(mutate_bytes(rng, content))


def _read_npy(folder: Path) -> None:
    source = NpyFolder(folder / "public")
    report = convert_features(source, folder / "video.h5")
    file = FeatureFile(folder / "video.h5")
    assert sorted(file.keys()) == sorted(report.done) == sorted(source.feature_keys())
    for key in report.done:
        features = file.read(key, report.width)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        np.testing.assert_array_equal(features, source.read(key))


WRITERS: dict[str, Callable[[Random, Path], None]] = {
    "anet_cap": partial(_write_json, ANET, ("train.json", "val_1.json")),
    "didemo": partial(_write_json, DIDEMO, ("train_data.json", "val_data.json")),
    "charades_sta": _write_charades,
    "npy_folder": _write_npy,
}


def write(name: str, rng: Random, folder: Path) -> None:
    """A hostile input of one of `WRITERS`."""
    WRITERS[name](rng, folder)


def read(name: str, folder: Path) -> None:
    """What converting it does."""
    if name == "npy_folder":
        _read_npy(folder)
    else:
        _read(name, folder)
