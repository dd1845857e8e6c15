"""Frames as an encoder takes them: turned as the file asks, of even sides, all of one size."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any, ClassVar

from utils.video_feature.decoding import av, display_matrix


class Upright:
    """Turns frames, and makes them as large as the first one.

    Args:
        first: the first frame.
        stream: what it is of.

    Attributes:
        width, height: in pixels, even: an odd row or column is cut off.
        pixel_aspect: width of a pixel over its height, None if it is not said.
    """

    FORMAT: ClassVar[str] = "yuv420p"  # what all players take
    RANGE: ClassVar[int] = 1  # of values: 16 to 235, FFmpeg's "tv"

    def __init__(self, first: Any, stream: Any) -> None:
        _, is_transposed = _turns(first)
        sides = (first.height, first.width) if is_transposed else (first.width, first.height)
        self.width, self.height = (max(side // 2 * 2, 2) for side in sides)
        aspect = stream.sample_aspect_ratio
        self.pixel_aspect: Fraction | None = (1 / aspect if is_transposed else aspect) if aspect else None
        self._made_for: tuple[Any, ...] | None = None
        self._graph: Any = None

    def of(self, frame: Any, pts: int, unit: Fraction) -> Any:
        """The frame, made ready, to be shown at `pts` units of seconds."""
        turns, _ = _turns(frame)
        kind = frame.width, frame.height, frame.format.name, *turns
        if kind != self._made_for:
            self._made_for, self._graph = kind, self._filters(frame, turns, unit)
        self._graph.push(frame)
        made = self._graph.pull()
        made.pts, made.time_base = pts, unit
        return made

    def _filters(self, frame: Any, turns: tuple[str, ...], unit: Fraction) -> Any:
        graph = av.filter.Graph()
        size = {"width": frame.width, "height": frame.height}
        chained = [graph.add_buffer(format=frame.format.name, time_base=unit, **size)]
        chained += [graph.add(*turn.split("=")) for turn in turns]
        chained.append(graph.add("crop", "trunc(iw/2)*2:trunc(ih/2)*2:0:0"))
        chained.append(graph.add("scale", f"{self.width}:{self.height}:out_range=tv"))
        chained += [graph.add("format", self.FORMAT), graph.add("buffersink")]
        for one, following in pairwise(chained):
            one.link_to(following)
        graph.configure()
        return graph


def _turns(frame: Any) -> tuple[tuple[str, ...], bool]:
    """The filters that turn a frame as the file asks, and whether width and height are exchanged."""
    matrix = display_matrix(frame)
    if matrix is None:
        return (), False
    is_transposed = bool(matrix[0, 0] == 0)
    to_right, to_bottom = matrix.sum(0)  # of the one thing that decides each axis: its direction
    asked = ("transpose=cclock_flip", is_transposed), ("hflip", to_right < 0), ("vflip", to_bottom < 0)
    return tuple(name for name, is_asked in asked if is_asked), is_transposed
