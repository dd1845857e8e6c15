"""The files that the page shows besides what the model finds: predictions, annotations, subtitles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from easydict import EasyDict

from method_tvr.config import evaluation_rule
from method_tvr.dset_configs import DATASETS
from method_tvr.options.saved import find_path
from method_tvr.web.query_outcomes import QueryOutcomes
from utils.basic_utils import PROJECT_ROOT, InputError
from utils.folders import files_in
from utils.text_feature.text_rows import subtitle_lines

LOG = logging.getLogger(__name__)
NO_PREDICTIONS = "There are no predictions to learn from yet: run inference.sh on this model, and start the page again."
NO_ANNOTATIONS = "The queries of this split are not known: --eval_path names their file."
UNUSABLE = (
    "The predictions in the model's folder cannot be shown, the server's log says why: --predictions names others."
)


def open_outcomes(opt: EasyDict) -> tuple[QueryOutcomes | None, str]:
    """Queries of the split with predictions, or None and what to do about it.

    `opt.predictions` names a file; None: the newest of inference without NMS in the model's folder, or of training.

    Raises:
        InputError: the file that was named, or its annotations, cannot be used.
    """
    path = newest_predictions(opt) if opt.predictions is None else Path(opt.predictions)
    if path is None:
        return None, NO_PREDICTIONS
    if opt.eval_path is None:
        if opt.predictions is not None:
            raise InputError(f"--predictions {opt.predictions}: whose are they? {NO_ANNOTATIONS}")
        return None, NO_ANNOTATIONS
    try:
        return QueryOutcomes.read(path, find_path(opt.eval_path), evaluation_rule(opt)), ""
    except InputError as err:
        if opt.predictions is not None:
            raise
        LOG.warning("no mistakes are shown: %s", err)  # nobody asked for this file
        return None, UNUSABLE  # visitors need not know where it lies


def newest_predictions(opt: EasyDict) -> Path | None:
    """The prediction file in the model's folder that is shown unless another is named."""
    which = f"{opt.dset_name}_{opt.eval_split_name}"

    def is_of(pattern: str, name: str) -> bool:
        return fnmatchcase(name, pattern) and not name.endswith("_metrics.json") and "_nms_thd_" not in name

    for pattern in (f"inference_{which}_*_predictions_*.json", f"best_{which}_predictions_*.json"):
        found = files_in(Path(opt.model_dir), partial(is_of, pattern), "give the model's folder")
        if found:
            return max(found, key=lambda path: path.stat().st_mtime)
    return None


def open_subtitles(opt: EasyDict) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """{vid_name: subtitle lines}, of the file that is named or that lies among the dataset's; {} without any.

    Raises:
        InputError: the file is no subtitles.
    """
    path = default_subtitles(opt.dset_name) if opt.subtitles is None else Path(opt.subtitles)
    return {} if path is None else subtitle_lines(path)


def default_subtitles(dset_name: str) -> Path | None:
    """Where a dataset's subtitles lie, if they are there: `PREFIX_subtitles.jsonl`, or TVR's own name for them."""
    dataset = DATASETS[dset_name]
    if dataset.root is None or not dataset.subtitles:
        return None
    root = PROJECT_ROOT / dataset.root
    names = f"{dataset.prefix}_subtitles.jsonl", f"{dataset.prefix}_preprocessed_subtitles.jsonl"
    return next((root / name for name in names if (root / name).is_file()), None)
