"""List every defect of a submission: `python standalone_eval/check.py --submission_path S --gt_path G`.

Errors make a submission unusable (exit code 2); warnings are worth a look but change nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any, TypeGuard

if not __package__:  # run as a file, wherever this folder was copied
    import as_package

    __spec__ = as_package.SCRIPT

import numpy as np

from .checking.tasks import MAX_PRED, CheckedTask, NewTaker, compare_desc_ids
from .files.command import BadInput, command_line, positive_int
from .files.forms import ANNOTATIONS, LOOKED_AT, MOMENT_DETR, MOMENT_DETR_PREDICTIONS, PREDICTIONS, form_of
from .files.moment_detr import own_annotations, own_submission
from .files.reading import Lines, placed_rows, read_json, read_json_by_piece, read_lines, refuse_others
from .findings import Findings, query_name, shorten
from .ground_truth import GroundTruth, has_moments, read_desc_ids, read_ground_truth
from .metrics import AGREE, ANY, LEAST_RIGHT, SEVERAL, Rule, exclusive
from .submission import TASKS, TaskPredictions, known_videos, read_predictions, read_video2idx

EVALUATED = ("desc_id", "qid", "vid_name", "ts", "type")  # keys of annotations that evaluation looks at
PREDICTIONS_HELP = "prediction file, JSON, or jsonl in Moment-DETR's form"
GT_HELP = "annotations with vid_name and ts, jsonl, or those in Moment-DETR's form"


def check_submission(
    submission: Any,
    desc_ids: Iterable[int] | None = None,
    tasks: Sequence[str] | None = None,
    has_ground_truth: bool = True,
    vid_names: Iterable[str] = (),
    max_lines: int = 10,
    new_taker: NewTaker | None = None,
) -> Findings:
    """List every defect of a submission.

    Args:
        submission: what its JSON file holds; in place of a task's list may stand the `CheckedTask` that has taken it.
        desc_ids: the queries that must be answered, each of them and no others; None leaves that unchecked.
        tasks: tasks it must hold; None asks for at least one.
        has_ground_truth: whether the split's answers are public (test_public's are not).
        vid_names: videos that its video2idx must hold, those of the ground truth.
        max_lines: at most so many examples are kept of each kind of defect (0: all).
        new_taker: see `CheckedTask`, for tasks that are still lists.
    """
    findings = Findings(max_lines)
    if not _is_object(submission, findings):
        return findings
    _read_video2idx(submission, findings, tasks, vid_names)
    asked = None if desc_ids is None else dict.fromkeys(desc_ids)
    for task in TASKS:
        if task in submission:
            checked = submission[task]
            if not isinstance(checked, CheckedTask):
                checked = CheckedTask.of(task, submission, max_lines, new_taker)
            findings.add(checked.findings(asked))
    surplus = [shorten(key) for key in submission if key not in (*TASKS, "video2idx")]
    findings.warn(f"keys other than video2idx, {', '.join(TASKS)} are ignored", surplus)
    if not has_ground_truth and "SVMR" in submission:
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
    if not _is_object(submission, findings):
        return {}, {}
    video2idx = _read_video2idx(submission, findings, tasks, vid_names)
    known, asked = known_videos(video2idx), None if desc_ids is None else dict.fromkeys(desc_ids)
    predictions = {}
    for task in TASKS:
        if task in submission:
            predictions[task] = read_predictions(task, submission[task], known, findings)
            compare_desc_ids(task, predictions[task].desc_ids, asked, findings)
    return video2idx or {}, predictions


def _is_object(submission: Any, findings: Findings) -> TypeGuard[dict[str, Any]]:
    if isinstance(submission, dict):
        return True
    kind = 'submission is not an object {"video2idx", "VCMR", "SVMR", "VR"}'
    findings.error(kind, [f"found {shorten(submission)}"])
    return False


def _read_video2idx(
    submission: Mapping[str, Any], findings: Findings, tasks: Sequence[str] | None, vid_names: Iterable[str]
) -> dict[str, int] | None:
    """The submission's video2idx, None if it cannot be used; notes tasks and videos that are not there."""
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
    return video2idx


@dataclass(frozen=True)
class Asked:
    """What annotations ask of a submission.

    Attributes:
        truth: the queries with their answers; None where they have none, or cannot be used.
        desc_ids: the queries.
        may_be_answered: whether the split's answers may be public.
        findings: what is wrong with the annotations.
    """

    truth: GroundTruth | None
    desc_ids: list[int]
    may_be_answered: bool
    findings: Findings


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
    def read(
        cls, path: str, max_lines: int = 10, converting: bool = True, kept: Sequence[str] | None = None
    ) -> Annotations:
        """Read a file; a `BadInput` if it cannot be, or is of a form that is known and another one.

        `kept` are the keys of rows that are wanted, of a file in this evaluator's own form; by default all are.
        """
        findings, placed = Findings(max_lines), placed_rows(path)
        rows = [row for _, row in islice(placed, LOOKED_AT)]
        if converting and form_of(rows) is MOMENT_DETR:
            return cls(path, own_annotations(read_lines(path), findings), findings, ANY, converting)
        all_rows = [_some(row, kept) for row in chain(rows, (row for _, row in placed))]
        refuse_others(rows, ANNOTATIONS, path)
        return cls(path, all_rows, findings, AGREE, converting)

    @cached_property
    def asked(self) -> Asked:
        """What a submission has to fit."""
        findings = Findings(self.findings.max_lines)
        findings.errors |= self.findings.errors
        answered = has_moments(self.rows)
        truth = read_ground_truth(self.rows, findings) if answered else None
        desc_ids = truth.desc_ids if truth else read_desc_ids(self.rows, Findings() if answered else findings)
        # of test_public videos are secret as well; and of what is no annotation, who knows
        has_videos = any(isinstance(row.get("vid_name"), str) for row in self.rows)
        return Asked(truth, desc_ids, answered or has_videos or bool(findings.errors), findings)

    def least_right(self, several: str | None) -> int:
        """`Rule.least_right` by the option `--several`; what it is without the option is said where it is unusual."""
        if several is None and self.several != AGREE:
            why = "in Moment-DETR's form, where an answer may be several separate windows"
            print(f"note: {self.path} is {why}: --several {self.several}", file=sys.stderr)
        return LEAST_RIGHT[several or self.several]


def _some(row: dict[str, Any], kept: Sequence[str] | None) -> dict[str, Any]:
    """A row with these of its keys; names that many rows have are in memory once."""
    if kept is None:
        return row
    return {key: sys.intern(row[key]) if type(row[key]) is str else row[key] for key in kept if key in row}


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
    return _check_content(content, submission_path, annotations, tasks, max_lines, rule)


def check_by_piece(
    submission_path: str,
    annotations: Annotations,
    tasks: Sequence[str] | None = None,
    max_lines: int = 10,
    rule: Rule | None = None,
    new_taker: NewTaker | None = None,
) -> Findings:
    """The findings of `check_file`, of a submission that need not fit into memory (in Moment-DETR's form it has to).

    What `new_taker` gives takes the predictions as they are read; see `CheckedTask`. Of a task that is begun anew,
    all that it has taken before is void.
    """

    def read(known: Mapping[str, Any]) -> Any:
        def new_task(key: str, content: Mapping[str, Any]) -> CheckedTask | None:
            return CheckedTask(key, known or content, max_lines, new_taker) if key in TASKS else None

        return read_json_by_piece(
            submission_path, new_task, MOMENT_DETR_PREDICTIONS if annotations.converting else None
        )

    content = read({})
    if isinstance(content, dict):
        video2idx = content.get("video2idx")
        if any(isinstance(task, CheckedTask) and task.video2idx is not video2idx for task in content.values()):
            content = read({"video2idx": video2idx})  # which stood behind a task
    return _check_content(content, submission_path, annotations, tasks, max_lines, rule, new_taker)[1]


def _check_content(
    content: Any,
    submission_path: str,
    annotations: Annotations,
    tasks: Sequence[str] | None,
    max_lines: int,
    rule: Rule | None,
    new_taker: NewTaker | None = None,
) -> tuple[Any, Findings]:
    """A submission in the evaluator's own form, and the findings about what was read and the annotations."""
    if not isinstance(content, Lines):
        refuse_others(content, PREDICTIONS, submission_path)
    rows, asked, noted = annotations.rows, annotations.asked, Findings(max_lines)
    noted.errors |= asked.findings.errors
    if isinstance(content, Lines):
        content = None if noted.errors else own_submission(content, rows, noted)
        if noted.errors:
            return content, noted
    truth = asked.truth
    vid_names, desc_ids = truth.vid_names if truth else (), asked.desc_ids or None
    found = check_submission(content, desc_ids, tasks, asked.may_be_answered, vid_names, max_lines, new_taker)
    if truth and rule:
        impossible = [query_name(rows[query]) for query in np.flatnonzero(exclusive(truth.spans, rule))]
        noted.warn(f"ground truth: {about_exclusive(rule)}", impossible)
    noted.add(found)
    return content, noted


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
    annotations = Annotations.read(args.gt_path, args.max_lines, kept=EVALUATED)
    rule = Rule(least_right=annotations.least_right(args.several))
    findings = check_by_piece(args.submission_path, annotations, args.tasks, args.max_lines, rule)
    refuse_errors(findings, args.submission_path, brief_warnings=False)
    print(f"{args.submission_path}: fits the {len(annotations.rows)} queries of {args.gt_path} ({findings.summary()})")


if __name__ == "__main__":
    main()
