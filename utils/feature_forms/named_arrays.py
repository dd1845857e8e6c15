"""Which of several arrays beside each other are the features, and which of their rows a mask leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from utils.basic_utils import first_few, note_once
from utils.feature_files.feature_array import rows_and_width
from utils.feature_files.feature_file import FeatureError
from utils.feature_forms.source import Stored

FEATURES = "features"
TOKENS = "last_hidden_state"  # of a text encoder, as Moment-DETR and those after it publish their queries
MASK = "attention_mask"
BESIDE = (MASK, "pooler_output")  # what lies beside features and is none


def features_among(
    names: Sequence[str], find: Callable[[str], Stored], path: Path, key: str, dataset: str | None
) -> Stored:
    """The features among arrays that are found by their names, without the tokens that are masked out.

    `FeatureError` for the `key` where it is not certain which they are, or the mask does not fit.
    """
    chosen = chosen_name(names, path, key, dataset)
    features = find(chosen)
    if MASK not in names or chosen == MASK:
        return features
    return _unmasked(features, find(MASK), path, key)


def chosen_name(names: Sequence[str], path: Path, key: str, dataset: str | None) -> str:
    """The name of the features: `dataset`, or one that is known, or the only one, which is said."""
    if dataset is not None:
        if dataset not in names:
            raise FeatureError(path, key, f"has no {dataset}, but {first_few(names)}: give one of them as --dataset")
        return dataset
    for known in (FEATURES, TOKENS):
        if known in names:
            return known
    others = [name for name in names if name not in BESIDE] or list(names)
    if not others:
        raise FeatureError(path, key, f"holds no array: expected one called {FEATURES}")
    if len(others) > 1:
        raise FeatureError(path, key, f"has {first_few(others)}: --dataset NAME says which are the features")
    note_once(f"{path}: the array {others[0]} is taken for the features")
    return others[0]


def _unmasked(features: Stored, mask: Stored, path: Path, key: str) -> Stored:
    counted = rows_and_width(features.shape)
    if counted is None:  # is refused as what it is
        return features
    if mask.dtype.kind not in "biuf" or math.prod(mask.shape) != counted[0]:
        found = f"{mask.dtype} {mask.shape}"
        raise FeatureError(path, key, f"its {MASK} is {found}, expected a number for each of {counted[0]} tokens")
    kept = mask.load().reshape(-1) != 0
    if not kept.any():
        raise FeatureError(path, key, f"its {MASK} leaves no token: extract it again")
    return replace(features, shape=(int(kept.sum()), counted[1]), load=lambda: features.load().reshape(counted)[kept])
