"""A video's duration as a picture: where moments lie in it, and where one may start and end. Inline SVG, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from method_tvr.search.answering import SpanCurves
from method_tvr.web.page.rendering import render
from standalone_eval.ground_truth import Span

WIDTH = 1000  # units of the picture, which is stretched to the width there is
CURVE_HEIGHT = 34  # pixels, as are all heights
TRUTH, FOUND = "truth", "found"


@dataclass(frozen=True)
class Lane:
    """Spans that are shown in one line.

    Attributes:
        name: what they are, to be read.
        kind: `TRUTH` or `FOUND`.
        spans: starts and ends in seconds.
    """

    name: str
    kind: str
    spans: Sequence[Span]


def timeline(duration: float, lanes: Sequence[Lane], curves: SpanCurves | None = None) -> Markup:
    """Lanes one below the other over a video, and the curves above them.

    Args:
        duration: of the video, in seconds.
        lanes: what to show.
        curves: start and end probabilities over its clips; each is drawn to its own highest value.
    """
    return render(
        "timeline.html.j2",
        width=WIDTH,
        height=CURVE_HEIGHT,
        duration=duration,
        lanes=lanes,
        scale=WIDTH / duration,
        lines=[] if curves is None else _lines(curves, duration),
    )


def _lines(curves: SpanCurves, duration: float) -> list[tuple[str, str, float]]:
    """(name, points of a polyline, highest value) of the two curves."""
    lines = []
    for name, values, offset in (("start", curves.p_start, 0), ("end", curves.p_end, curves.end_offset)):
        x = np.minimum((np.arange(len(values)) + offset) * curves.clip_length / duration, 1) * WIDTH
        y = CURVE_HEIGHT - 1 - (CURVE_HEIGHT - 3) * values / max(float(values.max()), 1e-9)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
        lines.append((name, points, float(values.max())))
    return lines
