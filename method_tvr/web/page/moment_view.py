"""Moments as they are looked at: cards to choose from, and the chosen one with its video and its subtitles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from method_tvr.ask.moments import Moment, clock, shares_of_best
from method_tvr.report.timeline import ANNOTATED, PREDICTED, BoundaryCurve, Lane, Timeline
from method_tvr.search.answering import SpanCurves
from method_tvr.web.media import MediaFiles
from method_tvr.web.page.rendering import render
from method_tvr.web.pictures.thumbnails import thumbnail_url
from method_tvr.web.saving.cuts import clip_url
from standalone_eval.ground_truth import Span

AROUND = 3.0  # seconds before and after a moment whose subtitles are shown, dimmed
MODALITY_NAMES = {"video": "what is seen", "sub": "what is said"}


@dataclass(frozen=True)
class ShownMoment:
    """A moment to look at.

    Attributes:
        rank: from 1, or another name for it.
        moment: as it was found, or annotated; without a score then.
        duration: of the video, in seconds.
        truth: annotated moments in this video, if the sentence is an annotated query of it.
        curves: start and end probabilities over the video.
    """

    rank: str
    moment: Moment
    duration: float
    truth: Sequence[Span] = ()
    curves: SpanCurves | None = None

    @property
    def picture(self) -> Markup:
        """Its timeline."""
        moment, lanes = self.moment, []
        if moment.score is not None:
            lanes.append(_lane("found", PREDICTED, [(moment.start, moment.end)]))
        if self.truth:
            lanes.append(_lane("annotated", ANNOTATED, self.truth))
        shown = [f"{lane.name}: {', '.join(lane.titles)}" for lane in lanes]
        in_words = "; ".join([*shown, f"of {clock(self.duration)}"])
        ticks = [clock(self.duration * share) for share in (0, 0.5, 1)]
        return Timeline(self.duration, lanes, boundary_curves(self.curves), ticks, in_words).html()


def _lane(name: str, kind: str, spans: Sequence[Span]) -> Lane:
    return Lane(name, kind, spans, [f"{clock(start)} to {clock(end)}" for start, end in spans])


def boundary_curves(curves: SpanCurves | None) -> list[BoundaryCurve]:
    """Where a moment may start and end in a video, if that is known."""
    if curves is None:
        return []
    clips = np.arange(len(curves.p_start))
    return [
        BoundaryCurve("start", clips * curves.clip_length, curves.p_start),
        BoundaryCurve("end", (clips + curves.end_offset) * curves.clip_length, curves.p_end),
    ]


class MomentView:
    """Shows moments, with {vid_name: subtitle lines {"text", "start", "end"}}, and videos where there are files."""

    def __init__(self, subtitles: Mapping[str, Sequence[Mapping[str, Any]]], media: MediaFiles) -> None:
        self._subtitles, self._media = subtitles, media

    def cards(self, shown: Sequence[ShownMoment], list_url: str | None = None) -> str:
        """All of them, to choose from; the first one is chosen. `list_url`: where they are to be saved from."""
        shares = shares_of_best([one.moment.score or 0.0 for one in shown])
        thumbnails = [thumbnail_url(self._media, one.moment) for one in shown]
        return render("moments.html.j2", shown=shown, shares=shares, thumbnails=thumbnails, list_url=list_url)

    def details(self, shown: ShownMoment, play: bool) -> str:
        """One moment: its video from where it starts (by itself: `play`), its score's parts, and what is said in it."""
        moment = shown.moment
        start, end = moment.start, moment.end
        lines = [
            (line, line["end"] > start and line["start"] < end)
            for line in self._subtitles.get(moment.vid_name, ())
            if line["end"] > start - AROUND and line["start"] < end + AROUND
        ]
        playable = moment.vid_name in self._media
        clock_start = self._media.clock_start(moment.vid_name)
        fragment = f"#t={start + clock_start:.2f},{end + clock_start:.2f}"
        return render(
            "details.html.j2",
            shown=shown,
            moment=moment,
            lines=lines,
            has_subtitles=bool(self._subtitles),
            url=f"/media/{quote(moment.vid_name, safe='')}{fragment}" if playable else None,
            clock_start=clock_start,
            clip_url=clip_url(self._media, moment),
            why_not=self._media.why_not(moment.vid_name),
            play=play,
            names=MODALITY_NAMES,
        )
