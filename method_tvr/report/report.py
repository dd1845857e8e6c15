"""A report about a prediction file as one HTML page, compared with other files if there are any: see scripts/report.sh.

python method_tvr/report/report.py PREDICTIONS.json [OTHER.json ...] [--gt GT.jsonl] [--out REPORT.html]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.dataset.ranked_pairs import read_ranked
from method_tvr.report.data import find_annotations, read_report_data
from method_tvr.report.ranked.data import read_ranked_data
from standalone_eval.files.command import positive_int
from standalone_eval.metrics import SEVERAL
from utils.basic_utils import InputError, command_line, whole_file
from utils.tables import file_size


def write_report(
    paths: Sequence[Path],
    out: Path | None = None,
    gt_path: Path | None = None,
    split: str | None = None,
    iou_thds: Sequence[float] | None = None,
    ks: Sequence[int] | None = None,
    several: str | None = None,
) -> Path:
    """Write a report, whole or not at all; returns its path, by default beside the first file.

    Annotations with graded moments (TVR-Ranking) get a report of NDCG, others one of recalls. For the other arguments
    see `find_annotations` and `read_report_data`.

    Raises:
        InputError: a file or the page's path cannot be used, or a package is missing.
    """
    try:
        from method_tvr.report.page import render
        from method_tvr.report.ranked.page import render_ranked
    except ImportError as err:
        raise InputError(
            f"a report needs {err.name}: pip install -r method_tvr/report/requirements.txt -c constraints.txt"
        ) from err
    target = out or paths[0].with_name(f"{paths[0].stem}_report.html")
    if target.is_dir() or any(os.path.realpath(target) == os.path.realpath(path) for path in (*paths, gt_path) if path):
        raise InputError(f"{target}: is a folder or what the report is made from: give another file, --out REPORT.html")
    annotated, made = find_annotations(paths, gt_path, split), datetime.now().astimezone()
    document = read_ranked(annotated.gt_path)
    if document is None:
        page = render(read_report_data(paths, annotated, iou_thds, ks, several), made)
    elif iou_thds or ks or several:
        raise InputError(
            f"{annotated.gt_path}: has graded moments, which are reported as published: leave out --iou_thds, --ks and "
            "--several, which are about recalls"
        )
    else:
        page = render_ranked(read_ranked_data(paths, annotated, document), made)
    try:
        with whole_file(target) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as err:
        raise InputError(
            f"{target}: cannot be written ({err.strerror}): give another place, --out REPORT.html"
        ) from err
    return target


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Write a report about a prediction file as one HTML page, and compare it with others."
    )
    parser.add_argument("predictions", type=Path, nargs="+", help="the prediction file, and others to compare it with")
    parser.add_argument("--gt", type=Path, help="annotations, jsonl (default: those of the results folder it lies in)")
    parser.add_argument("--split", help="whose annotations of that folder (default: what the run evaluates on)")
    parser.add_argument("--out", type=Path, help="the page (default: PREDICTIONS_report.html beside the first file)")
    parser.add_argument("--iou_thds", type=float, nargs="+", help="IoU thresholds (default: the run's)")
    parser.add_argument("--ks", type=positive_int, nargs="+", help="k of recall at k (default: the run's)")
    several = "queries with several moments: any of them is right, or two that agree (default: the run's)"
    parser.add_argument("--several", choices=SEVERAL, help=several)
    args = parser.parse_args(argv)
    target = write_report(args.predictions, args.out, args.gt, args.split, args.iou_thds, args.ks, args.several)
    print(f"{target} ({file_size(target)})")


if __name__ == "__main__":
    main()
