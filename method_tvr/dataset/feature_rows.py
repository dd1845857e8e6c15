"""Padded batches of one feature file's cached rows, in host memory or on the model's device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from method_tvr.dataset.feature_cache import PackedRows
from method_tvr.dataset.feature_store import TEF_SIZE, temporal_endpoint_features
from utils.basic_utils import InputError
from utils.tensor_utils import to_device

RELEASE_BYTES = 1 << 28  # read from mapped rows before their pages are given back
COPY_BYTES = 1 << 26  # of rows copied to a device at a time


class HostRows:
    """Batches in host memory.

    Args:
        packed: the rows, in memory or mapped from disk.
        pin_memory: make them in pinned memory, for copies to CUDA.
    """

    device = torch.device("cpu")

    def __init__(self, packed: PackedRows, pin_memory: bool = False) -> None:
        self.packed = packed
        self._pin_memory = pin_memory
        self._bytes_read = 0

    def entries(self, keys: Sequence[str]) -> np.ndarray:
        """(N,) int64 numbers of keys, all of which must be there."""
        return np.array([self.packed.entries[key] for key in keys], dtype=np.int64)

    def stretches(
        self, keys: Sequence[str], rows: Sequence[range | None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int64 first rows and numbers of rows of keys, or, where `rows` are given, of these within each key's."""
        entries = self.entries(keys)
        starts, lengths = self.packed.starts[entries], self.packed.lengths[entries]
        for number, some in enumerate(rows or ()):
            if some is not None:
                starts[number] += some.start
                lengths[number] = min(some.stop, lengths[number]) - some.start
        return starts, lengths

    def padded(self, starts: np.ndarray, lengths: np.ndarray, length: int, use_tef: bool = False) -> torch.Tensor:
        """N stretches of rows, zeros after each one's end: (N, length, D) float32, tef appended if asked for."""
        packed, width = self.packed, self.packed.rows.shape[1]
        shape = (len(starts), length, width + TEF_SIZE * use_tef)
        # pages of numpy's zeros cost nothing before they are touched
        batch = torch.zeros(shape, pin_memory=True) if self._pin_memory else torch.from_numpy(np.zeros(shape, "f4"))
        rows = batch.numpy()
        for row, start, n in zip(rows, starts, lengths, strict=True):
            row[:n, :width] = packed.rows[start : start + n]
            if use_tef:
                row[:n, width:] = _tef(int(n))
        self._bytes_read += int(lengths.sum()) * width * packed.rows.itemsize
        if self._bytes_read > RELEASE_BYTES:  # or a mapped corpus would come to count as this process's memory
            packed.release()
            self._bytes_read = 0
        return batch


class DeviceRows(HostRows):
    """Batches on a device, from rows that are held there.

    Args:
        packed: where the rows come from.
        keys: those that will be asked for.
        device: where they are held, in the packed rows' number type.
        use_tef: leave room for tef in each row, so that a batch is gathered with it at once.

    Raises:
        InputError: the device has no room for them.
    """

    def __init__(self, packed: PackedRows, keys: Sequence[str], device: torch.device, use_tef: bool = False) -> None:
        chosen = np.array([packed.entries[key] for key in keys], dtype=np.int64)
        lengths = packed.lengths[chosen]
        starts = np.cumsum(lengths) - lengths
        super().__init__(
            PackedRows(packed.rows, dict(zip(keys, range(len(keys)), strict=True)), starts, lengths, lengths)
        )
        self.device, self._use_tef = device, use_tef
        n_rows, width = int(lengths.sum()), packed.rows.shape[1]
        dtype = torch.float16 if packed.rows.dtype == np.float16 else torch.float32
        shape = (n_rows + 1, width + TEF_SIZE * use_tef)
        try:
            self._rows = torch.zeros(shape, dtype=dtype, device=device)  # the last one stays zeros: padding
        except torch.cuda.OutOfMemoryError as err:
            raise InputError(
                f"{shape[0] * shape[1] * dtype.itemsize / 2**30:.1f} GiB of features do not fit on {device}: "
                "use --feature_cache ram, or halve them with --cache_dtype float16"
            ) from err
        self._nothing = torch.tensor(n_rows, device=device)
        number = starts * width * dtype.itemsize // COPY_BYTES
        for group in np.split(np.arange(len(keys)), np.flatnonzero(np.diff(number)) + 1):
            block = np.concatenate(
                [packed.rows[at : at + n] for at, n in zip(packed.starts[chosen[group]], lengths[group], strict=True)]
            )
            rows = slice(starts[group[0]], starts[group[0]] + len(block))
            self._rows[rows, :width] = torch.from_numpy(block).to(device)

    def padded(self, starts: np.ndarray, lengths: np.ndarray, length: int, use_tef: bool = False) -> torch.Tensor:
        """As `HostRows.padded`, on the device, which the host does not wait for."""
        assert use_tef == self._use_tef
        where = to_device(np.stack([starts, lengths]), self.device)
        return self.gathered(self.rows_of(where[0], where[1], length), where[1])

    def rows_of(self, starts: torch.Tensor, lengths: torch.Tensor, length: int) -> torch.Tensor:
        """(N, length) int64 rows of N stretches (N,), (N,) int64, and after each one's end that of zeros."""
        clip = torch.arange(length, device=self.device)
        return torch.where(clip < lengths.unsqueeze(1), starts.unsqueeze(1) + clip, self._nothing)

    def gathered(self, rows: torch.Tensor, lengths: torch.Tensor, tef: torch.Tensor | None = None) -> torch.Tensor:
        """Batch of `rows_of`: (N, length, D) float32, tef included, by default that of stretches of these lengths."""
        batch = self._rows.index_select(0, rows.flatten()).view(*rows.shape, -1).float()
        if self._use_tef:
            batch[..., -TEF_SIZE:] = tef_of(lengths, rows.shape[1]) if tef is None else tef
        return batch


def tef_of(lengths: torch.Tensor, length: int) -> torch.Tensor:
    """(N, length, 2) float32 tef of stretches of `lengths` (N,) clips, as `temporal_endpoint_features`, then zeros."""
    edges = torch.arange(length + 1, device=lengths.device) / lengths.unsqueeze(1)
    tef = torch.stack([edges[:, :-1], edges[:, 1:]], dim=2)
    return torch.where(edges[:, 1:, None] <= 1, tef, 0.0)


def length_mask(lengths: torch.Tensor, length: int) -> torch.Tensor:
    """(N, length) float32, 1 on the first `lengths` (N,) positions of each row."""
    return (torch.arange(length, device=lengths.device) < lengths[:, None]).float()


@lru_cache(maxsize=1024)
def _tef(n_clips: int) -> np.ndarray:
    return temporal_endpoint_features(n_clips)
