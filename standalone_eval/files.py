"""Reading and writing for the tools of this folder, which stands alone: standard library only."""

from __future__ import annotations

import functools
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from .parts import make_ordinary, part_file
from .terminal import escaped_output

BAD_INPUT_EXIT_CODE = 2


@dataclass(frozen=True)
class Form:
    """A form that annotations or predictions are known to come in, and what to do with such a file here."""

    name: str
    remedy: str

    def __str__(self) -> str:
        return f"holds {self.name}: {self.remedy}"


ANNOTATIONS = Form("annotations (desc_id, desc, vid_name, ts)", "were two paths swapped?")
ENTRIES = Form(
    "the entries of one task (desc_id, predictions)",
    'put them into {"video2idx": {vid_name: video_idx}, "VCMR": [entries]}, and so for SVMR and VR',
)
PREDICTIONS = Form("a prediction file (video2idx, VCMR, SVMR, VR)", "were two paths swapped?")
DURATIONS = Form("durations ({split: {vid_name: [seconds, video_idx]}})", "were two paths swapped?")
MOMENT_DETR = Form(
    "annotations in Moment-DETR's form (qid, query, vid, relevant_windows)",
    'write each line as {"desc_id": qid as an integer, "desc": query, "vid_name": vid, "duration": duration, "ts": '
    "relevant_windows}, and where windows are separate, evaluate with --several any",
)
MOMENT_DETR_PREDICTIONS = Form(
    "predictions in Moment-DETR's form (qid, vid, pred_relevant_windows)",
    'write one object {"video2idx": {vid: video_idx}, "SVMR": [{"desc_id": qid as an integer, "predictions": '
    "[[video_idx, st, ed, score]]}]}",
)
DIDEMO = Form(
    "annotations in DiDeMo's form (annotation_id, video, description, times)",
    "as train_data.json, val_data.json and test_data.json they are read by utils/annotations/convert.py didemo",
)
ACTIVITYNET = Form(
    "annotations in ActivityNet Captions' form ({video: duration, timestamps, sentences})",
    "as train.json, val_1.json and val_2.json they are read by utils/annotations/convert.py anet_cap",
)
CHARADES = Form(
    "annotations in Charades-STA's form (VIDEO start end##sentence)",
    "as charades_sta_train.txt and charades_sta_test.txt they are read by utils/annotations/convert.py charades_sta",
)
_FORM_OF_KEYS = (  # what an object with these keys is, the first that fits
    ({"video2idx"}, PREDICTIONS),
    ({"desc_id", "predictions"}, ENTRIES),
    ({"desc_id", "ts"}, ANNOTATIONS),
    ({"relevant_windows"}, MOMENT_DETR),  # whatever else has been renamed already
    ({"pred_relevant_windows"}, MOMENT_DETR_PREDICTIONS),
    ({"desc_id"}, ANNOTATIONS),
    ({"qid", "query", "vid"}, MOMENT_DETR),
    ({"annotation_id", "description"}, DIDEMO),
    ({"annotation_id", "times"}, DIDEMO),
    ({"timestamps", "sentences"}, ACTIVITYNET),
)
_CHARADES_LINE = re.compile(r"\S+\s+[\d.]+\s+[\d.]+\s*##")
_LOOKED_AT = 5  # rows, or values of an object, that say which form it is


def form_of(content: Any) -> Form | None:
    """The form of a parsed JSON document, or of a list of rows; None where it is none that is known."""
    if isinstance(content, list) and len(content) == 1:  # a document in one line, read as lines
        (content,) = content
    values = list(islice(content.values(), _LOOKED_AT)) if isinstance(content, dict) else []
    rows = content[:_LOOKED_AT] if isinstance(content, list) else [content, *values]
    for row in rows:
        if isinstance(row, dict):
            for keys, form in _FORM_OF_KEYS:
                if keys <= row.keys():
                    return form
    return DURATIONS if values and all(map(_are_durations, values)) else None


def _are_durations(videos: Any) -> bool:
    """Whether it is `{vid_name: [seconds, video_idx]}`, as far as is looked at."""
    entries = list(islice(videos.values(), _LOOKED_AT)) if isinstance(videos, dict) else []
    return bool(entries) and all(isinstance(entry, list) and [type(x) for x in entry[1:]] == [int] for entry in entries)


def form_of_text(text: str) -> Form | None:
    """The form of a file: of all of it as JSON, or of its first line."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    if _CHARADES_LINE.match(first):
        return CHARADES
    for part in (text, first):
        try:
            return form_of(json.loads(part))
        except (ValueError, RecursionError):
            continue
    return None


class BadInput(Exception):  # noqa: N818 (as much a finding as an error)
    """A file the user gave cannot be used; the message lists what is wrong with it."""


def command_line(main: Callable[[], None]) -> Callable[[], None]:
    """Make `main` report `BadInput` and unusable paths as a message with exit code 2 instead of a traceback.

    What is printed meanwhile is `printable`: no name from a file is obeyed by the terminal.
    """

    @functools.wraps(main)
    @escaped_output()
    def wrapped() -> None:
        try:
            main()
        except (BadInput, OSError) as err:
            print(f"error: {err}", file=sys.stderr)
            sys.exit(BAD_INPUT_EXIT_CODE)

    return wrapped


def positive_int(text: str) -> int:
    """An option's value as an integer from 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 file, or raise `BadInput` saying why it cannot be read; a pipe or device may have no end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadInput(f"{path}: cannot be read (it is not a regular file): check the path")
        return Path(path).read_text(encoding="utf-8")
    except OSError as err:
        raise BadInput(f"{path}: cannot be read ({err.strerror}): check the path") from err
    except UnicodeDecodeError as err:
        raise BadInput(f"{path}: is not UTF-8 text ({err.reason} at byte {err.start}): is it the right file?") from err


def parse_json(text: str, where: str) -> Any:
    """Parse JSON, or raise `BadInput` naming `where` it stood."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:  # ValueError also covers integers too long for Python
        raise BadInput(f"{where}: is not valid JSON ({err}): was it written whole?") from err


def read_json(path: str | os.PathLike[str]) -> Any:
    """Load a JSON file, or raise `BadInput`; one that holds lines of a known form is called so."""
    text = read_text(path)
    try:
        return parse_json(text, str(path))
    except BadInput as err:
        form = form_of_text(text)
        raise BadInput(f"{path}: {form}") if form else err from err


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Load a file of one JSON object a line, or raise `BadInput`, naming the form or the first line that is none."""
    text = read_text(path)
    try:
        rows = [_parse_row(line, f"{path}, line {i}") for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    except BadInput as err:
        raise BadInput(reason) if (reason := why_no_rows(text, path)) else err from err
    if not rows:
        raise BadInput(f"{path}: has no lines: was it downloaded or written whole?")
    return rows


def _parse_row(line: str, where: str) -> dict[str, Any]:
    row = parse_json(line, where)
    if not isinstance(row, dict):
        raise BadInput(f"{where}: expected an object {{…}}, found {type(row).__name__}")
    return row


def why_no_rows(text: str, path: str | os.PathLike[str]) -> str | None:
    """What is to be said of a text that is not one object a line, if it is known what it is instead."""
    form, is_list = form_of_text(text), text.lstrip().startswith("[")
    if form is ANNOTATIONS:
        return f"{path}: is one JSON list of annotations: write its rows one a line (jsonl)" if is_list else None
    return f"{path}: {form}" if form else None


def refuse_others(content: Any, expected: Form, where: str | os.PathLike[str]) -> None:
    """Raise `BadInput` for a document, or rows, of a form that is known and is not the expected one."""
    form = form_of(content)
    if form not in (None, expected):
        raise BadInput(f"{where}: {form}")


def why_not_output(
    option: str, out: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str] | None]
) -> str | None:
    """What is to be said where an option names one of the files that are read, which would be lost."""
    if any(path is not None and os.path.realpath(path) == os.path.realpath(out) for path in inputs):
        return f"{option} {out}: is read too, and would be lost: give another file"
    return None


def refuse_input_as_output(out: str | None, inputs: Iterable[str]) -> None:
    """Raise `BadInput` if `--save_path` names one of the files that are read."""
    if out is not None and (reason := why_not_output("--save_path", out, inputs)):
        raise BadInput(reason)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well; `BadInput` if it cannot be."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_file(target.parent, f".{target.name}.") as part:
            yield part
            make_ordinary(part, 0o666)
            part.replace(target)
    except OSError as err:
        raise BadInput(f"{target}: cannot be written ({err.strerror}): make room there, or name another path") from err


def write_json(data: Any, path: str | os.PathLike[str]) -> None:
    """Write `data` as indented JSON, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(data, indent=4, allow_nan=False) + "\n", encoding="utf-8")
