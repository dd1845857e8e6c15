"""Times of WebVTT segments of a stream (HLS), several of which may lie in one file one after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from utils.text_feature.subtitles.cue import Cue, Problems

TICKS = 90_000  # a second of MPEG-TS
WRAP = 1 << 33  # ticks, after which it counts from 0 again
_MAP = "X-TIMESTAMP-MAP"
_MPEGTS = re.compile(r"MPEGTS:(\d{1,20})(?!\d)")
_LOCAL = re.compile(r"LOCAL:(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,9})")
_TOUCH_S = 0.002


@dataclass
class Segment:
    """The cues under one header, and the seconds by which its clock is ahead of theirs."""

    ahead: float | None  # None: the header does not say it
    number: int  # line of the header
    cues: list[Cue] = field(default_factory=list)


def new_segment(header: Sequence[tuple[int, str]], before: Segment | None, problems: Problems) -> Segment:
    """The segment that a header begins."""
    number = header[0][0]
    for at, line in header:
        if not line.startswith(_MAP):
            continue
        ticks, local = _MPEGTS.search(line), _LOCAL.search(line)
        if ticks is None or local is None:
            problems.add(f"{_MAP} not understood, times taken as they stand", at, line)
            break
        hours, minutes, seconds, fraction = local.groups()
        said = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + float(f"0.{fraction}")
        stream = int(ticks.group(1)) % WRAP / TICKS
        if before is not None and before.ahead is not None:  # the way round that is nearer
            stream += WRAP / TICKS * round((before.ahead + said - stream) * TICKS / WRAP)
        return Segment(stream - said, number)
    return Segment(None, number)


def on_one_clock(segments: Sequence[Segment], problems: Problems) -> list[Cue]:
    """The cues of all segments, with times from where the first begins; a cue that several repeat is there once.

    One segment's times stay as they are: where in the stream its video begins is not known here.
    """
    known = [segment.ahead for segment in segments if segment.ahead is not None]
    shown: dict[tuple[str, ...], Cue] = {}
    cues: list[Cue] = []
    begun = 0.0
    for i, segment in enumerate(segments):
        shift = 0.0 if segment.ahead is None else segment.ahead - min(known)
        moved = [_moved(cue, shift) for cue in segment.cues]
        if moved and i and moved[0].start < begun:
            problems.add("a new WEBVTT whose times begin again, taken as they stand", segment.number)
        new = [cue for cue in moved if not (i and _goes_on(cue, shown))]
        shown.update((tuple(cue.rows), cue) for cue in new)
        cues += new
        begun = moved[0].start if moved else begun
    return cues


def _moved(cue: Cue, shift: float) -> Cue:
    cue.start, cue.end = round(cue.start + shift, 3), round(cue.end + shift, 3)
    return cue


def _goes_on(cue: Cue, shown: dict[tuple[str, ...], Cue]) -> bool:
    """Whether a cue is one of an earlier segment, which is then shown as long as both say."""
    same = shown.get(tuple(cue.rows))
    if same is None or not same.start <= cue.start <= same.end + _TOUCH_S:
        return False
    same.end = max(same.end, cue.end)
    return True
