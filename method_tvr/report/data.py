"""What a report is about: annotated queries, and what became of them in each of several prediction files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from method_tvr.dataset.annotations import Query, about_exclusive_moments, load_queries, load_videos
from method_tvr.report.evaluation_options import RunEvaluation, run_evaluation
from standalone_eval.aligned import Aligned, align
from standalone_eval.files.command import BadInput
from standalone_eval.metrics import LEAST_RIGHT, Rule
from standalone_eval.outcomes import Outcomes, all_outcomes
from utils.basic_utils import InputError
from utils.dataset_files import read_predictions_file, read_queries_file

CURVE_IOU_THDS = tuple(tenth / 10 for tenth in range(1, 10))
MAX_FILES = 8  # that can be told apart in one chart


@dataclass(frozen=True)
class ReportFile:
    """A prediction file, which the report calls A, B, …"""

    letter: str
    path: Path
    modified: datetime

    @property
    def name(self) -> str:
        """The file's name with its folder's, which is that of the run."""
        return str(Path(self.path.absolute().parent.name) / self.path.name)


@dataclass(frozen=True)
class PredictionFile(ReportFile):
    """One with its outcomes of each task, at the rule's thresholds and `CURVE_IOU_THDS`."""

    outcomes: Mapping[str, Outcomes]

    @property
    def holds(self) -> str:
        """Its tasks."""
        return ", ".join(self.outcomes)


@dataclass(frozen=True)
class Annotated:
    """The annotations that prediction files are compared with, and the run that says so, if they lie in its folder."""

    dataset: str  # its name and split, as far as they are known
    gt_path: Path
    run: RunEvaluation | None


@dataclass(frozen=True)
class ReportData:
    """All that a report shows.

    Attributes:
        dataset: its name and split, as far as they are known.
        queries: in the order of the annotations and of all outcomes.
        durations: {vid_name: seconds} of the videos for which they are known.
        files: the first is what the report is about, and whose predictions it has; the others are compared with it.
    """

    dataset: str
    gt_path: Path
    rule: Rule
    queries: Sequence[Query]
    durations: Mapping[str, float]
    files: Sequence[PredictionFile]
    predictions: Aligned

    @property
    def first(self) -> PredictionFile:
        """What the report is about."""
        return self.files[0]

    @property
    def main_task(self) -> str:
        """The task of the galleries: the hardest that the first file has."""
        return next(iter(self.first.outcomes))

    @property
    def main_iou_thd(self) -> float:
        """The IoU from which a moment is right where only one is shown."""
        return 0.7 if 0.7 in self.rule.iou_thds else max(self.rule.iou_thds)


def find_annotations(paths: Sequence[Path], gt_path: Path | None = None, split: str | None = None) -> Annotated:
    """The annotations that prediction files are compared with.

    Args:
        paths: the file that the report is about, and others for the same queries.
        gt_path: the annotations; by default those of the results folder in which the first file lies.
        split: whose annotations of that folder are taken; by default, those of the split that the run evaluates on.

    Raises:
        InputError: none can be found, or there are too many files.
    """
    if len(paths) > MAX_FILES:
        raise InputError(f"{len(paths)} prediction files: a report compares {MAX_FILES} at most")
    if gt_path is not None and split is not None:
        raise InputError("--split names annotations of the results folder, and --gt others: give one of them")
    run = _run_of(paths[0], gt_path, split)
    dataset = "" if run is None else run.dset_name if gt_path else f"{run.dset_name}, {run.split}"
    gt_path = gt_path or (run.gt_path if run else None)
    if gt_path is None:
        raise InputError(f"{paths[0]}: lies in no results folder (with opt.json): give annotations, --gt GT.jsonl")
    return Annotated(dataset, gt_path, run)


def lettered(paths: Sequence[Path]) -> Iterator[tuple[str, Path, datetime]]:
    """Each file's letter, its path, and when it was written."""
    for letter, path in zip(ascii_uppercase, paths, strict=False):
        try:
            written = path.stat().st_mtime
        except OSError as err:
            raise InputError(f"{path}: cannot be read ({err.strerror}): give a prediction file") from err
        yield letter, path, datetime.fromtimestamp(written).astimezone()


def read_report_data(
    paths: Sequence[Path],
    annotated: Annotated,
    iou_thds: Sequence[float] | None = None,
    ks: Sequence[int] | None = None,
    several: str | None = None,
) -> ReportData:
    """Read prediction files and the annotations that they are compared with.

    Args:
        paths, annotated: see `find_annotations`.
        iou_thds, ks: of the recalls; by default the run's, and outside of a results folder TVR's.
        several: what queries with several moments ask for, a key of `LEAST_RIGHT`; by default in the same way.

    Raises:
        InputError: a file cannot be read, is malformed, or does not answer the annotations' queries.
    """
    gt_path, run = annotated.gt_path, annotated.run
    rule = run.rule if run else Rule()
    least_right = LEAST_RIGHT[several] if several else rule.least_right
    rule = replace(rule, iou_thds=iou_thds or rule.iou_thds, ks=ks or rule.ks, least_right=least_right)
    at_all = replace(rule, iou_thds=sorted({*rule.iou_thds, *CURVE_IOU_THDS}))
    rows, queries = read_queries_file(gt_path), load_queries(gt_path)
    files: list[PredictionFile] = []
    for letter, path, modified in lettered(paths):
        try:
            aligned = align(read_predictions_file(path), rows)
        except BadInput as err:
            raise InputError(f"{path}, against {gt_path}: {err}") from err
        if not files:
            predictions = aligned
        files.append(PredictionFile(letter, path, modified, all_outcomes(aligned, at_all)))
        if not files[0].outcomes.keys() & files[-1].outcomes.keys():
            raise InputError(f"{path}: has none of the tasks of {paths[0]} ({', '.join(files[0].outcomes)})")
    if warning := about_exclusive_moments(queries, rule):
        print(f"warning: {gt_path}: {warning}", file=sys.stderr)
    durations = video_durations(rows, queries, run.video_duration_idx_path if run else None)
    return ReportData(annotated.dataset, gt_path, rule, queries, durations, files, predictions)


def _run_of(path: Path, gt_path: Path | None, split: str | None) -> RunEvaluation | None:
    """What the results folder of a prediction file says of its evaluation, if it lies in one."""
    if (path.parent / "opt.json").is_file():
        return run_evaluation(path.parent, gt_path or split)
    if split is not None:
        raise InputError(f"--split {split}: {path} lies in no results folder (with opt.json): give --gt GT.jsonl")
    return None


def video_durations(
    rows: Sequence[Mapping[str, Any]], queries: Sequence[Query], video_duration_idx_path: Path | None
) -> dict[str, float]:
    """{vid_name: seconds} of the queries' videos, as far as they are known.

    Args:
        rows: lines of the annotations, which may have `duration`.
        queries: the same, checked.
        video_duration_idx_path: looked into where the annotations do not say, if there is such a file.
    """
    named = {str(query.vid_name) for query in queries}
    found = {str(row.get("vid_name")): row.get("duration") for row in rows}
    known = {
        name: float(seconds)
        for name, seconds in found.items()
        if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < float("inf")
    }
    if named - known.keys() and video_duration_idx_path is not None and video_duration_idx_path.is_file():
        for videos in load_videos(video_duration_idx_path).values():
            known |= {name: video.duration for name, video in videos.items() if name in named - known.keys()}
    return known
