"""Queries with graded moments (TVR-Ranking), and the grades that a prediction file has got for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.report.ranked.outcomes import RankedOutcomes
from method_tvr.web.outcomes.split_outcomes import Cell, NamedMoment, SplitOutcomes, Summary
from standalone_eval.ground_truth import Span
from standalone_eval.ranking.ndcg import IOU_THDS, KS, SHOWN_IOU, SHOWN_K

N_TRUTH = 5  # annotated moments of a query that are shown


class GradedOutcomes(SplitOutcomes):
    """Outcomes by NDCG; right is what has got a grade above 0."""

    def __init__(self, ranked: RankedOutcomes) -> None:
        self._ranked, truth = ranked, ranked.answers.truth
        named = [" ".join({truth.name_of[int(idx)] for idx in row[~np.isnan(row)]}) for row in truth.video]
        super().__init__(ranked.sentences, named)
        self.desc_ids, self.iou_thds = truth.query_ids, list(IOU_THDS)
        figure = f"NDCG@{SHOWN_K}, IoU over {SHOWN_IOU:g}"
        ranks = [f"First relevant rank, IoU over {iou_thd:g}" for iou_thd in IOU_THDS]
        self.columns = ["Relevant moments", figure, *ranks]

    @classmethod
    def read(cls, predictions: Path, document: Any, annotations: Path) -> GradedOutcomes:
        """See `RankedOutcomes.read`."""
        return cls(RankedOutcomes.read(predictions, document, annotations))

    def ranks(self, iou_thd: float) -> np.ndarray:
        return self._ranked.first_relevant(iou_thd)

    def quality(self, iou_thd: float) -> np.ndarray:
        return self._ranked.results.by_query[f"{iou_thd}-n{SHOWN_K}"]

    def cells(self, number: int) -> list[Cell]:
        relevant = int((self._ranked.answers.truth.relevance[number] > 0).sum())
        ranks = [int(self.ranks(iou_thd)[number]) for iou_thd in IOU_THDS]
        return [
            Cell(str(relevant)),
            Cell(f"{self._ranked.main[number]:.3f}"),
            *(Cell.of_rank(rank, "hit" if rank == 1 else "missed") for rank in ranks),
        ]

    def annotated(self, number: int) -> dict[str, list[Span]]:
        found: dict[str, list[Span]] = {}
        for one in self._ranked.graded(number):
            if one.grade > 0:
                found.setdefault(one.vid_name, []).append((one.st, one.ed))
        return found

    def truth(self, number: int) -> list[NamedMoment]:
        graded = self._ranked.graded(number)[:N_TRUTH]
        return [NamedMoment(f"annotated, grade {one.grade:g}", one.vid_name, (one.st, one.ed)) for one in graded]

    def predicted(self, number: int, n: int) -> list[NamedMoment]:
        return [
            NamedMoment(
                f"{rank}, grade {one.grade:g}" if one.grade else str(rank), one.vid_name, (one.st, one.ed), one.score
            )
            for rank, one in enumerate(self._ranked.predicted(number, n), start=1)
        ]

    def summary(self) -> Summary:
        means = self._ranked.results.means()
        rows = [(f"IoU over {thd:g}", [100 * means[f"{thd}-n{k}"] for k in KS]) for thd in IOU_THDS]
        return Summary(f"NDCG, %, mean of {len(self)} queries", [f"NDCG@{k}" for k in KS], rows)
