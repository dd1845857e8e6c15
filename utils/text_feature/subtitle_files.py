"""Lines and times of subtitle files, cleaned as TVRetrieval cleans them.

Nothing that is wrong with a cue is fatal: it is told with file and line, and skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.basic_utils import InputError, StrPath, read_bytes
from utils.text_feature.decode_text import decode
from utils.text_feature.subtitles.ass import ass_cues
from utils.text_feature.subtitles.cue import MAX_PROBLEMS, Cue, Problems, clean_text
from utils.text_feature.subtitles.rolled import without_rolled
from utils.text_feature.subtitles.timed_text import srt_cues, vtt_cues
from utils.text_feature.subtitles.whisper import whisper_cues

__all__ = ["MAX_PROBLEMS", "SUFFIXES", "clean_text", "read_cues", "read_subtitles"]

MAX_BYTES = 1 << 26  # a day of subtitles takes a few MB

_READERS: dict[str, Callable[[str, Problems], list[Cue]]] = {
    ".srt": srt_cues,
    ".vtt": vtt_cues,
    ".ass": ass_cues,
    ".ssa": ass_cues,
    ".json": whisper_cues,
}
SUFFIXES = tuple(_READERS)  # of several files of one video, the first is taken


def read_subtitles(path: StrPath, encoding: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a subtitle file.

    Args:
        path: a file in one of the forms of `SUFFIXES`; one that begins with WEBVTT is read as `.vtt` and one that
            begins with [Script Info] as `.ass` whatever it is called.
        encoding: see `decode`.

    Returns:
        lines `{"text": str, "start": seconds, "end": seconds}`, by start; lines that overlap stay as they are, a cue
            without text is a line whose text is "". Rows of captions that roll are there once.
        problems: what is wrong, one sentence each, with file and line. Cues with a problem are not among the lines.

    Raises:
        InputError: the file cannot be read at all, or not in the `encoding` given.
    """
    lines, problems = read_cues(path, encoding)
    return lines, problems.all()


def read_cues(path: StrPath, encoding: str | None = None) -> tuple[list[dict[str, Any]], Problems]:
    """As `read_subtitles`, with problems by their cause."""
    problems = Problems(str(path))
    text = _text_of(path, encoding, problems)
    cues = sorted(_reader(path, text)(text, problems), key=lambda cue: cue.start) if text.strip() else []
    lines = [cue.line() for cue in without_rolled(cues)]
    if text.strip() and not lines:
        problems.add("has no subtitles")
    elif not text.strip() and not problems.told:
        problems.add("is empty")
    return lines, problems


def _reader(path: StrPath, text: str) -> Callable[[str, Problems], list[Cue]]:
    if text.startswith("WEBVTT"):
        return vtt_cues
    if text.lstrip().startswith("[Script Info]"):
        return ass_cues
    return _READERS.get(Path(path).suffix.lower(), srt_cues)


def _text_of(path: StrPath, encoding: str | None, problems: Problems) -> str:
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
        problems.add("is not a text file, not read: subtitles are text, best saved as UTF-8")
        return ""
    if note is not None:
        problems.add(note)
    return text
