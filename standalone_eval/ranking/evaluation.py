"""NDCG of a prediction file's VCMR rows against graded moments: checked, computed, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..check import read_submission, refuse_errors
from ..files.forms import PREDICTIONS, RANKED
from ..files.reading import form_of_file, parse_json, read_json, read_text, refuse_others
from ..findings import Findings, shorten
from .ndcg import IOU_THDS, KS, RankedTruth, ndcg_of_queries
from .truth import read_ranked_truth

TASK = "VCMR"  # whose rows are ranked moments


@dataclass(frozen=True)
class RankedResults:
    """NDCG of Nq queries, by their query_ids.

    Attributes:
        by_query: {"{iou_thd}-n{k}": (Nq,)} fractions.
        irrelevant: (Nq,) bool, queries no moment of which is relevant; they count 0.
        left_out: how many queries have no predictions and do not count.
    """

    query_ids: list[int]
    by_query: dict[str, npt.NDArray[np.float64]]
    irrelevant: npt.NDArray[np.bool_]
    left_out: int

    def means(self) -> dict[str, float]:
        """{"{iou_thd}-n{k}": the mean over queries}, fractions, unrounded."""
        return {name: float(values.mean()) for name, values in self.by_query.items()}


@dataclass(frozen=True)
class RankedAnswers:
    """What was predicted for the Nq queries that count.

    Attributes:
        truth: their graded moments.
        rows: (Nq, P, 4) float64, [video, st, ed, score] best first, NaN after a query's last one.
        left_out: how many queries have no predictions and do not count.
    """

    truth: RankedTruth
    rows: npt.NDArray[np.float64]
    left_out: int

    def results(self, iou_thds: Sequence[float] = IOU_THDS, ks: Sequence[int] = KS) -> RankedResults:
        """Their NDCG."""
        by_query = ndcg_of_queries(self.truth, self.rows, iou_thds, ks)
        irrelevant = self.truth.relevance.sum(axis=1) == 0
        return RankedResults(self.truth.query_ids, by_query, irrelevant, self.left_out)


def align_ranking(
    submission: Any, ground_truth: Any, findings: Findings, all_queries: bool = False
) -> RankedAnswers | None:
    """The VCMR rows of a submission beside graded moments, both as loaded from JSON; None after noting what is wrong.

    A query without an entry among the predictions does not count, as published; with `all_queries` it counts 0. One
    with an empty list counts 0 in any case.
    """
    video2idx, predictions = read_submission(submission, None, findings, (TASK,))
    truth = read_ranked_truth(ground_truth, video2idx, findings)
    if truth is None or findings.errors:
        return None
    answers = predictions[TASK]
    asked = set(truth.query_ids)
    findings.error(
        f"{TASK}: desc_id is no query_id of the ground truth (of another split?)",
        [shorten(desc_id) for desc_id in answers.desc_ids if desc_id not in asked],
    )
    if findings.errors:
        return None
    answered = np.isin(truth.query_ids, answers.desc_ids)
    if not answered.any() and not all_queries:
        findings.error(f"{TASK}: has no query of the ground truth")
        return None
    counted = truth if all_queries else truth.some(answered)
    rows = _rows(counted, answers.desc_ids, np.split(answers.rows, answers.starts[1:]))
    return RankedAnswers(counted, rows, len(truth.query_ids) - len(counted.query_ids))


def ranked_truth(path: str) -> Any:
    """The document of graded moments in a file, None where it holds something else."""
    return parse_json(read_text(path), path) if form_of_file(path) is RANKED else None


def ranking_of_file(path: str, ground_truth: Any, all_queries: bool = False) -> RankedAnswers:
    """`align_ranking` of a prediction file; what is wrong is printed, and raises `BadInput`."""
    submission, findings = read_json(path), Findings()
    refuse_others(submission, PREDICTIONS, path)
    answers = align_ranking(submission, ground_truth, findings, all_queries)
    refuse_errors(findings, path)
    assert answers is not None
    return answers


def _rows(
    truth: RankedTruth, desc_ids: Sequence[int], lists: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """(Nq, P, 4) predictions in the order of the ground truth, NaN after a query's last one."""
    of_id = dict(zip(desc_ids, lists, strict=True))
    rows = np.full((len(truth.query_ids), max(map(len, lists), default=0), 4), np.nan)
    for number, query_id in enumerate(truth.query_ids):
        found = of_id.get(query_id)
        if found is not None:
            rows[number, : len(found)] = found
    return rows


def ranking_table(means: Mapping[str, float]) -> str:
    """NDCG as lines of text: a row for each IoU, a column for each k."""
    names = [name.rpartition("-n") for name in means]
    thds, ks = list(dict.fromkeys(thd for thd, _, _ in names)), sorted({int(k) for _, _, k in names})
    lines = [f"{'':12}" + "".join(f"{f'NDCG@{k}':>10}" for k in ks)]
    for thd in thds:
        lines.append(f"{f'IoU > {thd}':12}" + "".join(f"{means[f'{thd}-n{k}']:10.4f}" for k in ks))
    return "\n".join(lines)


def about_queries(results: RankedResults) -> list[str]:
    """What is to be known of the queries that a mean is over."""
    notes = []
    if results.left_out:
        notes.append(f"{results.left_out} queries have no predictions and do not count, as published (--all_queries)")
    if results.irrelevant.any() and not results.irrelevant.all():
        name, values = list(results.by_query.items())[-1]
        n, without = int(results.irrelevant.sum()), float(values[~results.irrelevant].mean())
        notes.append(
            f"{n} queries have no relevant moment and count 0, as published; without them {name} is {without:.4f}"
        )
    return notes
