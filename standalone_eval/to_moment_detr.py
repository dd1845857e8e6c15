"""A submission's SVMR task in Moment-DETR's form, which others' evaluations read:

python standalone_eval/to_moment_detr.py --submission_path S --gt_path G --save_path OUT.jsonl
"""

from __future__ import annotations

import argparse

if not __package__:  # run as a file, wherever this folder was copied
    import as_package

    __spec__ = as_package.SCRIPT

from .average_precision import MAX_PRED
from .check import GT_HELP, PREDICTIONS_HELP, Annotations, check_file, refuse_errors
from .files.command import BadInput, command_line, positive_int
from .files.moment_detr import moment_detr_predictions
from .files.writing import refuse_input_as_output, write_jsonl


@command_line
def main() -> None:
    """Check the submission named on the command line and write it."""
    parser = argparse.ArgumentParser(
        description="Write SVMR in Moment-DETR's form; it is checked first (exit code 2 if unusable)."
    )
    parser.add_argument("--submission_path", required=True, help=PREDICTIONS_HELP)
    parser.add_argument("--gt_path", required=True, help=GT_HELP)
    parser.add_argument("--save_path", required=True, help="where the predictions go, jsonl")
    what = "predictions of a query that are kept (default: %(default)s, which is what Moment-DETR's mAP looks at)"
    parser.add_argument("--max_pred", type=positive_int, default=MAX_PRED, help=what)
    args = parser.parse_args()
    refuse_input_as_output(args.save_path, [args.submission_path, args.gt_path])
    annotations = Annotations.read(args.gt_path)
    submission, findings = check_file(args.submission_path, annotations, tasks=["SVMR"])
    refuse_errors(findings, args.submission_path)
    names = [row.get("vid_name") for row in annotations.rows]
    if not all(isinstance(name, str) and name in submission["video2idx"] for name in names):
        raise BadInput(f"{args.gt_path}: a query has no vid_name, or none of {args.submission_path}'s video2idx")
    write_jsonl(moment_detr_predictions(submission, annotations.rows, args.max_pred), args.save_path)
    print(f"{args.save_path}: {len(annotations.rows)} queries")


if __name__ == "__main__":
    main()
