"""Queries with a right moment each, and at which rank a prediction file has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.web.outcomes.split_outcomes import Cell, NamedMoment, SplitOutcomes, Summary
from standalone_eval.aligned import Aligned, align
from standalone_eval.files.command import BadInput
from standalone_eval.files.reading import read_json, read_jsonl
from standalone_eval.ground_truth import Span
from standalone_eval.metrics import Rule, recalls, recalls_by_type
from standalone_eval.outcomes import Outcomes, all_outcomes
from utils.basic_utils import InputError


class QueryOutcomes(SplitOutcomes):
    """Outcomes by a rule.

    Attributes:
        task: whose ranks are looked for: VCMR, or what the file has instead.
        of_task: {task: outcomes} of all tasks that the file has.
    """

    def __init__(self, aligned: Aligned, sentences: Sequence[str], rule: Rule) -> None:
        super().__init__(sentences, aligned.truth.vid_names, aligned.truth.types or ())
        self._aligned, self._rule = aligned, rule
        self.of_task: Mapping[str, Outcomes] = all_outcomes(aligned, rule)
        self.task = next(iter(self.of_task))
        self.desc_ids, self._vid_names = aligned.truth.desc_ids, aligned.truth.vid_names
        self.iou_thds, self.has_moments = list(rule.iou_thds), self.task != "VR"
        self.columns = ["Video"]
        for task in self.of_task:
            moments = [f"{task} rank, IoU {iou_thd}" for iou_thd in rule.iou_thds]
            self.columns += ["Rank of the video"] if task == "VR" else moments
        self._rows = aligned.rows(self.task)

    @classmethod
    def read(cls, predictions: Path, annotations: Path, rule: Rule) -> QueryOutcomes:
        """From a prediction file and the annotations of its split, or an `InputError` that says why they do not fit."""
        try:
            rows = read_jsonl(annotations)
            return cls(align(read_json(predictions), rows), [str(row.get("desc") or "") for row in rows], rule)
        except BadInput as err:
            raise InputError(f"{predictions}: {err}") from err

    def ranks(self, iou_thd: float) -> np.ndarray:
        return self.of_task[self.task].rank(iou_thd)

    def quality(self, iou_thd: float) -> np.ndarray:
        rank = self.ranks(iou_thd)
        return np.divide(1.0, rank, out=np.zeros(len(rank)), where=rank > 0)

    def cells(self, number: int) -> list[Cell]:
        found = [Cell(self._vid_names[number], "name")]
        for task, outcomes in self.of_task.items():
            if task == "VR":
                found.append(Cell.of_rank(int(outcomes.rank()[number])))
                continue
            for iou_thd in self._rule.iou_thds:
                rank = int(outcomes.rank(iou_thd)[number])
                found.append(Cell.of_rank(rank, "hit" if rank == 1 else "missed"))
        return found

    def annotated(self, number: int) -> dict[str, list[Span]]:
        spans = self._aligned.truth.spans[number]
        return {self._vid_names[number]: [(start, end) for start, end in spans[~np.isnan(spans[:, 0])].tolist()]}

    def truth(self, number: int) -> list[NamedMoment]:
        ((name, spans),) = self.annotated(number).items()
        return [NamedMoment("annotated", name, span) for span in spans]

    def predicted(self, number: int, n: int) -> list[NamedMoment]:
        rows = self._rows[number]
        ranked: list[Any] = rows[self._aligned.have_rank(self.task, rows, number)][:n].tolist()
        return [
            NamedMoment(str(rank), self._aligned.name_of[int(idx)], (st, ed) if self.has_moments else None, score)
            for rank, (idx, st, ed, score) in enumerate(ranked, start=1)
        ]

    def summary(self) -> Summary:
        """Recalls over all queries, and by their type where they have one."""
        rule, rows = self._rule, []
        k_of_types = min(rule.ks)
        for task, of_task in self.of_task.items():
            hits = of_task.hits_at_k(rule)
            by_type = recalls_by_type(hits, self.kinds) if self.types else {}
            overall = recalls(hits)
            for prefix in of_task.ranks:
                of_all = [overall[f"{prefix}r{k}"] for k in rule.ks]
                of_types = [by_type[f"{kind}-{prefix}r{k_of_types}"] for kind in self.types]
                rows.append((f"{task}, IoU {prefix[:-1]}" if prefix else task, of_all + of_types))
        headings = [f"R@{k}" for k in rule.ks] + [f"R@{k_of_types}, type {kind}" for kind in self.types]
        return Summary(f"Recall, % of {len(self)} queries", headings, rows)
