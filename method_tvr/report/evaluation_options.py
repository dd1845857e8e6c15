"""What a results folder says about evaluating its predictions, as options of standalone_eval/eval.py, a word a line.

python method_tvr/report/evaluation_options.py MODEL_DIR SPLIT_NAME
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.dataset.ranked_pairs import read_ranked
from method_tvr.dset_configs import DATASETS, DatasetConfig
from method_tvr.options.saved import find_path
from standalone_eval.metrics import AGREE, ANY, LEAST_RIGHT, Rule
from utils.basic_utils import InputError, command_line, read_json


@dataclass(frozen=True)
class RunEvaluation:
    """What the predictions in a results folder are compared with, and by which rule.

    `split` was asked for, or is what the run evaluates on; `gt_path` has its annotations; `video_duration_idx_path` has
    durations of the videos, and is None where the folder does not say.
    """

    dset_name: str
    split: str
    rule: Rule
    gt_path: Path
    video_duration_idx_path: Path | None


def run_evaluation(model_dir: Path, split: str | Path | None = None) -> RunEvaluation:
    """How the predictions in a results folder are evaluated.

    Args:
        model_dir: the folder, with opt.json in it.
        split: name of a split, or path of a jsonl with annotations, which as a `Path` is taken for nothing else; None
            means the split that the run evaluates on.

    Raises:
        InputError: opt.json is not one of training, or says nothing of such a split.
    """
    path = model_dir / "opt.json"
    saved = read_json(path)
    dataset = DATASETS.get(str(saved.get("dset_name"))) if isinstance(saved, dict) else None
    if dataset is None:
        raise InputError(f"{path}: does not say which of {', '.join(DATASETS)} it is of (dset_name): mend the file")
    recalls: dict[str, Any] = {}
    for name, default in (("iou_thds", dataset.iou_thds), ("recall_ks", dataset.recall_ks)):
        values = saved.get(name) or list(default)
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise InputError(f"{path}: {name} {values!r} is not a list of numbers: mend the file")
        recalls[name.removeprefix("recall_")] = values
    split = str(saved.get("eval_split_name") or "val") if split is None else split
    named = isinstance(split, Path) or Path(split).is_file()
    annotations = str(split) if named else _annotation_path(saved, dataset, str(split))
    if annotations is None:
        raise InputError(f"{path}: says nothing of annotations of a split {split}: give the path of their jsonl")
    several = saved.get("several", AGREE)  # the rule of runs before this was recorded
    if several not in LEAST_RIGHT:
        raise InputError(f"{path}: several {several!r} is none of {', '.join(LEAST_RIGHT)}: mend the file")
    rule = Rule(**recalls, least_right=LEAST_RIGHT[several])
    durations = saved.get("video_duration_idx_path")
    durations_path = find_path(durations) if isinstance(durations, str) else None
    return RunEvaluation(dataset.name, str(split), rule, find_path(annotations), durations_path)


def _annotation_path(saved: dict[str, Any], dataset: DatasetConfig, split: str) -> str | None:
    name = dataset.split_name(split)
    if saved.get("eval_split_name") == name and isinstance(saved.get("eval_path"), str):
        return saved["eval_path"]
    return None if dataset.root is None else dataset.annotation_path(name)


def evaluation_options(model_dir: Path, split: str) -> list[str]:
    """Annotations of a split, and the rule, that belong to a folder's predictions; see `run_evaluation`."""
    found = run_evaluation(model_dir, split)
    if read_ranked(found.gt_path) is not None:  # whose figures are not recalls
        return ["--gt_path", str(found.gt_path)]
    words = ["--iou_thds", *map(str, found.rule.iou_thds), "--ks", *map(str, found.rule.ks)]
    words += ["--several", ANY] if found.rule.least_right == LEAST_RIGHT[ANY] else []
    return [*words, "--gt_path", str(found.gt_path)]


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", help="results folder")
    parser.add_argument("split_name", help="split, or path of a jsonl with annotations")
    args = parser.parse_args(argv)
    print("\n".join(evaluation_options(Path(args.model_dir), args.split_name)))


if __name__ == "__main__":
    main()
