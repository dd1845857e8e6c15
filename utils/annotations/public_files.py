"""The files of a public dataset: which of them lie in a folder, for which split, of which form; and reading them."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from standalone_eval.files.forms import ACTIVITYNET, CHARADES, DIDEMO, MOMENT_DETR, MTVR, VERIFIED, Form, form_of_text
from utils.basic_utils import InputError, read_bytes, read_json, read_jsonl

LINES = (MOMENT_DETR, VERIFIED, MTVR)  # forms of one query a line, which files of any name and dataset are in
PUBLIC = (ACTIVITYNET, CHARADES, DIDEMO, *LINES)
SPLITS = ("train", "val", "test")
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
SECOND_VAL = re.compile(r"val_?2(?![0-9])")  # ActivityNet's, which is used as test
WHERE_FROM = "see utils/annotations/README.md for where it comes from"


def split_of(path: Path) -> str | None:
    """The split that a file's name speaks of."""
    if SECOND_VAL.search(path.stem.lower()):
        return "test"
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def other_annotations(folder: Path, names: Collection[str] = ()) -> list[tuple[Path, Form]]:
    """Files of the folder that have none of these names, but that of a split and a form of public annotations."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jsonl", ".txt") and path.name not in names and path.is_file() and split_of(path):
            form = form_of_text(read_bytes(path, WHERE_FROM).decode("utf-8", "replace"))
            if form in PUBLIC:
                found.append((path, form))
    return found


def has_lines(folder: Path) -> bool:
    """Whether annotations of `LINES` are in a folder."""
    return any(form in LINES for _, form in other_annotations(folder))


def files_of_lines(folder: Path, known: Mapping[str, str]) -> tuple[Form, dict[str, Path]]:
    """The one form of `LINES` that annotations in a folder have, and the file of each split, in the usual order.

    Args:
        known: {name: split} of the dataset's own files; where one is there, others are not looked at.

    Raises:
        InputError: there is none, or another form too, or two files for one split.
    """
    found = other_annotations(folder)
    found = [(path, form) for path, form in found if path.name in known] or found
    if not any(form in LINES for _, form in found):
        raise InputError(f"{folder}: has no jsonl of queries whose name says train, val or test: {WHERE_FROM}")
    if len({form for _, form in found}) > 1:
        each = "; ".join(f"{path.name} {form}" for path, form in found)
        raise InputError(f"{folder}: has annotations of several forms, keep those of one: {each}")
    files: dict[str, Path] = {}
    for path, _ in found:
        other = files.setdefault(known.get(path.name) or str(split_of(path)), path)
        if other != path:
            raise InputError(f"{folder}: {other.name} and {path.name} are both {split_of(path)}: move one of them")
    return found[0][1], {split: files[split] for split in SPLITS if split in files}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The queries of a file of one a line, or of one JSON list of them; row i is line i + 1 of the former."""
    if not read_bytes(path, WHERE_FROM).lstrip().startswith(b"["):
        return read_jsonl(path, WHERE_FROM)
    rows = read_json(path, WHERE_FROM)
    odd = next((i for i, row in enumerate(rows, start=1) if not isinstance(row, dict)), None)
    if odd is not None or not rows:
        raise InputError(f"{path}, entry {odd or 1}: expected an object {{…}} for each query: {WHERE_FROM}")
    return list(rows)


def refuse_others(path: Path, expected: Form) -> None:
    """An `InputError` for a file of a form that is known and is not the expected one."""
    form = form_of_text(read_bytes(path, WHERE_FROM).decode("utf-8", "replace"))
    if form not in (None, expected):
        raise InputError(f"{path}: {form}")


def read_public_json(path: Path, kind: type, expected: Form) -> Any:
    """The JSON of an annotation file of a form that is a dict or a list, whichever is the `kind`.

    An `InputError` if it cannot be read, is not JSON or not of that kind, is of another form that is known, is empty,
    or an object in it has a key twice.
    """
    refuse_others(path, expected)
    content = read_json(path, WHERE_FROM)
    if not isinstance(content, kind) or not content:
        form = "an object {…} with a key for each video" if kind is dict else "a list […] of queries"
        raise InputError(f"{path}: expected {form}, found {reprlib.repr(content)}: {WHERE_FROM}")
    try:  # again, because a parser that is fast keeps the last of two values without a word
        json.loads(read_bytes(path, WHERE_FROM), object_pairs_hook=_refuse_twins)
    except RecursionError as err:
        raise InputError(f"{path}: is nested too deeply for an annotation file: {WHERE_FROM}") from err
    except KeyError as err:
        raise InputError(f"{path}: has {reprlib.repr(err.args[0])} twice: keep one of them") from err
    return content


def _refuse_twins(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise KeyError(key)
        seen.add(key)


def there(folder: Path, names: Sequence[str]) -> list[Path]:
    """Those of a dataset's files that are in a folder; `InputError` when none is."""
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise InputError(f"{folder}: has none of {', '.join(names)}: {WHERE_FROM}")
    return found
