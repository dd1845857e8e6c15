"""What a report on ranked moments is about: graded moments, and what became of their queries in prediction files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from method_tvr.report.data import Annotated, ReportFile, lettered
from method_tvr.report.ranked.outcomes import RankedOutcomes
from utils.basic_utils import InputError


@dataclass(frozen=True)
class RankedFile(ReportFile):
    """A prediction file with what became of the queries that it answers."""

    outcomes: RankedOutcomes

    @property
    def holds(self) -> str:
        """How many queries it answers, and how many it leaves out."""
        answers = self.outcomes.answers
        left_out = f", {answers.left_out:,} left out" if answers.left_out else ""
        return f"{len(answers.truth.query_ids):,}{left_out}"


@dataclass(frozen=True)
class RankedData:
    """All that a report shows.

    Attributes:
        dataset: its name and split, as far as they are known.
        files: the first is what the report is about; the others are compared with it.
    """

    dataset: str
    gt_path: Path
    files: Sequence[RankedFile]

    @property
    def first(self) -> RankedFile:
        """What the report is about."""
        return self.files[0]

    @cached_property
    def common(self) -> list[int]:
        """Numbers in the first file of the queries that all files answer."""
        others = [set(file.outcomes.query_ids) for file in self.files[1:]]
        return [
            number
            for number, query_id in enumerate(self.first.outcomes.query_ids)
            if all(query_id in of_file for of_file in others)
        ]


def read_ranked_data(paths: Sequence[Path], annotated: Annotated, document: Any) -> RankedData:
    """Read prediction files, against the graded moments in `document`; see `RankedOutcomes.read`.

    Raises:
        InputError: a file cannot be used, or the files answer no query in common.
    """
    gt_path = annotated.gt_path
    files = [RankedFile(*one, RankedOutcomes.read(one[1], document, gt_path)) for one in lettered(paths)]
    data = RankedData(annotated.dataset, gt_path, files)
    if not data.common:
        raise InputError(f"{', '.join(map(str, paths))}: answer no query in common: give files for the same queries")
    return data
