"""What became of each query: at which rank it was answered, and how well the first prediction fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .aligned import Aligned
from .check import MAX_PRED
from .metrics import Rule, first_right_ranks, hits_of_ranks, is_hit, moment_iou, recalls


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of Nq queries in one task, in the order of the annotations.

    Attributes:
        ranks: {"{iou_thd}-": (Nq,) int64}, for VR {"": (Nq,)}: the rank, from 1, of each query's first prediction that
            is right by `metrics.right_moments`; 0 where none is.
        video_rank: (Nq,) int64, the rank of the first prediction in the right video, whatever its moment; 0 where none
            is. In VR the same as `ranks`, in SVMR 1 or 0.
        first_iou: (Nq,) float32, IoU of the first prediction with the annotated moment that it agrees with best; 0
            where it is in another video or there is none. In SVMR the first prediction is the first in the right video.
            NaN in VR, which has no moments.
    """

    task: str
    ranks: Mapping[str, npt.NDArray[np.int64]]
    video_rank: npt.NDArray[np.int64]
    first_iou: npt.NDArray[np.float32]

    @classmethod
    def of(cls, aligned: Aligned, task: str, rule: Rule, max_pred: int = MAX_PRED) -> Outcomes:
        """The outcomes of one of a submission's tasks, of the first `max_pred` predictions of each query."""
        rows, video_idx, spans = aligned.rows(task, max_pred), aligned.video_idx, aligned.truth.spans
        ranks = first_right_ranks(task, rows, video_idx, spans, rule)
        if task == "VR":
            return cls(task, ranks, ranks[""], np.full(len(rows), np.nan, dtype=np.float32))
        in_video = first_right_ranks("VR", rows, video_idx, spans, rule)[""]
        if task == "SVMR":  # predictions on other videos have no rank
            first = np.maximum(in_video, 1) - 1
            in_video = np.minimum(in_video, 1)
        else:
            first = np.zeros_like(in_video)
        spans_of_first = np.take_along_axis(rows[..., 1:3], first[:, None, None], axis=1)  # (Nq, 1, 2)
        best_iou = np.fmax.reduce(moment_iou(spans_of_first, spans), axis=1)  # fmax passes over padding
        return cls(task, ranks, in_video, np.where(in_video == 1, best_iou, np.float32(0)))

    def rank(self, iou_thd: float | None = None) -> npt.NDArray[np.int64]:
        """(Nq,) int64: `ranks` at one of the rule's thresholds; in VR the threshold is not looked at."""
        return self.ranks["" if self.task == "VR" else f"{iou_thd}-"]

    def hits(self, k: int, iou_thd: float | None = None) -> npt.NDArray[np.bool_]:
        """(Nq,) bool: which queries have a right prediction among their first k."""
        return is_hit(self.rank(iou_thd), k)

    def hits_at_k(self, rule: Rule) -> dict[str, npt.NDArray[np.bool_]]:
        """What `metrics.hits_at_k` returns, for thresholds among those that the ranks were computed at."""
        names = [""] if self.task == "VR" else [f"{iou_thd}-" for iou_thd in rule.iou_thds]
        return hits_of_ranks({name: self.ranks[name] for name in names}, rule.ks)

    def recalls(self, rule: Rule) -> dict[str, float]:
        """The task's metrics, as `eval.eval_retrieval` has them."""
        return recalls(self.hits_at_k(rule))


def all_outcomes(aligned: Aligned, rule: Rule, max_pred: int = MAX_PRED) -> dict[str, Outcomes]:
    """{task: its outcomes}, of all tasks that a submission has; see `Outcomes.of`."""
    return {task: Outcomes.of(aligned, task, rule, max_pred) for task in aligned.predictions}
