"""The forms in which features are written: this project's h5, and those that others read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.basic_utils import InputError
from utils.feature_files.bfloat16 import NAME as BFLOAT16
from utils.feature_files.feature_file import FeatureWriter, new_feature_file
from utils.feature_files.provenance import Plain
from utils.feature_forms.named_arrays import FEATURES, TOKENS
from utils.feature_forms.output.npz_folder import new_npz_folder
from utils.feature_forms.output.parquet import new_parquet

FORMS = ("h5", "npz", "parquet")
HALVES = ("float16", BFLOAT16)


class Writer(Protocol):
    """Takes features."""

    def put(self, key: str, features: np.ndarray, stored_as: str) -> None:
        """Write (rows, D) float32, which came from an array of the type `stored_as`."""


def new_features(form: str, out: Path, kind: str, record: Mapping[str, Plain]) -> AbstractContextManager[Writer]:
    """Write features in one of `FORMS`, whole or not at all: they are at `out` when the block ends without an error.

    Args:
        kind: of what they are; those of queries get the name that text features have in npz.
        record: what made them, where the form has a place for it.
    """
    if form == "npz":
        return new_npz_folder(out, TOKENS if kind == "query" else FEATURES)
    if form == "parquet":
        return new_parquet(out, record)
    return _new_h5(out, record)


class _H5Writer:
    def __init__(self, writer: FeatureWriter) -> None:
        self._writer = writer

    def put(self, key: str, features: np.ndarray, stored_as: str) -> None:
        self._writer.put(key, features, stored_as if stored_as in HALVES else "float32")


@contextmanager
def _new_h5(out: Path, record: Mapping[str, Plain]) -> Iterator[Writer]:
    with new_feature_file(out, **record) as writer:
        yield _H5Writer(writer)


def check_out(form: str, out: Path) -> None:
    """An `InputError` where something else is in the place of what is to be written."""
    if form != "npz" and out.is_dir():
        raise InputError(f"--out {out}: is a folder: give the {form} file to write")
    if form == "npz" and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: is there already: give the name of a new folder")
