"""This project's annotations in Moment-DETR's form, which its evaluator and those of Lighthouse and UniVTG read.

    python utils/annotations/to_moment_detr.py --in data/tacos/tacos_val_release.jsonl --out tacos_val.jsonl

A line becomes `{"qid", "query", "duration", "vid", "relevant_windows": [[start, end], …]}`. The qid is the one that the
query had before it was converted here, or else its desc_id. What other files said of it beside that is said again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from standalone_eval.ground_truth import spans_of
from utils.annotations.query_lines import OURS, QID
from utils.basic_utils import InputError, command_line, first_few, put_jsonl, refuse_input_as_output, whole_file
from utils.dataset_files import read_durations, read_queries_file


def in_moment_detr_form(row: Mapping[str, Any], where: str, durations: Mapping[str, float]) -> dict[str, Any]:
    """A line of a release file in the other form; `InputError` names what it lacks."""
    vid_name, ts = row.get("vid_name"), row.get("ts")
    lacking = [key for key in ("desc_id", "desc", "vid_name") if key not in row]
    duration = row.get("duration", durations.get(str(vid_name)))
    if lacking or duration is None:
        what = first_few(lacking) or f"duration of {vid_name}: give --durations with the dataset's video2dur_idx.json"
        raise InputError(f"{where}: no {what}")
    others = {key: value for key, value in row.items() if key not in (*OURS, QID)}
    about = {QID: row.get(QID, row["desc_id"]), "query": row["desc"], "duration": duration, "vid": vid_name}
    if ts is None:
        return {**about, **others}
    if (spans := spans_of(ts)) is None:
        raise InputError(f"{where}: ts is not [st, ed], nor a list of such spans")
    return {**about, "relevant_windows": [list(span) for span in spans], **others}


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--in", dest="release", required=True, metavar="FILE.jsonl", help="queries of a split, as training reads them")
    add("--out", required=True, metavar="FILE.jsonl", help="file to write")
    add("--durations", metavar="FILE.json", help="where queries do not say how long their videos are: video2dur_idx")
    args = parser.parse_args(argv)
    refuse_input_as_output("--out", args.out, [args.release, args.durations])
    durations = {} if args.durations is None else read_durations(args.durations)
    rows = [
        in_moment_detr_form(row, f"{args.release}, line {number}", durations)
        for number, row in enumerate(read_queries_file(args.release), start=1)
    ]
    with whole_file(Path(args.out)) as part:
        put_jsonl(rows, part)
    print(f"{args.out}: {len(rows):,} queries")


if __name__ == "__main__":
    main()
