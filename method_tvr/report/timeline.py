"""A video's duration as a picture: where spans lie in it, and where one may start and end.

`Timeline` says what is drawn where, for the picture of a run, for the report and for the page; the latter two have it
as HTML with inline SVG, whose looks their style sheets choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from method_tvr.report.rendering import render
from standalone_eval.ground_truth import Span

ANNOTATED, RIGHT, WRONG, PREDICTED = "annotated", "right", "wrong", "predicted"  # kinds of spans
NARROWEST = 0.6  # % of the duration, so that a short span can be seen
CURVES_WIDTH = 1000  # units of a picture that is stretched to the width there is
CURVES_HEIGHT = 34  # pixels


@dataclass(frozen=True)
class Lane:
    """Spans that are shown in one line.

    Attributes:
        kind: `ANNOTATED`; `RIGHT` or `WRONG`, which are shown before the annotated ones; `PREDICTED`, nobody knows how
            well.
        titles: what each is called when it is pointed at; none: nothing.
    """

    name: str
    kind: str
    spans: Sequence[Span]
    titles: Sequence[str] = ()


@dataclass(frozen=True)
class BoundaryCurve:
    """Where a moment may `start` or `end`, which is the name: (L,) seconds, and its probability at each."""

    name: str
    seconds: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class Timeline:
    """Lanes one below the other over a video, and curves above them.

    Attributes:
        duration: of the video, in seconds.
        curves: each is drawn to its own highest value in HTML.
        ticks: texts below, evenly spaced from the start to the end.
        in_words: what all of it shows.
    """

    duration: float
    lanes: Sequence[Lane]
    curves: Sequence[BoundaryCurve] = ()
    ticks: Sequence[str] = ()
    in_words: str = ""

    @property
    def annotated(self) -> list[Span]:
        """The annotated spans."""
        return [span for lane in self.lanes if lane.kind == ANNOTATED for span in lane.spans]

    def place(self, span: Span) -> tuple[float, float]:
        """Where a span is drawn: its left side and its width, in % of the duration."""
        left, right = (100 * min(max(second / self.duration, 0.0), 1.0) for second in span)
        width = max(right - left, NARROWEST)
        return min(left, 100 - width), width

    def points(self, curve: BoundaryCurve) -> str:
        """Points of a polyline, `CURVES_WIDTH` wide and `CURVES_HEIGHT` high."""
        x = np.minimum(curve.seconds / self.duration, 1) * CURVES_WIDTH
        y = CURVES_HEIGHT - 1 - (CURVES_HEIGHT - 3) * curve.p / max(float(curve.p.max()), 1e-9)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))

    def html(self) -> Markup:
        """A `div`; nothing in it refers to anything else."""
        return render("timeline.html.j2", timeline=self, width=CURVES_WIDTH, height=CURVES_HEIGHT)
