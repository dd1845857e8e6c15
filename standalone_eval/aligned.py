"""A submission beside the annotations it belongs to: the predictions of each query in the annotations' order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .check import MAX_PRED, read_submission
from .files.command import BadInput
from .files.forms import ANNOTATIONS, PREDICTIONS
from .files.reading import refuse_others
from .findings import Findings
from .ground_truth import GroundTruth, read_ground_truth
from .submission import TaskPredictions


@dataclass(frozen=True)
class Aligned:
    """Nq queries, what is right for each, and what was predicted.

    Attributes:
        truth: the annotated queries.
        name_of: {video_idx: vid_name} of the submission.
        video_idx: (Nq,) float64, the right video of each query.
        predictions: {task: its predictions}, of the tasks that the submission has, in the order VCMR, SVMR, VR.
    """

    truth: GroundTruth
    name_of: dict[int, str]
    video_idx: npt.NDArray[np.float64]
    predictions: dict[str, TaskPredictions]

    def rows(self, task: str, max_pred: int = MAX_PRED) -> npt.NDArray[np.float64]:
        """(Nq, max_pred, 4) float64, [video_idx, st, ed, score] best first, NaN after a query's last prediction."""
        return self.predictions[task].padded(self.truth.desc_ids, max_pred)

    def have_rank(self, task: str, rows: npt.NDArray[np.float64], number: int) -> npt.NDArray[np.bool_]:
        """(K,) bool: which rows (K, 4) of the query with this number have a rank: in SVMR those in its own video."""
        return rows[:, 0] == self.video_idx[number] if task == "SVMR" else ~np.isnan(rows[:, 0])


def align(submission: Any, ground_truth: Sequence[dict[str, Any]]) -> Aligned:
    """Check a submission and the annotations, and bring the one into the order of the other.

    Args:
        submission: what its JSON file holds.
        ground_truth: the annotations' rows, with answers; the queries must be exactly the submission's.

    Raises:
        BadInput: one of them is malformed, or they do not fit; the message lists how.
    """
    refuse_others(ground_truth, ANNOTATIONS, "ground truth")
    refuse_others(submission, PREDICTIONS, "submission")
    findings = Findings()
    truth = read_ground_truth(ground_truth, findings)
    desc_ids, vid_names = (truth.desc_ids, truth.vid_names) if truth else (None, ())
    video2idx, predictions = read_submission(submission, desc_ids, findings, vid_names=vid_names)
    if findings.errors or truth is None:
        raise cannot_evaluate(findings)
    video_idx = np.array([video2idx[name] for name in truth.vid_names], dtype=np.float64)
    return Aligned(truth, {idx: name for name, idx in video2idx.items()}, video_idx, predictions)


def cannot_evaluate(findings: Findings) -> BadInput:
    """What is to be raised for a submission and annotations with these errors."""
    return BadInput("\n".join([f"cannot evaluate: {findings.summary()}", *findings.lines()]))
