"""A searcher that needs no model, for tests of what stands between it and its users."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from method_tvr.ask.moments import Answer, Moment
from method_tvr.ask.questions import QuestionError, check_asked
from method_tvr.dataset.annotations import Video
from method_tvr.search.answering import SpanCurves

REASON = "gradio, fastapi or fastapi-offline are not installed (method_tvr/web/requirements.txt)"
VIDEOS = [
    Video("friends_s01e01_clip_01", 60.5, 0),
    Video("friends_s01e02_clip_07", 61.0, 1),
    Video("house_one", 9.0, 2),
]
NO_WORDS, BROKEN = "…", "break"


def moments_for(sentence: str, top_k: int, video: str | None = None, show: str | None = None) -> Answer:
    """What `StubSearcher` finds: moments that tell what was asked."""
    name = f"{sentence} in {video or show}"
    return Answer(Moment(name, rank, rank + 1.5, 9.0 - rank, {"video": 0.25}, 0.5, 0.75) for rank in range(top_k))


@dataclass
class StubSearcher:
    """Finds anything at once, unless its gate is closed; refuses `NO_WORDS`, fails for `BROKEN`.

    Attributes:
        compares_pictures: then a file of digits is a picture, and n_encoded counts those that were looked at.
        proved: of all answers.
        calls, nms_thds: what each search was asked.
        gate: searches wait until it is set.
        entered: set when a search has begun.
    """

    videos: list[Video] = field(default_factory=lambda: list(VIDEOS))
    compares_pictures: bool = False
    proved: bool | None = None
    n_encoded: int = 0
    calls: list[tuple[list[str], int, str | None, str | None]] = field(default_factory=list)
    nms_thds: list[float | None] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def search(
        self,
        sentences: list[str],
        top_k: int,
        video: str | None = None,
        show: str | None = None,
        nms_thd: float | None = None,
    ) -> list[Answer]:
        self.nms_thds.append(nms_thd)
        self.calls.append((list(sentences), top_k, video, show))
        self.entered.set()
        assert self.gate.wait(30)
        if NO_WORDS in sentences:
            raise QuestionError(f"{NO_WORDS!r} has no words that can be looked for: ask something else")
        if BROKEN in sentences:
            raise RuntimeError("/secret/place: the corpus is gone")
        return [Answer(moments_for(sentence, top_k, video, show), self.proved) for sentence in sentences]

    def search_pictures(self, pictures: list[np.ndarray], *where: Any) -> list[Answer]:
        return self.search([f"picture {int(rows[0, 0])}" for rows in pictures], *where)

    def of_picture(self, content: bytes) -> np.ndarray:
        self.n_encoded += 1
        if not content.isdigit():
            raise QuestionError("the picture: is none that can be read")
        return np.array([[float(content)], [0.0]])

    def curves(self, asked: str | np.ndarray, vid_names: Sequence[str]) -> list[SpanCurves]:
        check_asked([asked] if isinstance(asked, str) else [])
        known = {video.vid_name for video in self.videos}
        if not known.issuperset(vid_names):
            raise QuestionError(f"there is no video {vid_names}")
        return [SpanCurves(np.full(6, 0.1), np.full(6, 0.1), 1.5, 1) for _ in vid_names]
