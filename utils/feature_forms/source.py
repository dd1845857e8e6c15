"""Where features come from: one interface for all forms that others publish them in, and what their readers share."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol

import numpy as np

from utils.basic_utils import Closing, first_line
from utils.feature_files.feature_array import as_features, rows_and_width, tell_left_out, why_not_features
from utils.feature_files.feature_file import FeatureError, expands_too_much

INSTALL = "pip install -r utils/feature_forms/requirements.txt -c constraints.txt"
# what numpy, zipfile and others raise on damaged files. The header of an npy file is Python source; nested too deeply,
# that is a lack of memory
DAMAGED = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, EOFError, SyntaxError,
    TokenError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


class FeatureSource(Protocol):
    """Features by key, in whatever form; an `InputError` of any method names file and key."""

    path: Path

    def feature_keys(self) -> list[str]:
        """The keys, one at least, of what is meant as features."""

    def made_by(self) -> dict[str, Any]:
        """What made the features, as attributes of a feature file; empty where nobody says."""

    def form(self, key: str, width: int | None = None) -> tuple[int, int, str]:
        """(rows, D, name of the type that they are stored in), checked as `read` does, without reading all values."""

    def read(self, key: str, width: int | None = None) -> np.ndarray:
        """(rows, D) float32, finite, of D = `width` if that is given."""

    def close(self) -> None:
        """Close what is open; a second time changes nothing."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *raised: object) -> None: ...


@dataclass(frozen=True)
class Stored:
    """An array that was found, and of which nothing is in memory yet.

    Attributes:
        shape, dtype: of what `load` gives.
        stored_as: name of the type on the disk, where numpy has none such.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]
    stored_as: str | None = None


class ArraySource(Closing):
    """What readers share: an array is found, checked by its shape and type, and only then read.

    They have `find`, which raises what it may, and `feature_keys`.
    """

    def __init__(self, path: Path, dataset: str | None = None) -> None:
        self.path, self.dataset = path, dataset
        self._last: tuple[str, Stored] | None = None  # of `form`, which `read` mostly follows

    def close(self) -> None:
        """Let go of what was found last; nothing is open between two calls."""
        self._last = None

    def made_by(self) -> dict[str, Any]:
        """Nothing: these forms do not say what made them."""
        return {}

    def name_of(self, key: str) -> str:
        """What errors call the place of a key."""
        return key

    def find(self, key: str) -> Stored:
        """The array of a key."""
        raise NotImplementedError

    def form(self, key: str, width: int | None = None) -> tuple[int, int, str]:
        """See `FeatureSource`."""
        stored = self._found(key, width)
        counted = rows_and_width(stored.shape)
        assert counted is not None
        return (*counted, stored.stored_as or stored.dtype.name)

    def read(self, key: str, width: int | None = None) -> np.ndarray:
        """(rows, D) float32, finite, of a key; axes of length 1 besides are taken out, see `feature_array`.

        `FeatureError` when it is damaged or not an array of that kind, of D = `width` if that is given.
        """
        stored, name = self._found(key, width), self.name_of(key)
        tell_left_out(self.path, name, stored.shape)
        with self._naming(name):
            features = as_features(stored.load())
        self._last = None
        if features is None:
            raise FeatureError(self.path, name, "holds NaN or Inf: extract it again")
        return features

    def _found(self, key: str, width: int | None) -> Stored:
        name = self.name_of(key)
        if self._last is None or self._last[0] != key:
            self._last = None  # before the next one is in memory
            with self._naming(name):
                self._last = key, self.find(key)
        stored = self._last[1]
        if wrong := why_not_features(stored.shape, stored.dtype, width):
            raise FeatureError(self.path, name, wrong)
        return stored

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Make what libraries raise on damaged files an error that names file and key."""
        try:
            yield
        except DAMAGED as err:
            raise FeatureError(self.path, name, f"cannot be read ({first_line(err)}): copy it again") from err


def refuse_claims(n_bytes: int, stored: int) -> None:
    """A `ValueError` if so few stored bytes can hardly hold an array of `n_bytes`, see `expands_too_much`."""
    if expands_too_much(n_bytes, stored):
        raise ValueError(f"claims {n_bytes / 2**20:,.0f} MiB, but {stored / 2**20:,.1f} MiB are stored")
