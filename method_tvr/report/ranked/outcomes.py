"""What became of queries with graded moments (TVR-Ranking) in a prediction file: grades found, and NDCG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from method_tvr.dataset.ranked_pairs import ranked_queries
from standalone_eval.files.command import BadInput
from standalone_eval.ranking.evaluation import RankedAnswers, RankedResults, ranking_of_file
from standalone_eval.ranking.ndcg import IOU_THDS, SHOWN_IOU, SHOWN_K, Floats, grades, ndcg_of_queries
from utils.basic_utils import InputError


@dataclass(frozen=True)
class GradedMoment:
    """A moment in a video, in seconds: annotated with a grade, or predicted, with the grade that it has got."""

    vid_name: str
    st: float
    ed: float
    grade: float
    score: float | None = None  # of a prediction


@dataclass(frozen=True)
class RankedOutcomes:
    """Nq queries with graded moments, in the order of the annotations, and what was predicted for them."""

    answers: RankedAnswers
    sentences: Sequence[str]

    @classmethod
    def read(cls, predictions: Path, document: Any, gt_path: Path) -> RankedOutcomes:
        """Of a prediction file and the graded moments in `document`, the content of `gt_path`.

        Raises:
            InputError: one of them is malformed, or they do not fit.
        """
        sentence_of = {query.desc_id: query.desc for query in ranked_queries(document, gt_path)}
        try:
            answers = ranking_of_file(str(predictions), document)
        except BadInput as err:
            raise InputError(f"{predictions}, against {gt_path}: {err}") from err
        return cls(answers, [sentence_of[query_id] for query_id in answers.truth.query_ids])

    @property
    def query_ids(self) -> Sequence[int]:
        return self.answers.truth.query_ids

    @cached_property
    def results(self) -> RankedResults:
        """NDCG at the thresholds and k that are published."""
        return self.answers.results()

    @cached_property
    def _grades(self) -> Mapping[float, Floats]:
        return {iou_thd: grades(self.answers.truth, self.answers.rows, iou_thd) for iou_thd in IOU_THDS}

    @property
    def main(self) -> Floats:
        """(Nq,) NDCG at `SHOWN_K` and `SHOWN_IOU`."""
        return self.results.by_query[f"{SHOWN_IOU}-n{SHOWN_K}"]

    def of_queries(self, query_ids: Sequence[int]) -> Floats:
        """(N,) `main` of some queries, NaN of those that the file does not answer."""
        return np.array([self._main_of.get(query_id, np.nan) for query_id in query_ids])

    @cached_property
    def _main_of(self) -> Mapping[int, float]:
        return dict(zip(self.query_ids, self.main.tolist(), strict=True))

    def first_relevant(self, iou_thd: float) -> npt.NDArray[np.int64]:
        """(Nq,) rank, from 1, of the first prediction that has got a grade above 0; 0 where none has."""
        return self._first_relevant[iou_thd]

    @cached_property
    def _first_relevant(self) -> Mapping[float, npt.NDArray[np.int64]]:
        ranks = {}
        for iou_thd, of_queries in self._grades.items():
            found = np.pad(of_queries > 0, ((0, 0), (0, 1)))  # with a rank that nobody has: argmax needs one
            ranks[iou_thd] = np.where(found.any(axis=1), found.argmax(axis=1) + 1, 0)
        return ranks

    def graded(self, number: int) -> list[GradedMoment]:
        """The annotated moments of a query, the most relevant first."""
        truth = self.answers.truth
        table = zip(truth.video[number], truth.spans[number], truth.relevance[number], strict=True)
        return [
            GradedMoment(truth.name_of[int(video)], float(st), float(ed), float(grade))
            for video, (st, ed), grade in table
            if not np.isnan(video)
        ]

    def predicted(self, number: int, n: int, iou_thd: float = SHOWN_IOU) -> list[GradedMoment]:
        """The first `n` predictions of a query, with the grades that they have got at a threshold."""
        rows, found = self.answers.rows[number, :n], self._grades[iou_thd][number, :n]
        return [
            GradedMoment(self.answers.truth.name_of[int(video)], st, ed, grade, score)
            for (video, st, ed, score), grade in zip(rows.tolist(), found.tolist(), strict=True)
            if not np.isnan(video)
        ]

    def ndcg(self, iou_thds: Sequence[float], ks: Sequence[int]) -> dict[str, float]:
        """{"{iou_thd}-n{k}": the mean over all queries in %}."""
        found = ndcg_of_queries(self.answers.truth, self.answers.rows, iou_thds, ks)
        return {name: 100 * float(values.mean()) for name, values in found.items()}
