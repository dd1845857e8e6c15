"""What a results folder says about evaluating its predictions, as options of standalone_eval/eval.py, a word a line.

python method_tvr/evaluation_options.py MODEL_DIR SPLIT_NAME
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from method_tvr.dset_configs import DATASETS
from method_tvr.saved_options import find_path
from utils.basic_utils import InputError, command_line, read_json


def evaluation_options(model_dir: Path, split: str) -> list[str]:
    """Annotations of a split, IoU thresholds and ks that belong to the predictions in a results folder.

    Args:
        model_dir: the folder, with opt.json in it.
        split: its name, or the path of a jsonl with annotations.

    Raises:
        InputError: opt.json is not one of training, or says nothing of such a split.
    """
    path = model_dir / "opt.json"
    saved = read_json(path)
    dataset = DATASETS.get(str(saved.get("dset_name"))) if isinstance(saved, dict) else None
    if dataset is None:
        raise InputError(f"{path}: does not say which of {', '.join(DATASETS)} it is of (dset_name): mend the file")
    words = []
    for name, default in (("iou_thds", dataset.iou_thds), ("recall_ks", dataset.recall_ks)):
        values = saved.get(name) or list(default)
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise InputError(f"{path}: {name} {values!r} is not a list of numbers: mend the file")
        words += ["--" + name.removeprefix("recall_"), *map(str, values)]
    annotations: str | None = split
    if not Path(split).is_file():
        name = dataset.split_name(split)
        own = saved.get("eval_split_name") == name and isinstance(saved.get("eval_path"), str)
        annotations = saved["eval_path"] if own else None if dataset.root is None else dataset.annotation_path(name)
    if annotations is None:
        raise InputError(f"{path}: says nothing of annotations of a split {split}: give the path of their jsonl")
    return [*words, "--gt_path", str(find_path(annotations))]


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", help="results folder")
    parser.add_argument("split_name", help="split, or path of a jsonl with annotations")
    args = parser.parse_args(argv)
    print("\n".join(evaluation_options(Path(args.model_dir), args.split_name)))


if __name__ == "__main__":
    main()
