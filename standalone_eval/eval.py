"""Recall of a submission: `python standalone_eval/eval.py --submission_path S --gt_path G --save_path M`.

numpy and the standard library only; the folder works wherever it is copied. As in TVRetrieval, with the tasks
VCMR (the moment in the whole corpus), SVMR (the moment in the given video) and VR (the video).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

if not __package__:  # run as a file, wherever this folder was copied
    import as_package

    __spec__ = as_package.SCRIPT

from .aligned import align
from .check import MAX_PRED, add_recall_options, check_files, refuse_errors
from .files.command import command_line
from .files.writing import refuse_input_as_output, write_json
from .metrics import LEAST_RIGHT, Rule, hits_at_k, recalls, recalls_by_type


def eval_retrieval(
    submission: dict[str, Any],
    ground_truth: Sequence[dict[str, Any]],
    iou_thds: Sequence[float] = (0.5, 0.7),
    ks: Sequence[int] = (1, 5, 10, 100),
    max_pred: int = MAX_PRED,
    several_from: int = 4,
    least_right: int = 2,
) -> dict[str, dict[str, Any]]:
    """Recalls of every task in a submission.

    Args:
        submission: {"video2idx": {vid_name: video_idx}, task: [{"desc_id", "desc", "predictions"}, ...]}; predictions
            are rows of [video_idx, st, ed, score], st and ed in seconds, best first. The score is not looked at.
        ground_truth: one dict a query with desc_id, vid_name, ts ([st, ed], or a list of such spans) and, for recalls
            by query type, type. The queries must be the submission's, all of them and no others.
        iou_thds, ks, several_from, least_right: see `Rule`.
        max_pred: only so many predictions of a query are looked at.

    Returns:
        {task: {"{iou_thd}-r{k}" (VR: "r{k}"): percentage}}; if the queries have types also {"{task}_by_type":
        {"{type}-{iou_thd}-r{k}": percentage, "desc_type_ratio": "v 74.32 t 8.85 vt 16.83"}}.

    Raises:
        BadInput: the submission or the ground truth is malformed, or they do not fit; the message lists how.
    """
    aligned = align(submission, ground_truth)
    truth = aligned.truth
    rule = Rule(iou_thds, ks, several_from, least_right)
    metrics: dict[str, dict[str, Any]] = {}
    by_type: dict[str, dict[str, Any]] = {}
    for task in aligned.predictions:
        hits = hits_at_k(task, aligned.rows(task, max_pred), aligned.video_idx, truth.spans, rule)
        metrics[task] = recalls(hits)
        if truth.types is not None:
            by_type[f"{task}_by_type"] = recalls_by_type(hits, truth.types)
    return metrics | by_type


def metrics_table(metrics: dict[str, dict[str, Any]]) -> str:
    """The metrics of `eval_retrieval` as lines of text: a row for each task, query type and threshold."""
    rows: dict[str, dict[int, float]] = {}
    for task, values in metrics.items():
        for key, value in values.items():
            if key == "desc_type_ratio":
                continue
            prefix, _, k = key.rpartition("r")
            label = f"{task.removesuffix('_by_type')} {prefix.rstrip('-')}".rstrip()
            rows.setdefault(label, {})[int(k)] = value
    ks = sorted({k for row in rows.values() for k in row})
    width = max(map(len, rows), default=0)
    lines = [" " * width + "".join(f"{f'R@{k}':>9}" for k in ks)]
    for label, row in rows.items():
        lines.append(f"{label:<{width}}" + "".join(f"{row[k]:9.2f}" for k in ks))
    return "\n".join(lines)


@command_line
def main() -> None:
    """Check and evaluate the submission named on the command line, print the recalls and save them."""
    parser = argparse.ArgumentParser(
        description="Recall of a submission; it is checked first (exit code 2 if unusable)."
    )
    parser.add_argument("--submission_path", required=True, help="prediction file, JSON")
    parser.add_argument("--gt_path", required=True, help="annotations with vid_name and ts, jsonl")
    parser.add_argument("--save_path", required=True, help="where the metrics go, JSON")
    add_recall_options(parser)
    parser.add_argument("--not_verbose", action="store_true", help="print no table")
    args = parser.parse_args()
    refuse_input_as_output(args.save_path, [args.submission_path, args.gt_path])
    rule = Rule(args.iou_thds, args.ks, least_right=LEAST_RIGHT[args.several])
    submission, ground_truth, findings = check_files(args.submission_path, args.gt_path, rule=rule)
    refuse_errors(findings, args.submission_path)
    metrics = eval_retrieval(
        submission, ground_truth, args.iou_thds, args.ks, args.max_pred, rule.several_from, rule.least_right
    )
    write_json(metrics, args.save_path)
    if not args.not_verbose:
        print(metrics_table(metrics))
        print(f"{len(ground_truth)} queries; saved to {args.save_path}")


if __name__ == "__main__":
    main()
