"""Lines and times of `.srt` and `.vtt` files, cleaned as TVRetrieval cleans them.

Nothing that is wrong with a cue is fatal: it is told with file and line, and skipped.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.basic_utils import InputError, StrPath, read_bytes
from utils.text_feature.decode_text import decode

SUFFIXES = (".srt", ".vtt")
MAX_BYTES = 1 << 26  # a day of subtitles takes a few MB
MAX_PROBLEMS = 20  # told of one file; a file that has more is something else altogether

_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")  # cue settings or coordinates may follow
_TIMING_ATTEMPT = re.compile(r"\d\s*-->|-->\s*\d")
_SRT_TAG = re.compile(r"</?(?:i|b|u|s|em|strong|font|span)\b[^<>]*>", re.IGNORECASE)
_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)
_VTT_TAG = re.compile(r"</?[a-z0-9][^<>]*>", re.IGNORECASE)
_VTT_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^\s<>][^<>]*)>", re.IGNORECASE)
_VTT_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")
_STYLE_OVERRIDE = re.compile(r"\{\\[^{}]*\}")  # {\an8} and the like, from the SubStation Alpha format
_VTT_SKIPPED_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s.*)?")


@dataclass
class _Problems:
    """What is wrong with one file, in words."""

    path: str
    told: list[str] = field(default_factory=list)
    n_more: int = 0

    def add(self, what: str, line: int | None = None) -> None:
        if len(self.told) == MAX_PROBLEMS:
            self.n_more += 1
            return
        where = self.path if line is None else f"{self.path}, line {line}"
        self.told.append(f"{where}: {what}")

    def all(self) -> list[str]:
        more = [f"{self.path}: {self.n_more} more problems"] if self.n_more else []
        return self.told + more


Block = list[tuple[int, str]]  # lines between blank ones, each with its number


def read_subtitles(path: StrPath, encoding: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a subtitle file.

    Args:
        path: an `.srt` or `.vtt` file; a file that begins with WEBVTT is read as `.vtt` whatever it is called.
        encoding: see `decode`.

    Returns:
        lines `{"text": str, "start": seconds, "end": seconds}`, by start; lines that overlap stay as they are, a cue
            without text is a line whose text is "".
        problems: what is wrong, one sentence each, with file and line. Cues with a problem are not among the lines.

    Raises:
        InputError: the file cannot be read at all, or not in the `encoding` given.
    """
    problems = _Problems(str(path))
    text = _text_of(path, encoding, problems)
    is_vtt = text.startswith("WEBVTT") or Path(path).suffix.lower() == ".vtt"
    lines = [line for block in _blocks(text, is_vtt, problems) for line in _cues(block, is_vtt, problems)]
    lines.sort(key=lambda line: line["start"])
    if not lines:
        problems.add("has no subtitles" if text.strip() else "is empty")
    return lines, problems.all()


def clean_text(text: str) -> str:
    """TVRetrieval's cleaning: newlines and parentheses become spaces, ":" gets spaces around it, runs of spaces one.

    Tabs and other white space count as spaces. Spaces at the ends stay: "(Lanie:)Hi" becomes " Lanie : Hi".
    """
    text = re.sub(r"[\n()]", " ", text).replace(":", " : ")
    return re.sub(r"\s+", " ", text)


def _text_of(path: StrPath, encoding: str | None, problems: _Problems) -> str:
    """The file as text; "" with a problem when it is no text file."""
    if os.path.isfile(path) and os.path.getsize(path) > MAX_BYTES:
        problems.add(f"has more than {MAX_BYTES >> 20} MiB, which subtitles have not")
        return ""
    data = read_bytes(path)
    try:
        text, note = decode(data, encoding)
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
    if "\0" in text:
        problems.add("is not a text file")
        return ""
    if note is not None:
        problems.add(note)
    return text


def _blocks(text: str, is_vtt: bool, problems: _Problems) -> Iterator[Block]:
    """Runs of lines without a blank one between them, those that vtt defines not to be cues left out."""
    block: Block = []
    first = True
    # not str.splitlines, which also splits at form feeds and others, so that line numbers are not those of editors
    for number, line in enumerate([*re.split(r"\r\n|\r|\n", text), ""], start=1):
        if line.strip():
            block.append((number, line))
        elif block:
            if not (is_vtt and _is_no_cue(block, first, problems)):
                yield block
            block, first = [], False


def _is_no_cue(block: Block, first: bool, problems: _Problems) -> bool:
    """Whether a block of a vtt file is its header, a comment, a style or a region; one with times is a cue."""
    number, line = block[0]
    is_header = first and line.startswith("WEBVTT")
    if first and not is_header:
        problems.add("does not begin with WEBVTT, read nevertheless", number)
    has_times = any(_TIMING.fullmatch(line) for _, line in block)
    return not has_times and (is_header or _VTT_SKIPPED_BLOCK.fullmatch(line) is not None)


def _cues(block: Block, is_vtt: bool, problems: _Problems) -> Iterator[dict[str, Any]]:
    """The cues of a block as lines: one, or more where blank lines between them are missing."""
    timings = [i for i, (_, line) in enumerate(block) if _TIMING.fullmatch(line) or _TIMING_ATTEMPT.search(line)]
    if not timings:
        problems.add(f"no times, skipped: {_quoted(block[0][1])}", block[0][0])
        return
    if timings[0] > 1 and not (is_vtt and block[0][1].startswith("WEBVTT")):  # the one line before is its number
        problems.add(f"text without times, skipped: {_quoted(block[0][1])}", block[0][0])
    for at, following in zip(timings, [*timings[1:], len(block)], strict=True):
        end = following
        if following < len(block) and end - 1 > at and block[end - 1][1].strip().isdigit():
            end -= 1  # the number of the cue that follows
        number, line = block[at]
        times = _times(line)
        if times is None:
            problems.add(f"times not understood, skipped: {_quoted(line)}", number)
        elif times[1] < times[0]:
            problems.add(f"ends before it starts, skipped: {_quoted(line)}", number)
        else:
            text = "\n".join(line for _, line in block[at + 1 : end])
            yield {"text": _cue_text(text, is_vtt), "start": times[0], "end": times[1]}


def _times(line: str) -> tuple[float, float] | None:
    """Start and end in seconds of "00:01:02,500 --> 00:01:04,000", hours optional."""
    match = _TIMING.fullmatch(line)
    if match is None:
        return None
    parts = match.groups()
    return _seconds(*parts[:4]), _seconds(*parts[4:])


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    whole = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
    return round(whole + float(f"0.{fraction or 0}"), 3)


def _cue_text(text: str, is_vtt: bool) -> str:
    """Text of a cue without markup, cleaned; "" when nothing is left."""
    text = _STYLE_OVERRIDE.sub("", _BREAK_TAG.sub("\n", text))
    if is_vtt:
        text = _VTT_TAG.sub("", _VTT_VOICE.sub(r"\1: ", text))  # who speaks is part of TVR's subtitles too
        text = _VTT_ENTITY.sub(lambda match: html.unescape(match.group()), text)
    else:
        text = _SRT_TAG.sub("", text)
    text = clean_text("\n".join(line.rstrip() for line in text.split("\n")))
    return text if text.strip() else ""


def _quoted(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= 60 else line[:60] + "…")
