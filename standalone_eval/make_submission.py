"""Build the CodaLab zip from the predictions on val and on test_public, after checking both.

python standalone_eval/make_submission.py --val_submission V --val_gt_path G \\
    --test_public_submission T --test_public_gt_path H --save_path submission.zip
"""

from __future__ import annotations

import argparse
import json
import zipfile
from typing import Any

if not __package__:  # run as a file, wherever this folder was copied
    import as_package

    __spec__ = as_package.SCRIPT

from .check import check_files, refuse_errors
from .files.command import command_line
from .files.writing import refuse_input_as_output, whole_file
from .findings import shorten

MEMBERS = {  # the tasks the server expects of each split; SVMR needs the right videos, which test_public keeps secret
    "val": ("VCMR", "SVMR", "VR"),
    "test_public": ("VCMR", "VR"),
}
ENTRY = ("desc_id", "desc", "predictions")  # what a query's entry holds; anything else stays out of the zip


def member_name(split: str) -> str:
    """The name of a split's predictions inside the zip."""
    return f"tvr_{split}_submission.json"


def checked_member(split: str, submission_path: str, gt_path: str) -> dict[str, Any]:
    """The checked submission of a split's tasks alone; what is left out is said on stdout, and errors as `BadInput`."""
    tasks = MEMBERS[split]
    submission, _, findings = check_files(submission_path, gt_path, tasks)
    refuse_errors(findings, submission_path)
    kept = {"video2idx": submission["video2idx"]}
    kept |= {task: [{key: entry[key] for key in ENTRY if key in entry} for entry in submission[task]] for task in tasks}
    surplus = [shorten(key) for key in submission if key not in kept]
    if surplus:
        print(f"note: {submission_path}: left out {', '.join(surplus)}: not part of a {split} submission")
    return kept


def write_zip(members: dict[str, dict[str, Any]], save_path: str) -> None:
    """Write {split: submission} as a zip without folders, whole or not at all; equal input gives equal bytes."""
    with whole_file(save_path) as part, zipfile.ZipFile(part, "w") as archive:
        for split, submission in members.items():
            info = zipfile.ZipInfo(member_name(split))  # dated 1980, so that the bytes depend on the content alone
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, json.dumps(submission, allow_nan=False, separators=(",", ":")))


@command_line
def main() -> None:
    """Check the two files named on the command line and zip them."""
    parser = argparse.ArgumentParser(description="Build the CodaLab zip; both files are checked first (exit code 2).")
    for split, tasks in MEMBERS.items():
        what = f"predictions on {split} with {', '.join(tasks)}, JSON"
        parser.add_argument(f"--{split}_submission", required=True, help=what)
        parser.add_argument(f"--{split}_gt_path", required=True, help=f"tvr_{split}_release.jsonl")
    parser.add_argument("--save_path", required=True, help="the zip to write")
    args = vars(parser.parse_args())
    refuse_input_as_output(args["save_path"], [path for name, path in args.items() if name != "save_path"])
    members = {split: checked_member(split, args[f"{split}_submission"], args[f"{split}_gt_path"]) for split in MEMBERS}
    write_zip(members, args["save_path"])
    print(f"{args['save_path']}: {', '.join(member_name(split) for split in members)}")


if __name__ == "__main__":
    main()
