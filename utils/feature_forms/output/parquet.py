"""Features as a Parquet file, a row for each video or sentence: what `datasets.load_dataset("parquet", …)` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from utils.basic_utils import needed, whole_file
from utils.feature_files.provenance import Plain
from utils.feature_forms.source import INSTALL

GROUP_BYTES = 1 << 24  # of features in a row group, as far as one video is not larger


class ParquetWriter:
    """Fills one file; see `new_parquet`."""

    def __init__(self, arrow: Any, writer: Any) -> None:
        self._arrow, self._writer = arrow, writer
        self._rows: list[tuple[str, np.ndarray]] = []
        self._n_bytes = 0

    def put(self, key: str, features: np.ndarray, stored_as: str) -> None:
        """Write a row: its `name`, and its `features` as lists of float32, of whatever type they came."""
        if self._n_bytes + features.nbytes > GROUP_BYTES:
            self.flush()
        self._rows.append((key, features))
        self._n_bytes += features.nbytes

    def flush(self) -> None:
        """Write what has been put as a row group."""
        if not self._rows:
            return
        names, arrays = [name for name, _ in self._rows], [array for _, array in self._rows]
        vectors = np.concatenate(arrays)
        rows = self._lists(np.arange(len(vectors) + 1) * vectors.shape[1], self._arrow.array(vectors.reshape(-1)))
        features = self._lists(np.cumsum([0, *map(len, arrays)]), rows)
        self._writer.write_table(self._arrow.table([self._arrow.array(names), features], self._writer.schema))
        self._rows, self._n_bytes = [], 0

    def _lists(self, ends: np.ndarray, values: Any) -> Any:
        return self._arrow.ListArray.from_arrays(self._arrow.array(ends.astype(np.int32)), values)


@contextmanager
def new_parquet(path: Path, record: Mapping[str, Plain]) -> Iterator[ParquetWriter]:
    """Write a Parquet file whole or not at all; the record of what made it is the metadata of its schema."""
    arrow, parquet = (needed(name, "--to parquet", INSTALL) for name in ("pyarrow", "pyarrow.parquet"))
    columns = [("name", arrow.string()), ("features", arrow.list_(arrow.list_(arrow.float32())))]
    schema = arrow.schema(columns, metadata={name: str(value) for name, value in record.items()})
    with whole_file(path) as part, parquet.ParquetWriter(part, schema) as file:
        writer = ParquetWriter(arrow, file)
        yield writer
        writer.flush()
