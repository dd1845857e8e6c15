"""From seconds to clips and back: how long a clip is, and which clips a moment is labelled with.

Two things differ between datasets. A clip lasts a fixed time, as in TVR, or a share of its video (`auto`), where videos
come as rows of features spread evenly over them. And a moment's last clip is labelled in one of three ways:

* `floor_ceil` (TVR): the clip that the start lies in, and the clip *after* the end; a predicted span (i, j) means
  i to j clip lengths. The last clip is the limit, so that no span reaches the end of its video.
* `ceil_inside` (XML): the same clips, but both are inside a predicted span: (i, j) means i to j + 1 clip lengths. So
  ends are predicted a clip late, as published; `floor_ceil` mends that.
* `best_iou`: the first and last clip of the run of clips that fits the moment best; (i, j) means i to j + 1 clip
  lengths. Spans may be a single clip, or the whole video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

AUTO = "auto"  # as --clip_length: each video's own
# what becomes of videos of more clips than a model takes; windows are for searching alone
AVERAGE, CUT, WINDOWS = LONG_VIDEOS = ("average", "cut", "windows")
FLOOR_CEIL, BEST_IOU, CEIL_INSIDE = LABEL_RULES = ("floor_ceil", "best_iou", "ceil_inside")


@dataclass(frozen=True)
class ClipTimes:
    """The clips of a run's videos, in seconds."""

    clip_length: float | str = (
        1.5  # or `AUTO`: a video's duration divided by its number of clips, as the model sees them
    )
    label_rule: str = FLOOR_CEIL  # one of `LABEL_RULES`

    @property
    def is_auto(self) -> bool:
        return self.clip_length == AUTO

    @property
    def end_offset(self) -> int:
        """Clips from the start of a span's last clip to the boundary where the span ends."""
        return int(self.label_rule != FLOOR_CEIL)

    def seconds_per_clip(self, duration: float | None, n_clips: int) -> float:
        """How long a clip is in a video of so many seconds and clips; seconds only matter where lengths are `AUTO`."""
        if not isinstance(self.clip_length, str):
            return self.clip_length
        if duration is None:
            raise ValueError("the length of a clip follows from the duration of its video, which is not known")
        return duration / n_clips

    def label(self, ts: tuple[float, float], duration: float | None, n_clips: int) -> tuple[int, int]:
        """The clips that the start and end predictors are to point at for a moment `ts`, both below `n_clips`."""
        seconds = self.seconds_per_clip(duration, n_clips)
        start, end = ts[0] / seconds, ts[1] / seconds
        if self.label_rule == BEST_IOU:
            return _best_run(start, end, n_clips)
        return min(math.floor(start), n_clips - 1), min(math.ceil(end), n_clips - 1)

    def band(self, min_pred_l: int, max_pred_l: int) -> tuple[int, int]:
        """Limits on (last clip - first clip) of predicted spans whose length in clips is min <= length < max.

        By XML's rule the limits are on that difference itself.
        """
        shift = int(self.label_rule == BEST_IOU)
        return max(min_pred_l - shift, 0), max_pred_l - shift

    def seconds(self, spans: np.ndarray, duration: float | None, n_clips: int) -> np.ndarray:
        """(…, 2) predicted first and last clips of one video -> (…, 2) seconds."""
        return (spans + np.array([0, self.end_offset])) * self.seconds_per_clip(duration, n_clips)


def _best_run(start: float, end: float, n_clips: int) -> tuple[int, int]:
    """First and last of the clips that together have the best IoU with [start, end], all in clips.

    A run that begins or ends elsewhere than at a clip boundary next to the moment's own loses on that side. Of several
    that fit equally well, the one that covers more of the moment is taken.
    """
    starts = {min(edge, n_clips - 1) for edge in (math.floor(start), math.ceil(start))}
    ends = {min(max(edge, 1), n_clips) for edge in (math.floor(end), math.ceil(end))}
    runs = [(st, max(ed, st + 1)) for st in starts for ed in ends]

    def fit(run: tuple[int, int]) -> tuple[float, float]:
        shared = max(min(end, run[1]) - max(start, run[0]), 0.0)
        return round(shared / (max(end, run[1]) - min(start, run[0])), 12), shared

    st, ed = max(runs, key=fit)
    return st, ed - 1
