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
    """Spans, in seconds, that are shown in one line; `titles` say what each is called when it is pointed at.

    Their kind is `ANNOTATED`; `RIGHT` or `WRONG`, shown before the annotated ones; `PREDICTED`, nobody knows how well.
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
    """Lanes one below the other over a video of a duration in seconds, and curves above them.

    In HTML each curve is drawn to its own highest value; `ticks` are texts below, evenly spaced from start to end.
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
