"""Mean and deviation of the recalls of several runs: `python method_tvr/report/summary.py MODEL_DIR …`."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.options.published import find_model
from utils.basic_utils import InputError, command_line, read_json
from utils.storage.folders import files_in

Metrics = dict[str, dict[str, Any]]


def final_metrics(model_dir: str, nms: bool) -> Metrics:
    """The metrics that the evaluation at the end of training left in a results folder, or an `InputError`.

    Of several, as inference on other splits leaves them, the newest is taken, and said aloud.
    """
    found = files_in(Path(model_dir), lambda name: _is_metrics(name, nms), "give the results folder of a training run")
    if not found:
        raise InputError(f"{model_dir}: has no inference_*_metrics.json: let the run finish, or run inference.sh on it")
    newest = max(found, key=lambda path: path.stat().st_mtime)
    if len(found) > 1:
        print(f"{len(found)} files of metrics in {model_dir}: taking the newest, {newest.name}")
    return read_json(newest)


def _is_metrics(name: str, nms: bool) -> bool:
    return fnmatchcase(name, "inference_*_metrics.json") and ("_nms_thd_" in name) == nms


def summary_table(runs: Sequence[Metrics]) -> str:
    """Lines of `task recall mean ± deviation`, the sample deviation over runs."""
    lines = []
    for task, recalls in runs[0].items():
        if task.endswith("_by_type"):
            continue
        for name in recalls:
            values = [run[task][name] for run in runs]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            lines.append(f"{task:5s} {name:9s} {statistics.mean(values):7.2f} ± {deviation:.2f}")
    return "\n".join(lines)


@command_line
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_dirs", nargs="+", help="results folders: paths, names or patterns")
    parser.add_argument("--results_root", default="method_tvr/results", help="where names and patterns are looked up")
    args = parser.parse_args()
    model_dirs = [find_model(name, args.results_root) for name in args.model_dirs]
    for title, nms in (("without NMS", False), ("with NMS", True)):
        print(f"\n{len(model_dirs)} runs, {title}")
        print(summary_table([final_metrics(model_dir, nms) for model_dir in model_dirs]))


if __name__ == "__main__":
    main()
