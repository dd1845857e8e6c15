"""Which frame of a video is looked at when, and in which size: no video is opened here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeVar

T = TypeVar("T")

SAMPLE_OFFSET = 0.3  # TVR's frames, 3 a second, lie at n + {3, 13, 23}/30 s: (k + 0.3) / 3
TOLERANCE_S = 1e-3  # Matroska rounds timestamps to milliseconds

Interpolation = Literal["bilinear", "bicubic"]


def sample_times(frame_rate: float) -> Iterator[float]:
    """Times in seconds at which a video is looked at, without end: frame k at (k + 0.3) / frame_rate."""
    return ((number + SAMPLE_OFFSET) / frame_rate for number in count())


def shown_at(
    times: Iterable[float], frames: Iterable[tuple[float, T]], end: Callable[[], float]
) -> Iterator[tuple[float, T]]:
    """(time, frame) for all rising times before the end, at least for the first: the last frame that is not later.

    Args:
        times: seconds. When they run out, the rest of the frames is left unread.
        frames: (timestamp in seconds, frame), rising. The first one is also shown before its time.
        end: gives, after the last frame, the second at which that is no longer shown.
    """
    unread = iter(frames)
    shown, following = next(unread, None), next(unread, None)
    for number, time in enumerate(times):
        while following is not None and following[0] <= time + TOLERANCE_S:
            shown, following = following, next(unread, None)
        if shown is None or (following is None and time >= end() and number):
            return
        yield time, shown[1]


@dataclass(frozen=True)
class Resize:
    """How large frames come out of the decoder."""

    shorter_side: int  # pixels; the longer one follows, so that shapes look as they are meant to
    interpolation: Interpolation = "bilinear"  # both look at all pixels when they make pictures smaller
    square: bool = False  # both sides get that length, whatever the shape

    def size(self, width: float, height: float) -> tuple[int, int]:
        """(width, height) of a frame that is meant to be seen as `width` x `height`; rounded as torchvision does."""
        if self.square:
            return self.shorter_side, self.shorter_side
        if width <= height:
            return self.shorter_side, max(self.shorter_side, int(self.shorter_side * height / width))
        return max(self.shorter_side, int(self.shorter_side * width / height)), self.shorter_side
