"""List every defect of a submission: `python standalone_eval/check.py --submission_path S --gt_path G`.

Errors make a submission unusable (exit code 2); warnings are worth a look but change nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

if not __package__:  # run as a file, wherever this folder was copied
    import as_package

    __spec__ = as_package.SCRIPT

import numpy as np

from .files.command import BadInput, command_line, positive_int
from .files.forms import ANNOTATIONS, MOMENT_DETR, MOMENT_DETR_PREDICTIONS, PREDICTIONS, form_of
from .files.moment_detr import own_annotations, own_submission
from .files.reading import Lines, read_json, read_lines, refuse_others
from .findings import Findings, query_name, shorten
from .ground_truth import has_moments, read_desc_ids, read_ground_truth
from .metrics import AGREE, ANY, LEAST_RIGHT, SEVERAL, Rule, exclusive
from .submission import MOMENT_TASKS, TASKS, TaskPredictions, read_predictions, read_video2idx

MAX_PRED = 100  # predictions of a query that count
PREDICTIONS_HELP = "prediction file, JSON, or jsonl in Moment-DETR's form"
GT_HELP = "annotations with vid_name and ts, jsonl, or those in Moment-DETR's form"


def check_submission(
    submission: Any,
    desc_ids: Iterable[int] | None = None,
    tasks: Sequence[str] | None = None,
    has_ground_truth: bool = True,
    vid_names: Iterable[str] = (),
    max_lines: int = 10,
) -> Findings:
    """List every defect of a submission.

    Args:
        submission: what its JSON file holds.
        desc_ids: the queries that must be answered, each of them and no others; None leaves that unchecked.
        tasks: tasks it must hold; None asks for at least one.
        has_ground_truth: whether the split's answers are public (test_public's are not).
        vid_names: videos that its video2idx must hold, those of the ground truth.
        max_lines: at most so many examples are kept of each kind of defect (0: all).
    """
    findings = Findings(max_lines)
    _, predictions = read_submission(submission, desc_ids, findings, tasks, vid_names)
    for task_predictions in predictions.values():
        _warn_about_rows(task_predictions, findings)
    if isinstance(submission, dict):
        surplus = [shorten(key) for key in submission if key not in (*TASKS, "video2idx")]
        findings.warn(f"keys other than video2idx, {', '.join(TASKS)} are ignored", surplus)
    if not has_ground_truth and "SVMR" in predictions:
        findings.warn("SVMR cannot be evaluated on a split without ground truth (test_public): leave it out")
    return findings


def read_submission(
    submission: Any,
    desc_ids: Iterable[int] | None,
    findings: Findings,
    tasks: Sequence[str] | None = None,
    vid_names: Iterable[str] = (),
) -> tuple[dict[str, int], dict[str, TaskPredictions]]:
    """The submission's video2idx and its tasks' predictions as arrays; with any error noted they are incomplete."""
    if not isinstance(submission, dict):
        kind = 'submission is not an object {"video2idx", "VCMR", "SVMR", "VR"}'
        findings.error(kind, [f"found {shorten(submission)}"])
        return {}, {}
    for task in tasks or ():
        if task not in submission:
            why = ["the file of an inference with NMS has no VR"] if task == "VR" else None
            findings.error(f"{task} is missing", why)
    if not any(task in submission for task in TASKS):
        findings.error(f"no task: expected {', '.join(TASKS)}")
    video2idx = read_video2idx(submission, findings)
    if video2idx is not None:
        without_idx = sorted(set(vid_names) - video2idx.keys())
        findings.error("video2idx has no entry for a video of the ground truth", without_idx)
    asked = None if desc_ids is None else dict.fromkeys(desc_ids)
    predictions = {}
    for task in TASKS:
        if task in submission:
            predictions[task] = read_predictions(task, submission[task], video2idx, findings)
            _compare_desc_ids(predictions[task], asked, findings)
    return video2idx or {}, predictions


def _compare_desc_ids(predictions: TaskPredictions, asked: Mapping[int, None] | None, findings: Findings) -> None:
    """Note queries answered twice, not at all, or not asked."""
    task, counts = predictions.task, Counter(predictions.desc_ids)
    twice = [f"{desc_id} ({count} times)" for desc_id, count in counts.items() if count > 1]
    findings.error(f"{task}: desc_id appears more than once", twice)
    if asked is not None:
        missing = [str(desc_id) for desc_id in asked if desc_id not in counts]
        surplus = [str(desc_id) for desc_id in counts if desc_id not in asked]
        findings.error(f"{task}: desc_id of the annotations has no entry", missing)
        findings.error(f"{task}: desc_id is not in the annotations (of another split?)", surplus)


def _warn_about_rows(predictions: TaskPredictions, findings: Findings) -> None:
    """Note what a prediction list may hold but hardly means to."""
    task, names, counts, rows = predictions.task, predictions.names, predictions.counts, predictions.rows
    long = np.flatnonzero(counts > MAX_PRED)
    examples = [f"{names[query]}: {counts[query]} rows" for query in long]
    findings.warn(f"{task}: more than {MAX_PRED} rows, the rest does not count", examples)
    findings.warn(f"{task}: no predictions", [names[query] for query in np.flatnonzero(counts == 0)])
    st, ed = rows[:, 1], rows[:, 2]
    suspicious = {f"{'span' if task in MOMENT_TASKS else 'video'} appears more than once": _repeated(predictions)}
    if task in MOMENT_TASKS:
        suspicious["empty span (st = ed), never right"] = st == ed
        suspicious["reversed span (st > ed), never right"] = st > ed
        suspicious["span starts before 0 s"] = st < 0
    for kind, mask in suspicious.items():
        findings.warn(f"{task}: {kind}", predictions.places(mask), int(mask.sum()))


def _repeated(predictions: TaskPredictions) -> np.ndarray:
    """(R,) bool: rows whose video and times an earlier row of the same query has."""
    query = np.repeat(np.arange(len(predictions.counts)), predictions.counts)
    video_idx, st, ed = predictions.rows[:, :3].T
    order = np.lexsort((ed, st, video_idx, query))  # stable: of equal rows the first stays first
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in (query, video_idx, st, ed):
        same &= column[order][1:] == column[order][:-1]
    repeated = np.zeros(len(order), dtype=bool)
    repeated[order[1:]] = same
    return repeated


@dataclass(frozen=True)
class Annotations:
    """A file of annotations, in this evaluator's own form.

    Attributes:
        path: where it lies, for messages.
        rows: one dict a query; none where they could not be converted.
        findings: what was found wrong when they were.
        several: what its queries with several moments ask for, where no `--several` says it.
        converting: whether files in Moment-DETR's form are taken, these and predictions.
    """

    path: str
    rows: list[dict[str, Any]]
    findings: Findings
    several: str
    converting: bool

    @classmethod
    def read(cls, path: str, max_lines: int = 10, converting: bool = True) -> Annotations:
        """Read a file; a `BadInput` if it cannot be, or is of a form that is known and another one."""
        findings = Findings(max_lines)
        lines = read_lines(path)
        if converting and form_of(lines.rows) is MOMENT_DETR:
            return cls(path, own_annotations(lines, findings), findings, ANY, converting)
        refuse_others(lines.rows, ANNOTATIONS, path)
        return cls(path, lines.rows, findings, AGREE, converting)

    def least_right(self, several: str | None) -> int:
        """`Rule.least_right` by the option `--several`; what it is without the option is said where it is unusual."""
        if several is None and self.several != AGREE:
            why = "in Moment-DETR's form, where an answer may be several separate windows"
            print(f"note: {self.path} is {why}: --several {self.several}", file=sys.stderr)
        return LEAST_RIGHT[several or self.several]


def check_file(
    submission_path: str,
    annotations: Annotations,
    tasks: Sequence[str] | None = None,
    max_lines: int = 10,
    rule: Rule | None = None,
) -> tuple[Any, Findings]:
    """A submission, and the findings about it and the annotations it belongs to.

    Where a `rule` is given, moments that cannot agree as it asks are warned of. A `BadInput` if the file cannot be
    read, is not JSON, or is of a form that is known and another one.
    """
    content = read_json(submission_path, MOMENT_DETR_PREDICTIONS if annotations.converting else None)
    if not isinstance(content, Lines):
        refuse_others(content, PREDICTIONS, submission_path)
    rows, noted = annotations.rows, Findings(max_lines)
    noted.errors |= annotations.findings.errors
    answered = has_moments(rows)
    truth = read_ground_truth(rows, noted) if answered else None
    desc_ids = truth.desc_ids if truth else read_desc_ids(rows, Findings() if answered else noted)
    if isinstance(content, Lines):
        content = None if noted.errors else own_submission(content, rows, noted)
        if noted.errors:
            return content, noted
    vid_names = truth.vid_names if truth else ()
    has_videos = any(isinstance(row.get("vid_name"), str) for row in rows)  # those of test_public are secret as well
    may_be_answered = answered or has_videos or bool(noted.errors)  # of what is no annotation, who knows
    findings = check_submission(content, desc_ids or None, tasks, may_be_answered, vid_names, max_lines)
    if truth and rule:
        impossible = [query_name(rows[query]) for query in np.flatnonzero(exclusive(truth.spans, rule))]
        noted.warn(f"ground truth: {about_exclusive(rule)}", impossible)
    findings.errors = noted.errors | findings.errors
    findings.warnings = noted.warnings | findings.warnings
    return content, findings


def check_files(
    submission_path: str, gt_path: str, tasks: Sequence[str] | None = None, max_lines: int = 10
) -> tuple[Any, list[dict[str, Any]], Findings]:
    """A submission in the evaluator's own form, the annotations' rows, and `check_file`'s findings about both."""
    annotations = Annotations.read(gt_path, max_lines, converting=False)
    submission, findings = check_file(submission_path, annotations, tasks, max_lines)
    return submission, annotations.rows, findings


def about_exclusive(rule: Rule) -> str:
    """What is to be said of queries that are `exclusive`."""
    return (
        f"queries with {rule.several_from} or more moments of which no two overlap: {rule.least_right} have to agree "
        "with a prediction, which above an IoU of 0.5 no two can, so that these queries count as missed; where moments "
        "are separate windows, give --several any"
    )


def refuse_errors(findings: Findings, path: str, brief_warnings: bool = True) -> None:
    """Print the findings about the file at `path`, and raise `BadInput` if there are errors among them."""
    for line in findings.lines(brief_warnings):
        print(line, file=sys.stderr)
    if findings.errors:
        raise BadInput(f"{path}: {findings.summary()}")


def add_recall_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which recalls are computed: `--iou_thds`, `--ks`, `--max_pred` and `--several`."""
    thds, ks = (" ".join(map(str, values)) for values in (Rule.iou_thds, Rule.ks))
    parser.add_argument("--iou_thds", nargs="+", type=float, help=f"IoU thresholds (default: {thds})")
    parser.add_argument("--ks", nargs="+", type=positive_int, help=f"k of recall at k (default: {ks})")
    parser.add_argument("--max_pred", type=positive_int, default=MAX_PRED, help="predictions of a query that count")
    add_several_option(parser)


def add_several_option(parser: argparse.ArgumentParser) -> None:
    """`--several`, a key of `LEAST_RIGHT`."""
    what = (
        f"what queries with {Rule.several_from} or more moments ask for: a prediction that is right for any of them, "
        f"where the answer is several windows, or for two that agree, as in DiDeMo (default: {AGREE}; with annotations "
        f"in Moment-DETR's form {ANY})"
    )
    parser.add_argument("--several", choices=SEVERAL, help=what)


@command_line
def main() -> None:
    """Check the submission named on the command line."""
    parser = argparse.ArgumentParser(
        description="List every defect of a submission (exit code 2 if there is an error)."
    )
    parser.add_argument("--submission_path", required=True, help=PREDICTIONS_HELP)
    parser.add_argument("--gt_path", required=True, help="annotations, jsonl; for test_public its queries are enough")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="tasks that must be there (default: at least one)")
    parser.add_argument("--max_lines", type=int, default=10, help="examples shown of each kind of defect; 0: all")
    add_several_option(parser)
    args = parser.parse_args()
    annotations = Annotations.read(args.gt_path, args.max_lines)
    rule = Rule(least_right=annotations.least_right(args.several))
    _, findings = check_file(args.submission_path, annotations, args.tasks, args.max_lines, rule)
    refuse_errors(findings, args.submission_path, brief_warnings=False)
    print(f"{args.submission_path}: fits the {len(annotations.rows)} queries of {args.gt_path} ({findings.summary()})")


if __name__ == "__main__":
    main()
