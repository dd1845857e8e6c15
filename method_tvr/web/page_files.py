"""The files that the page shows besides what the model finds: predictions, annotations, subtitles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from easydict import EasyDict

from method_tvr.ask.extraction_record import record_path, recorded, subtitles_beside
from method_tvr.dataset.ranked_pairs import read_ranked
from method_tvr.dset_configs import DATASETS
from method_tvr.options.rules import evaluation_rule
from method_tvr.options.saved import find_path, load_options
from method_tvr.web.guards import is_loopback
from method_tvr.web.outcomes.graded_outcomes import GradedOutcomes
from method_tvr.web.outcomes.query_outcomes import QueryOutcomes
from method_tvr.web.outcomes.split_outcomes import SplitOutcomes
from utils.basic_utils import PROJECT_ROOT, InputError
from utils.own_corpus.layout import ALL
from utils.storage.folders import files_in
from utils.storage.own_folder import others_hand
from utils.text_feature.text_rows import subtitle_lines

LOG = logging.getLogger(__name__)
NO_PREDICTIONS = "There are no predictions to learn from yet: run inference.sh on this model, and start the page again."
NO_ANNOTATIONS = "The queries of this split are not known: --eval_path names their file."
UNUSABLE = (
    "The predictions in the model's folder cannot be shown, the server's log says why: --predictions names others."
)


def open_outcomes(opt: EasyDict) -> tuple[SplitOutcomes | None, str]:
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
        annotations = find_path(opt.eval_path)
        document = read_ranked(annotations)
        if document is not None:
            return GradedOutcomes.read(path, document, annotations), ""
        return QueryOutcomes.read(path, annotations, evaluation_rule(opt)), ""
    except InputError as err:
        if opt.predictions is not None:
            raise
        LOG.warning("no mistakes are shown: %s", err)  # nobody asked for this file
        return None, UNUSABLE  # visitors need not know where it lies


def newest_predictions(opt: EasyDict) -> Path | None:
    """The prediction file in the model's folder that is shown unless another is named."""

    def is_of(pattern: str, name: str) -> bool:
        return fnmatchcase(name, pattern) and not name.endswith("_metrics.json") and "_nms_thd_" not in name

    patterns = [
        pattern
        for which in (f"{opt.dset_name}_{split}" for split in _splits_of_queries(opt))
        for pattern in (f"inference_{which}_*_predictions_*.json", f"best_{which}_predictions_*.json")
    ]
    for pattern in patterns:
        found = files_in(Path(opt.model_dir), partial(is_of, pattern), "give the model's folder")
        if found:
            return max(found, key=lambda path: path.stat().st_mtime)
    return None


def _splits_of_queries(opt: EasyDict) -> list[str]:
    """What the split of the queries is called in names of predictions: as the one searched, or as that of training.

    The latter where all videos of a corpus are searched, with the queries that the run was evaluated on.
    """
    if opt.eval_split_name != ALL or opt.eval_path is None:
        return [opt.eval_split_name]
    saved = load_options(opt.model_dir)
    own = saved.get("eval_path") == opt.eval_path
    return [ALL, *([str(saved.get("eval_split_name"))] if own else [])]


def default_videos(opt: EasyDict) -> str | None:
    """The folder that a corpus of one's own was extracted from, where nobody but the user can have put it on record.

    What is on record and is not used is said: others' files do not decide what is shown to visitors.
    """
    record = None if DATASETS[opt.dset_name].root is not None else record_path(opt.video_duration_idx_path)
    folder = None if record is None else recorded(opt.video_duration_idx_path, "videos")
    if record is None or folder is None:
        return None
    place = find_path(folder)
    why = others_hand([record, record.parent, place]) if place.is_dir() else "is not there any more"
    if why is None and not is_loopback(opt.host):
        why = f"others would see them at --host {opt.host}"
    if why is None:
        return str(place)
    LOG.warning("no videos are shown: those of %s were in %s (%s): give --videos DIR", record, folder, why)
    return None


def open_subtitles(path: str | None) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """{vid_name: subtitle lines} of a file; {} without one, or where nobody speaks.

    Raises:
        InputError: the file is no subtitles.
    """
    lines = {} if path is None else subtitle_lines(path)
    return lines if any(lines.values()) else {}


def default_subtitles(opt: EasyDict) -> str | None:
    """Where a dataset's subtitles lie, if they are there: `PREFIX_subtitles.jsonl`, or TVR's own name for them.

    Those of a corpus of one's own lie beside its durations.
    """
    dataset = DATASETS[opt.dset_name]
    if dataset.root is None:
        beside = subtitles_beside(opt.video_duration_idx_path)
        return None if beside is None else str(beside)
    if not dataset.subtitles:
        return None
    root = PROJECT_ROOT / dataset.root
    names = f"{dataset.prefix}_subtitles.jsonl", f"{dataset.prefix}_preprocessed_subtitles.jsonl"
    return next((str(root / name) for name in names if (root / name).is_file()), None)
