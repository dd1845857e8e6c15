"""Cues of `.srt` and `.vtt` text. Nothing that is wrong with a cue is fatal: it is told with its line, and skipped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from utils.text_feature.subtitles.cue import Cue, Problems
from utils.text_feature.subtitles.stream_clock import Segment, new_segment, on_one_clock

# not str.splitlines, which also splits at form feeds and others, so that line numbers are not those of editors; copies
# in text mode double the carriage return
LINE_END = re.compile(r"\r{1,3}\n|\r|\n")
AGAIN_S = 60.0  # by which times go back where a second file begins

_TIME = r"(?:(\d{1,4}): ?)?(\d{1,2}): ?(\d{1,2})(?:[.,] ?(\d{1,9}))?"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")  # cue settings or coordinates may follow
_TIMING_ATTEMPT = re.compile(r"\d\s*-->|-->\s*\d")
_WORD_TIME = r"<(?:\d{1,4}:)?\d{1,2}:\d{1,2}[.,]\d{1,9}>"
_WORD_TIME_TAG = re.compile(_WORD_TIME)
_SRT_TAG = re.compile(rf"</?(?:i|b|u|s|c|em|strong|font|span)\b[^<>]*>|{_WORD_TIME}", re.IGNORECASE)
_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)
_VTT_TAG = re.compile(r"</?[a-z0-9][^<>]*>", re.IGNORECASE)
_VTT_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^\s<>][^<>]*)>", re.IGNORECASE)
_VTT_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")
_STYLE_OVERRIDE = re.compile(r"\{\\[^{}]*\}")  # {\an8} and the like, from the SubStation Alpha format
_VTT_SKIPPED_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s.*)?")
_VTT_HEADER = re.compile(r"WEBVTT(?:\s.*)?")

Block = list[tuple[int, str]]  # lines between blank ones, each with its number


@dataclass
class _Written:
    """A cue as it is written: lines of text with markup."""

    lines: list[str]
    start: float
    end: float

    def goes_on(self, block: Block, is_vtt: bool) -> bool:
        """Whether a block without times after it is its text too, as players take it.

        Whatever comes first is; more is in `.srt` only, unless it begins as a cue that lost its times.
        """
        if not any(line.strip() for line in self.lines):
            return True
        return not is_vtt and not _is_number(block[0][1])


def srt_cues(text: str, problems: Problems) -> list[Cue]:
    blocks = list(_blocks(text, False))
    return [_cue(written, False) for written in _written(blocks, False, problems)]


def vtt_cues(text: str, problems: Problems) -> list[Cue]:
    """Cues of a file, or of several after each other, as the segments of a stream are."""
    blocks = list(_blocks(text, True))
    if blocks and not blocks[0][0][1].startswith("WEBVTT"):
        problems.add("does not begin with WEBVTT, read nevertheless", blocks[0][0][0])
    begins = [i for i, block in enumerate(blocks) if i == 0 or _VTT_HEADER.fullmatch(block[0][1])]
    segments: list[Segment] = []
    for at, following in pairwise([*begins, len(blocks)]):
        segment = new_segment(blocks[at], segments[-1] if segments else None, problems)
        under = [block for block in blocks[at:following] if not _is_no_cue(block)]
        segment.cues = [_cue(written, True) for written in _written(under, True, problems)]
        segments.append(segment)
    return on_one_clock(segments, problems) if segments else []


def _blocks(text: str, is_vtt: bool) -> Iterator[Block]:
    """Runs of lines without a blank one between them; in vtt, spaces make no blank line, and a header begins a run."""
    block: Block = []
    for number, line in enumerate([*LINE_END.split(text), ""], start=1):
        line = line.removeprefix("\ufeff")  # where files were put together
        if block and (not line.strip() if not is_vtt else line in ("", "WEBVTT")):
            yield block
            block = []
        if line.strip() or block:
            block.append((number, line))


def _is_no_cue(block: Block) -> bool:
    """Whether a block of a vtt file is a header, a comment, a style or a region; one with times is a cue."""
    first = block[0][1]
    has_times = any(_TIMING.fullmatch(line) for _, line in block)
    return not has_times and (first.startswith("WEBVTT") or _VTT_SKIPPED_BLOCK.fullmatch(first) is not None)


def _written(blocks: list[Block], is_vtt: bool, problems: Problems) -> list[_Written]:
    """The cues of blocks."""
    reading = _Reading(is_vtt, problems)
    for block, following in pairwise([*blocks, []]):
        reading.take(block, following)
    return reading.cues


class _Reading:
    """Takes blocks one after the other, and has the cues found."""

    def __init__(self, is_vtt: bool, problems: Problems) -> None:
        self.cues: list[_Written] = []
        self._is_vtt, self._problems = is_vtt, problems
        self._open: _Written | None = None  # the cue that text may still belong to
        self._furthest = 0.0  # second at which a cue has begun

    def take(self, block: Block, following: Block) -> None:
        timings = [i for i, (_, line) in enumerate(block) if _TIMING.fullmatch(line) or _TIMING_ATTEMPT.search(line)]
        if timings:
            self._take_cues(block, timings)
        elif len(block) == 1 and _is_number(block[0][1]) and following and _TIMING.fullmatch(following[0][1]):
            return  # of the cue that follows
        elif self._open is not None and self._open.goes_on(block, self._is_vtt):
            self._open.lines += ["", *(line for _, line in block)]
        else:
            self._problems.add("no times, skipped", *block[0])
            self._open = None

    def _take_cues(self, block: Block, timings: list[int]) -> None:
        """One cue, or more where blank lines between them are missing."""
        if timings[0] > 1 and not (self._is_vtt and block[0][1].startswith("WEBVTT")):  # one line before is its number
            self._problems.add("text without times, skipped", *block[0])
        for at, end in pairwise([*timings, len(block)]):
            cue = self._open = _written_cue(block, at, end, self._problems)
            if cue is None:
                continue
            self.cues.append(cue)
            if cue.start < self._furthest - AGAIN_S and not self._is_vtt and at and block[at - 1][1].strip() == "1":
                again = "numbers and times begin again, as of a second file, taken as they stand"
                self._problems.add(again, *block[at])
            self._furthest = max(self._furthest, cue.start)


def _written_cue(block: Block, at: int, end: int, problems: Problems) -> _Written | None:
    """The cue whose times are line `at` of a block, and whose text ends before line `end`; None with a problem."""
    if end < len(block) and end - 1 > at and _is_number(block[end - 1][1]):
        end -= 1  # the number of the cue that follows
    times = _times(block[at][1])
    if times is None:
        problems.add("times not understood, skipped", *block[at])
    elif times[1] < times[0]:
        problems.add("ends before it starts, skipped", *block[at])
    else:
        return _Written([line for _, line in block[at + 1 : end]], *times)
    return None


def _is_number(line: str) -> bool:
    return line.strip().isdigit()


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


def _cue(written: _Written, is_vtt: bool) -> Cue:
    text = "\n".join(written.lines)
    rows = _without_markup(text, is_vtt).split("\n")
    timed = _WORD_TIME_TAG.search(text)
    first_timed = None if timed is None else _without_markup(text[: timed.start()], is_vtt).count("\n")
    return Cue(rows, written.start, written.end, first_timed)


def _without_markup(text: str, is_vtt: bool) -> str:
    text = _STYLE_OVERRIDE.sub("", _BREAK_TAG.sub("\n", text))
    if is_vtt:
        text = _VTT_TAG.sub("", _VTT_VOICE.sub(r"\1: ", text))  # who speaks is part of TVR's subtitles too
        return _VTT_ENTITY.sub(lambda match: html.unescape(match.group()), text)
    return _SRT_TAG.sub("", text)
