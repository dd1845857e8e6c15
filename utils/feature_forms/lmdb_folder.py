"""HERO's features: a folder with an LMDB, `data.mdb`, whose values are msgpack or `.npz` archives."""

from __future__ import annotations

import io
from pathlib import Path

from utils.basic_utils import InputError, first_line, needed
from utils.feature_files.feature_file import FeatureError
from utils.feature_forms.lmdb_process import LmdbProcess
from utils.feature_forms.msgpack_arrays import unpack
from utils.feature_forms.named_arrays import features_among
from utils.feature_forms.npz_folder import find_in_npz
from utils.feature_forms.source import INSTALL, ArraySource, Stored

FILE = "data.mdb"
ABOUT = b"__"  # what the names of entries about the others begin with, such as __keys__
ZIP = b"PK\x03\x04"


class LmdbFolder(ArraySource):
    """Checked reading of `DIR/data.mdb`, which is not written to, and not locked."""

    def __init__(self, path: Path, dataset: str | None = None) -> None:
        super().__init__(path, dataset)
        needed("lmdb", f"{path} (an LMDB)", INSTALL)
        self._msgpack, self._process = needed("msgpack", f"{path} (an LMDB)", INSTALL), LmdbProcess(path)
        try:
            wanted = self._process.n_bytes()
        except OSError as err:
            self.close()
            raise InputError(f"{path / FILE}: cannot be opened as LMDB ({first_line(err)}): copy it again") from err
        if (there := (path / FILE).stat().st_size) < wanted:
            self.close()
            raise InputError(f"{path / FILE}: has {there:,} of {wanted:,} bytes: it was cut short, copy it again")

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._process.close()

    def feature_keys(self) -> list[str]:
        """The keys, in the file's order, but for those about the others."""
        try:
            keys = [key for key in self._process.all_keys() if not key.startswith(ABOUT)]
        except OSError as err:
            raise InputError(f"{self.path / FILE}: its keys cannot be read ({first_line(err)}): copy it again") from err
        if not keys:
            raise InputError(f"{self.path / FILE}: has no entry: is this the right folder?")
        return [key.decode("utf-8", "surrogateescape") for key in keys]

    def find(self, key: str) -> Stored:
        """The features in a value, a copy of which is in memory."""
        try:
            value = self._process.value(key.encode("utf-8", "surrogateescape"))
        except OSError as err:
            raise FeatureError(self.path, key, f"cannot be read ({first_line(err)}): copy it again") from err
        if value is None:
            raise FeatureError(self.path, key, "is not there")
        if value.startswith(ZIP):
            return find_in_npz(lambda: io.BytesIO(value), self.path, key, self.dataset)
        content = unpack(self._msgpack, value)
        if isinstance(content, Stored):
            return content
        if not isinstance(content, dict):
            raise FeatureError(self.path, key, f"is a {type(content).__name__}, expected a dict with features")
        arrays = {name: array for name, array in content.items() if isinstance(array, Stored)}
        return features_among(list(arrays), arrays.__getitem__, self.path, key, self.dataset)
