"""What became of each query: at which rank it was answered, and how well the first prediction fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .aligned import Aligned, cannot_evaluate
from .average_precision import windows_in_video
from .check import Annotations, check_by_piece, refuse_errors
from .checking.tasks import MAX_PRED, Taker
from .findings import Findings
from .ground_truth import GroundTruth, read_ground_truth
from .metrics import Rule, first_right_ranks, hits_of_ranks, is_hit, moment_iou, recalls
from .submission import TASKS, TaskPredictions


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
        return cls.of_rows(task, aligned.rows(task, max_pred), aligned.video_idx, aligned.truth.spans, rule)

    @classmethod
    def of_rows(
        cls,
        task: str,
        rows: npt.NDArray[np.float64],
        video_idx: npt.NDArray[np.float64],
        spans: npt.NDArray[np.float64],
        rule: Rule,
    ) -> Outcomes:
        """The outcomes of any queries; for the arguments see `metrics.first_right_ranks`. K is at least 1."""
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


def read_outcomes(
    path: str, annotations: Annotations, rule: Rule, max_pred: int = MAX_PRED, n_windows: int = 0, first: bool = True
) -> CollectedOutcomes:
    """The outcomes of a submission's tasks, whose file need not fit into memory.

    Args:
        path: the file; what is wrong with it is printed, and errors raise `BadInput`.
        annotations: of its queries, with answers.
        rule: what counts as right.
        max_pred: predictions of a query that are looked at.
        n_windows: how many windows of SVMR are kept.
        first: whether what is to be said of the annotations is said.
    """
    asked = annotations.asked
    collected = CollectedOutcomes(asked.truth, rule, max_pred, n_windows) if asked.truth else None
    new_taker = collected.new_taker if collected else None
    findings = check_by_piece(path, annotations, rule=rule if first else None, new_taker=new_taker)
    refuse_errors(findings, path)
    if collected is None:
        findings = Findings()
        read_ground_truth(annotations.rows, findings)
        raise cannot_evaluate(findings)
    return collected


@dataclass
class CollectedOutcomes:
    """The outcomes of a submission's tasks, filled in while it is read: of each row no more is kept.

    Attributes:
        truth: the annotated queries.
        rule, max_pred: as in `Outcomes.of`.
        n_windows: how many predictions of each query are kept in `windows`.
        windows: {task: (Nq, n_windows, 3)}, for SVMR; see `windows_in_video`.
    """

    truth: GroundTruth
    rule: Rule
    max_pred: int = MAX_PRED
    n_windows: int = 0
    windows: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._place = {desc_id: number for number, desc_id in enumerate(self.truth.desc_ids)}
        self._by_task: dict[str, Outcomes] = {}

    def new_taker(self, task: str, video2idx: Mapping[str, int]) -> Taker:
        """What takes the predictions of a task; the task is begun anew."""
        n, width = len(self.truth.desc_ids), min(self.n_windows, self.max_pred)
        names = [""] if task == "VR" else [f"{iou_thd}-" for iou_thd in self.rule.iou_thds]
        outcomes = Outcomes(
            task, {name: np.zeros(n, np.int64) for name in names}, np.zeros(n, np.int64), np.zeros(n, np.float32)
        )
        self._by_task[task] = outcomes
        if task == "SVMR" and width:
            self.windows[task] = np.full((n, width, 3), np.nan)
        video_idx = np.array([video2idx.get(name, np.nan) for name in self.truth.vid_names], dtype=np.float64)
        return lambda predictions: self._take(outcomes, video_idx, predictions)

    def _take(self, outcomes: Outcomes, video_idx: npt.NDArray[np.float64], predictions: TaskPredictions) -> None:
        place = np.array([self._place.get(desc_id, -1) for desc_id in predictions.desc_ids], dtype=np.int64)
        asked = place >= 0
        place, longest = place[asked], int(predictions.counts.max(initial=1))
        rows, video_idx = predictions.first(min(self.max_pred, longest))[asked], video_idx[place]
        new = Outcomes.of_rows(outcomes.task, rows, video_idx, self.truth.spans[place], self.rule)
        for name, ranks in new.ranks.items():
            outcomes.ranks[name][place] = ranks
        outcomes.video_rank[place], outcomes.first_iou[place] = new.video_rank, new.first_iou
        if outcomes.task in self.windows:
            windows = windows_in_video(rows, video_idx, self.n_windows)
            self.windows[outcomes.task][place, : windows.shape[1]] = windows

    def by_task(self) -> dict[str, Outcomes]:
        """{task: its outcomes}, of all tasks that the submission has."""
        return {task: self._by_task[task] for task in TASKS if task in self._by_task}
