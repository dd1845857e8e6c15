"""Recall of a submission: `python standalone_eval/eval.py --submission_path S --gt_path G --save_path M`.

numpy and the standard library only; the folder works wherever it is copied. As in TVRetrieval, with the tasks
VCMR (the moment in the whole corpus), SVMR (the moment in the given video) and VR (the video).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

if not __package__:  # run as a file, wherever this folder was copied
    import as_package

    __spec__ = as_package.SCRIPT

import numpy as np
import numpy.typing as npt

from .aligned import align
from .average_precision import LENGTHS, window_metrics, windows_in_video
from .average_precision import MAX_PRED as N_WINDOWS
from .check import EVALUATED, GT_HELP, MAX_PRED, PREDICTIONS_HELP, Annotations, add_recall_options
from .files.command import BadInput, command_line
from .files.writing import refuse_input_as_output, write_json
from .ground_truth import GroundTruth
from .metrics import Rule, as_percentage, recalls, recalls_by_type
from .outcomes import Outcomes, all_outcomes, read_outcomes
from .ranking.evaluation import about_queries, ranked_truth, ranking_of_file, ranking_table
from .ranking.ndcg import IOU_THDS, KS, NDCG

BY_LENGTH = "SVMR_by_length"  # the metrics of `average_precision.window_metrics`
BY_LENGTH_SHOWN = ("mAP", "mAP@0.5", "mAP@0.75", "R1@0.5", "R1@0.7")  # what the table has of them


def eval_retrieval(
    submission: dict[str, Any],
    ground_truth: Sequence[dict[str, Any]],
    iou_thds: Sequence[float] = (0.5, 0.7),
    ks: Sequence[int] = (1, 5, 10, 100),
    max_pred: int = MAX_PRED,
    several_from: int = 4,
    least_right: int = 2,
    miou: bool = False,
    mean_ap: bool = False,
) -> dict[str, dict[str, Any]]:
    """Recalls of every task in a submission.

    Args:
        submission: {"video2idx": {vid_name: video_idx}, task: [{"desc_id", "desc", "predictions"}, ...]}; predictions
            are rows of [video_idx, st, ed, score], st and ed in seconds, best first. The score is looked at for
            average precision alone.
        ground_truth: one dict a query with desc_id, vid_name, ts ([st, ed], or a list of such spans) and, for recalls
            by query type, type. The queries must be the submission's, all of them and no others.
        iou_thds, ks, several_from, least_right: see `Rule`.
        max_pred: only so many predictions of a query are looked at.
        miou: whether SVMR gets its mean IoU, too; see `mean_iou`.
        mean_ap: whether SVMR's average precision is computed, too.

    Returns:
        {task: {"{iou_thd}-r{k}" (VR: "r{k}"): percentage}}; if the queries have types also {"{task}_by_type":
        {"{type}-{iou_thd}-r{k}": percentage, "desc_type_ratio": "v 74.32 t 8.85 vt 16.83"}}; where asked for,
        "mIoU" in SVMR, and {"SVMR_by_length": what `average_precision.window_metrics` returns}.

    Raises:
        BadInput: the submission or the ground truth is malformed, or they do not fit; the message lists how.
    """
    aligned, rule = align(submission, ground_truth), Rule(iou_thds, ks, several_from, least_right)
    outcomes = all_outcomes(aligned, rule, max_pred)
    windows = None
    if mean_ap and "SVMR" in outcomes:
        windows = windows_in_video(aligned.rows("SVMR", max_pred), aligned.video_idx, N_WINDOWS)
    return metrics_of(outcomes, aligned.truth, rule, miou, mean_ap, windows)


def metrics_of(
    outcomes: Mapping[str, Outcomes],
    truth: GroundTruth,
    rule: Rule,
    miou: bool,
    mean_ap: bool,
    windows: npt.NDArray[np.float64] | None,
) -> dict[str, dict[str, Any]]:
    """What `eval_retrieval` returns, from each task's outcomes and, where `mean_ap` asks for it, SVMR's windows."""
    metrics: dict[str, dict[str, Any]] = {}
    by_type: dict[str, dict[str, Any]] = {}
    for task, outcome in outcomes.items():
        hits = outcome.hits_at_k(rule)
        metrics[task] = recalls(hits)
        if truth.types is not None:
            by_type[f"{task}_by_type"] = recalls_by_type(hits, truth.types)
    if (miou or mean_ap) and "SVMR" not in metrics:
        raise BadInput("mIoU and mAP are of SVMR, which the submission does not have: evaluate it without them")
    if miou:
        metrics["SVMR"]["mIoU"] = mean_iou(outcomes["SVMR"])
    if windows is not None:
        by_type[BY_LENGTH] = window_metrics(windows, truth.spans)
    return metrics | by_type


def mean_iou(outcomes: Outcomes) -> float:
    """Mean over queries of the IoU of SVMR's first prediction with the moment that it fits best, in %."""
    return as_percentage(outcomes.first_iou.mean(dtype=np.float64))


def metrics_table(metrics: dict[str, dict[str, Any]]) -> str:
    """The metrics of `eval_retrieval` as lines of text: a row for each task, query type and threshold; mIoU and mAP.

    Or those of ranked moments, a row for each threshold.
    """
    if NDCG in metrics:
        return ranking_table(metrics[NDCG])
    rows: dict[str, dict[int, float]] = {}
    for task, values in metrics.items():
        for key, value in values.items():
            if key in ("desc_type_ratio", "mIoU") or task == BY_LENGTH:
                continue
            prefix, _, k = key.rpartition("r")
            label = f"{task.removesuffix('_by_type')} {prefix.rstrip('-')}".rstrip()
            rows.setdefault(label, {})[int(k)] = value
    ks = sorted({k for row in rows.values() for k in row})
    width = max(map(len, rows), default=0)
    lines = [" " * width + "".join(f"{f'R@{k}':>9}" for k in ks)]
    for label, row in rows.items():
        lines.append(f"{label:<{width}}" + "".join(f"{row[k]:9.2f}" for k in ks))
    if "mIoU" in metrics.get("SVMR", {}):
        lines += ["", f"SVMR mIoU {metrics['SVMR']['mIoU']:.2f}"]
    if BY_LENGTH in metrics:
        lines += ["", *_by_length_lines(metrics[BY_LENGTH])]
    return "\n".join(lines)


def _by_length_lines(metrics: dict[str, float]) -> list[str]:
    """The main ones of SVMR's metrics by the length of windows: a row for each class of it."""
    lines = [f"{'SVMR windows':<24}" + "".join(f"{name:>9}" for name in BY_LENGTH_SHOWN)]
    for name, (above, up_to) in LENGTHS.items():
        if f"{name}-mAP" in metrics:
            label = name if np.isinf(up_to) else f"{name}: over {above} to {up_to} s"
            lines.append(f"{label:<24}" + "".join(f"{metrics[f'{name}-{shown}']:9.2f}" for shown in BY_LENGTH_SHOWN))
    return lines


def evaluate_ranked(args: argparse.Namespace, truth: Any) -> None:
    """Evaluate VCMR rows against graded moments as the command line says, print NDCG and save it."""
    answers = ranking_of_file(args.submission_path, truth, args.all_queries)
    results = answers.results(args.iou_thds or IOU_THDS, args.ks or KS)
    write_json({NDCG: results.means()}, args.save_path)
    if not args.not_verbose:
        print(ranking_table(results.means()))
        print("".join(f"note: {note}\n" for note in about_queries(results)), end="")
        print(f"{len(results.query_ids)} queries; saved to {args.save_path}")


@command_line
def main() -> None:
    """Check and evaluate the submission named on the command line, print the recalls and save them."""
    parser = argparse.ArgumentParser(
        description="Recall of a submission; it is checked first (exit code 2 if unusable)."
    )
    parser.add_argument("--submission_path", required=True, help=PREDICTIONS_HELP)
    parser.add_argument("--gt_path", required=True, help=GT_HELP)
    parser.add_argument("--save_path", required=True, help="where the metrics go, JSON")
    add_recall_options(parser)
    parser.add_argument("--miou", action="store_true", help="mean IoU of SVMR's first predictions, too")
    what = "average precision of SVMR for several windows, and R@1, by the windows' lengths, as on QVHighlights, too"
    parser.add_argument("--map", action="store_true", help=what)
    what = "with graded moments: queries without predictions count 0; as published they do not count"
    parser.add_argument("--all_queries", action="store_true", help=what)
    parser.add_argument("--not_verbose", action="store_true", help="print no table")
    args = parser.parse_args()
    refuse_input_as_output(args.save_path, [args.submission_path, args.gt_path])
    if (truth := ranked_truth(args.gt_path)) is not None:
        evaluate_ranked(args, truth)
        return
    annotations = Annotations.read(args.gt_path, kept=EVALUATED)
    rule = Rule.typed(args.iou_thds, args.ks, annotations.least_right(args.several))
    n_windows = N_WINDOWS if args.map else 0
    collected = read_outcomes(args.submission_path, annotations, rule, args.max_pred, n_windows)
    windows = collected.windows.get("SVMR")
    metrics = metrics_of(collected.by_task(), collected.truth, rule, args.miou, args.map, windows)
    write_json(metrics, args.save_path)
    if not args.not_verbose:
        print(metrics_table(metrics))
        print(f"{len(annotations.rows)} queries; saved to {args.save_path}")


if __name__ == "__main__":
    main()
