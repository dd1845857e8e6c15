"""The queries of a split and what a prediction file makes of them, to learn from mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from standalone_eval.aligned import Aligned, align
from standalone_eval.files.command import BadInput
from standalone_eval.files.reading import read_json, read_jsonl
from standalone_eval.ground_truth import Span
from standalone_eval.metrics import Rule
from standalone_eval.outcomes import Outcomes, all_outcomes
from utils.basic_utils import InputError

ANY = "any"


@dataclass(frozen=True)
class Wanted:
    """Which queries are looked for; `ANY`, None and "" leave a property open.

    Attributes:
        iou_thd: the IoU from which a moment is right.
        hit: whether the first prediction is right, or is not.
        ranks: lowest and highest rank of the first right prediction, both included; 0 is the rank of none.
        words: have to be in the sentence or in the video's name, all of them.
    """

    query_type: str = ANY
    iou_thd: float = 0.5
    hit: bool | None = None
    ranks: tuple[int, int] | None = None
    words: str = ""


class QueryOutcomes:
    """Nq queries with their predictions and their outcomes, in the order of the annotations.

    Attributes:
        task: whose ranks are shown: VCMR, or what the file has instead.
        of_task: {task: outcomes} of all tasks that the file has.
        kinds, types: each query's type, "" where there are none; and the types that there are.
        iou_thds: the rule's thresholds.
    """

    def __init__(self, aligned: Aligned, sentences: Sequence[str], rule: Rule) -> None:
        self._aligned, self.sentences = aligned, list(sentences)
        self.of_task: Mapping[str, Outcomes] = all_outcomes(aligned, rule)
        self.task = next(iter(self.of_task))
        self.rule, self.iou_thds = rule, list(rule.iou_thds)
        self.vid_names = aligned.truth.vid_names
        self.desc_ids = aligned.truth.desc_ids
        self.kinds = aligned.truth.types or [""] * len(self)
        self.types = sorted({*self.kinds} - {""})
        self._rows = aligned.rows(self.task)
        self._numbers_of: dict[str, list[int]] = {}
        for number, sentence in enumerate(self.sentences):
            self._numbers_of.setdefault(sentence.strip(), []).append(number)
        self._text = [f"{desc} {name}".lower() for desc, name in zip(self.sentences, self.vid_names, strict=True)]

    def __len__(self) -> int:
        return len(self.sentences)

    @classmethod
    def read(cls, predictions: Path, annotations: Path, rule: Rule) -> QueryOutcomes:
        """From a prediction file and the annotations of its split, or an `InputError` that says why they do not fit."""
        try:
            rows = read_jsonl(annotations)
            return cls(align(read_json(predictions), rows), [str(row.get("desc") or "") for row in rows], rule)
        except BadInput as err:
            raise InputError(f"{predictions}: {err}") from err

    def ranks(self, iou_thd: float) -> np.ndarray:
        """(Nq,) int64: rank of the first right prediction, 0 where there is none."""
        return self.of_task[self.task].rank(iou_thd)

    def select(self, wanted: Wanted) -> np.ndarray:
        """Numbers of the queries that are looked for, in the order of the annotations."""
        rank = self.ranks(wanted.iou_thd)
        chosen = np.ones(len(self), dtype=bool)
        if wanted.query_type != ANY:
            chosen &= np.array([kind == wanted.query_type for kind in self.kinds])
        if wanted.hit is not None:
            chosen &= (rank == 1) == wanted.hit
        if wanted.ranks is not None:
            chosen &= (rank >= wanted.ranks[0]) & (rank <= wanted.ranks[1])
        words = set(wanted.words.lower().split())
        if words:
            chosen &= np.array([all(word in text for word in words) for text in self._text])
        return np.flatnonzero(chosen)

    def annotated_for(self, sentence: str) -> dict[str, list[Span]]:
        """{vid_name: annotated moments} of all queries that say exactly this."""
        found: dict[str, list[Span]] = {}
        for number in self._numbers_of.get(sentence.strip(), ()):
            found.setdefault(self.vid_names[number], []).extend(self.annotated(number))
        return found

    def annotated(self, number: int) -> list[Span]:
        """Starts and ends in seconds of a query's annotated moments."""
        spans = self._aligned.truth.spans[number]
        return [(start, end) for start, end in spans[~np.isnan(spans[:, 0])].tolist()]

    def predicted(self, number: int, n: int) -> list[tuple[str, float, float, float]]:
        """The first `n` predictions of a query that have a rank: video, start and end in seconds (not in VR), score."""
        rows = self._rows[number]
        ranked: list[Any] = rows[self._aligned.have_rank(self.task, rows, number)][:n].tolist()
        return [(self._aligned.name_of[int(idx)], st, ed, score) for idx, st, ed, score in ranked]
