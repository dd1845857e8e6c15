"""What made the features of a run, against its options and against what its model was trained on.

A checkpoint keeps the decisive properties (`utils.feature_files.provenance`) of the files its model was trained on:
{"video", "sub", "query": {property: value}}. What either side does not say is not compared.
"""

from __future__ import annotations

import sys
from numbers import Real

from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_store import FeatureStore
from utils.basic_utils import InputError
from utils.feature_files.provenance import KINDS, FeatureRecords, contradictions


def joined_records(first: FeatureRecords, second: FeatureRecords) -> FeatureRecords:
    """All that two records which do not contradict each other say; where values differ by rounding, the first's."""
    kinds = [kind for kind in KINDS if kind in first or kind in second]
    return {kind: {**second.get(kind, {}), **first.get(kind, {})} for kind in kinds}


def check_trained_on(trained_on: FeatureRecords, features: FeatureStore, model_dir: str) -> None:
    """Raise an InputError that names the file, what differs and how, where a model was trained on other features."""
    for kind, record in features.records.items():
        different = contradictions(record, trained_on.get(kind, {}))
        if different:
            listed = ", ".join(f"{name} {here} (the model: {there})" for name, here, there in different)
            raise InputError(
                f"{features.paths[kind]}: the model in {model_dir} was trained on other features; here: {listed}: give "
                "those it was trained on, or extract these again in the same way"
            )


def note_not_compared(trained_on: FeatureRecords, has_record: bool, features: FeatureStore, model_dir: str) -> None:
    """Say which features cannot be compared, because only they or only the model says what they are.

    Nothing is said of models and files without any record: `Checkpoint` (whether it has one says `has_record`) and
    `FeatureStore` have notes of their own.
    """
    silent = []
    for kind, record in features.records.items():
        model_says = trained_on.get(kind, {})
        if record and not model_says and has_record:
            silent.append(f"of its {kind} features the model says nothing")
        if model_says and not record and kind not in features.unrecorded:
            silent.append(f"{features.paths[kind]} says nothing")
    if silent:
        print(
            f"note: cannot tell whether the model in {model_dir} was trained on such features: {', '.join(silent)}",
            file=sys.stderr,
        )


def check_clip_length(features: FeatureStore, times: ClipTimes) -> None:
    """Refuse features whose record says that their clips have another length than the options.

    Lengths that follow from durations fit any record. An InputError names the file and both lengths.
    """
    if isinstance(times.clip_length, str):
        return
    for kind, record in features.records.items():
        for _, here, wanted in contradictions(record, {"clip_length": times.clip_length}):
            raise InputError(
                f"{features.paths[kind]}: its clips are {here} s long, but --clip_length is {wanted}, so that all "
                f"times would be wrong: give --clip_length {here}, or features of {wanted} s clips"
            )


def seconds_of_a_row(features: FeatureStore, times: ClipTimes) -> float | None:
    """How long a row of video features lasts, by the options or by what a file says of itself; None: nobody says."""
    if not isinstance(times.clip_length, str):
        return times.clip_length
    said = [features.records[m]["clip_length"] for m in features.modalities if "clip_length" in features.records[m]]
    return next((float(length) for length in said if isinstance(length, Real)), None)
