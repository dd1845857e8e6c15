"""Moments as they are found for a sentence, and how they are shown: a table for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from standalone_eval.files.terminal import printable
from utils.tables import aligned

QUERY, QUERY_IMAGE = "query", "query_image"  # keys of JSON answers: a sentence, a picture
MAX_SHOWN = 100  # characters of a sentence or of a video's name


@dataclass(frozen=True)
class Moment:
    """A moment, and where it was asked for what its score is made of."""

    vid_name: str
    start: float  # seconds
    end: float
    score: float | None = None  # exp(q2c_alpha * mean of `match`) * `p_start` * `p_end`; None where nobody scored it
    match: Mapping[str, float] | None = None  # {modality: cosine of the sentence and the video's clip most like it}
    p_start: float | None = None  # probability that a moment for the sentence starts there, if it is in this video
    p_end: float | None = None  # and that it ends there

    def as_json(self) -> dict[str, Any]:
        """The fields that are known, for a JSON object."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Answer(list[Moment]):
    """The moments that were found for what was asked, best first.

    Attributes:
        proved: whether it is certain that an exact search finds the same; None where no index stood between.
    """

    def __init__(self, moments: Iterable[Moment] = (), proved: bool | None = None) -> None:
        super().__init__(moments)
        self.proved = proved

    def first(self, n: int) -> Answer:
        """The best `n`, or fewer."""
        return Answer(self[:n], self.proved)


def answer_json(asked: str, answer: Answer, key: str = QUERY) -> dict[str, Any]:
    """What was asked, of the kind that `key` says, and its answer, for a JSON object."""
    proved = {} if answer.proved is None else {"proved": answer.proved}
    return {key: asked, **proved, "moments": [moment.as_json() for moment in answer]}


def shares_of_best(scores: Sequence[float]) -> list[float | None]:
    """Scores as shares of the best; None of negative ones, such as logarithms, and where none is above 0."""
    best = max(scores, default=0.0)
    return [score / best if best > 0 and score >= 0 else None for score in scores]


def percent(share: float | None) -> str:
    """A share for people: of what is there at all never 0 %, and of less than all never 100 %."""
    if share is None:
        return "–"
    return "<1 %" if 0 < share < 0.01 else f"{int(100 * share)} %"


def moments_table(moments: Sequence[Moment], with_scores: bool = False) -> str:
    """Scored moments as lines of text: times, share of the best score, and what it is made of, where that is known."""
    if not moments:
        return "  no video is long enough for a moment"
    modalities = list(moments[0].match or ())
    parts = [*(f"{m} match" for m in modalities), "p(start)", "p(end)"] if modalities else []
    rows = [["rank", "video", "start", "end", "of best", *(["score"] if with_scores else []), *parts]]
    shares = shares_of_best([moment.score or 0.0 for moment in moments])
    for rank, (moment, share) in enumerate(zip(moments, shares, strict=True), start=1):
        row = [str(rank), shortened(moment.vid_name), clock(moment.start), clock(moment.end), percent(share)]
        row += [f"{moment.score:.4g}"] if with_scores else []
        if moment.match is not None:
            row += [f"{value:.3f}" for value in (*moment.match.values(), moment.p_start, moment.p_end)]
        rows.append(row)
    return aligned(rows)


def show_any_language() -> None:
    """Have letters that a terminal cannot show printed by their numbers."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def shortened(text: str) -> str:
    """Text in one line, `printable` and of bearable length."""
    shown = printable(" ".join(text.split()))
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 1]}…"


def clock(seconds: float) -> str:
    """`mm:ss`, and `hh:mm:ss` from an hour on; the second that a time lies in."""
    minutes, second = divmod(int(seconds + 1e-6), 60)  # 1e-6: seconds are products of clips, which may be rounded
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"
