"""Where the packets of a moment lie in a video file: read, not decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import filterfalse
from math import inf
from pathlib import Path
from typing import Any

from utils.video_feature.decoding import Clock, frame_period, is_theora_header, opened, start_of
from utils.video_feature.sampling import TOLERANCE_S


@dataclass
class Packets:
    """What is in a file up to the end of a moment.

    Attributes:
        container: FFmpeg's names of its format.
        zero: second of the container at which the video begins.
        key: number of the video packet at which decoding has to begin: a key frame, at or before the start or the first
            of all. 0 if there is none, or if packets before have no times.
        key_time, key_pts: when it is shown, in seconds of the video and in units of its stream; None without one.
        last: number of the last packet that is shown before the moment ends, or before one that those need.
        end: second at which what was read is no longer shown.
        shown_until: second at which the pictures of packets up to `last` are no longer shown.
        shifts: what was added to the clock of the file, in seconds, once for each recording that was joined to it.
    """

    container: str
    zero: float
    key: int = 0
    key_time: float | None = None
    key_pts: int | None = None
    last: int = -1
    end: float = 0.0
    shown_until: float = 0.0
    shifts: list[float] = field(default_factory=lambda: [0.0])


def look_at(path: Path, start: float, end: float, check: Callable[[], None]) -> Packets:
    """Read a file up to the end of a moment; `check` is called for each packet.

    Raises:
        InputError: as for `opened`.
    """
    with opened(path, threads=1) as (container, stream):
        found = Packets(container.format.name, start_of(container, stream))
        unit, period, clock, is_timed = float(stream.time_base), frame_period(stream), Clock(container, stream), True
        seen = latest = -inf  # when the last of the packets is shown, and of those up to `last`
        for number, packet in enumerate(held_packets(container, stream)):
            check()
            raw, n_joins = packet.dts, clock.n_joins
            clock.follow(packet)
            if clock.n_joins > n_joins and raw is not None:
                found.shifts.append((packet.dts - raw) * unit)
            is_timed &= packet.pts is not None
            shown = packet.dts if packet.pts is None else packet.pts
            if shown is None:
                continue
            time = shown * unit - found.zero
            shown_until = time + (packet.duration * unit if packet.duration else period)
            found.end = max(found.end, shown_until)
            if is_timed and packet.is_keyframe and (time <= start + TOLERANCE_S or number == 0):
                found.key, found.key_time, found.key_pts = number, time, packet.pts
            seen = max(seen, time)
            if time < max(end - TOLERANCE_S, latest):
                found.last, found.shown_until, latest = number, found.end, seen
            # nothing that comes is shown before it is decoded
            if packet.dts is not None and packet.dts * unit - found.zero >= max(end, latest):
                break
    return found


def held_packets(container: Any, *streams: Any) -> Iterator[Any]:
    """The packets of some streams that hold something, in the order of the file."""
    held = (packet for packet in container.demux(*streams) if packet.size)
    return filterfalse(is_theora_header, held)


def sound_of(container: Any) -> Any:
    """The sound that a player chooses, None if there is none that can be decoded."""
    sound = container.streams.best("audio") if container.streams.audio else None
    return None if sound is None or sound.codec_context is None else sound
