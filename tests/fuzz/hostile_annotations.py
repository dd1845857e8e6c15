"""Public annotation files that were hit on the way or made to do harm: converting them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.mutations import hostile_json, mutate_bytes
from utils.annotations import convert
from utils.basic_utils import InputError

ANET = {
    "v_a": {"duration": 82.73, "timestamps": [[0.83, 19.86], [56.26, 82.99]], "sentences": ["She stands.", "Ü."]},
    "v_b": {"duration": 61, "timestamps": [[41.95, 61.1]], "sentences": ["He “throws” the ball."]},
}
DIDEMO = [
    {"annotation_id": number, "video": video, "description": "the dog", "times": times, "num_segments": 6}
    for number, video, times in ((7, "1@N0_1.mov", [[1, 1], [0, 1], [1, 1]]), (9, "2@N0_2.mov", [[5, 5]]))
]
MOMENT_DETR = [
    {"qid": 7, "query": "it rains", "duration": 150, "vid": "a_0.0_150.0", "relevant_windows": [[5, 12], [20.5, 150]]},
    {"qid": "s1_0", "query": "ü", "duration": 61.5, "vid": "b", "relevant_windows": [[0, 3]], "saliency": [[1, 2]]},
]
MTVR = [
    {"desc_id": 7, "vid_name": "a", "duration": 9.5, "ts": [1, 2], "descs": [{"lang": "en", "desc": "so"}], "type": "v"}
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


def _write_lines(rows: list[object], rng: Random, folder: Path) -> None:
    """Files of a query a line, of which one is hostile as a whole, or in a line."""
    (folder / "public").mkdir()
    hostile = rng.choice(("train.jsonl", "test.json"))
    for name in ("train.jsonl", "test.json"):
        lines = [json.dumps(row).encode() for row in rows]
        if name == hostile:
            at = rng.randrange(len(lines))
            lines[at] = hostile_json(rng, rows[at]).replace(b"\n", b" ")
        content = b"\n".join(lines) if name.endswith("l") else b"[" + b",".join(lines) + b"]"
        (folder / "public" / name).write_bytes(mutate_bytes(rng, content) if rng.random() < 0.3 else content)


def read(dataset: str, folder: Path) -> None:
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
            assert {query.vid_name for query in queries if query.has_moment} <= set(videos[split])
            for query, converted in zip(queries, content.queries, strict=True):
                assert query.annotated == tuple(converted.moments)
                assert query.desc == converted.desc
                assert query.duration is not None or not query.has_moment
                assert all(0 <= start < end <= query.duration for start, end in query.annotated)
    except InputError as err:
        raise AssertionError(f"what was written is refused: {err}") from err
    dropped = sum(source.n_read - len(source.queries) for source in reader.sources)
    assert dropped <= sum(len(source.left_out) for source in reader.sources)


WRITERS: dict[str, Callable[[Random, Path], None]] = {
    "anet_cap": partial(_write_json, ANET, ("train.json", "val_1.json")),
    "didemo": partial(_write_json, DIDEMO, ("train_data.json", "val_data.json")),
    "charades_sta": _write_charades,
    "tacos": partial(_write_lines, MOMENT_DETR),
    "tvr": partial(_write_lines, MTVR),
}


def write(name: str, rng: Random, folder: Path) -> None:
    """A hostile input of one of `WRITERS`."""
    WRITERS[name](rng, folder)
