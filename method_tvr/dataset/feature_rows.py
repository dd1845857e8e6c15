"""Padded batches of one feature file's cached rows, in host memory or on the model's device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from method_tvr.dataset.feature_store import TEF_SIZE, temporal_endpoint_features
from utils.basic_utils import InputError
from utils.storage.array_file import ArrayFile
from utils.tensor_utils import to_device

COPY_BYTES = 1 << 26  # of rows copied to a device at a time


@dataclass
class FeatureRows:
    """Prepared rows of K keys, one after the other, that give batches in host memory.

    Key number e has rows [starts[e], starts[e] + lengths[e]).
    """

    rows: np.ndarray | ArrayFile  # (R, D) float32 or float16, in memory or in the file of a cache
    numbers: dict[str, int]  # of each key
    starts: np.ndarray  # (K,) int64
    lengths: np.ndarray  # (K,) int64
    counts: np.ndarray  # (K,) int64, rows before some were averaged or cut

    device = torch.device("cpu")

    def of(self, key: str) -> np.ndarray:
        """(L, D) rows of a key."""
        number = self.numbers[key]
        return self.rows[self.starts[number] : self.starts[number] + self.lengths[number]]

    def numbers_of(self, keys: Iterable[str]) -> np.ndarray:
        """(N,) int64 numbers of keys, all of which must be there."""
        return np.array([self.numbers[key] for key in keys], dtype=np.int64)

    def stretches(
        self, keys: Sequence[str], rows: Sequence[range | None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int64 first rows and numbers of rows of keys, or, where `rows` are given, of these within each key's."""
        numbers = self.numbers_of(keys)
        starts, lengths = self.starts[numbers], self.lengths[numbers]
        for number, some in enumerate(rows or ()):
            if some is not None:
                starts[number] += some.start
                lengths[number] = min(some.stop, lengths[number]) - some.start
        return starts, lengths

    def padded(
        self, starts: np.ndarray, lengths: np.ndarray, length: int, use_tef: bool = False, pin_memory: bool = False
    ) -> torch.Tensor:
        """N stretches of rows, zeros after each one's end: (N, length, D) float32, tef appended if asked for."""
        width = self.rows.shape[1]
        shape = (len(starts), length, width + TEF_SIZE * use_tef)
        # pages of numpy's zeros cost nothing before they are touched
        batch = torch.zeros(shape, pin_memory=True) if pin_memory else torch.from_numpy(np.zeros(shape, "f4"))
        for row, start, n in zip(batch.numpy(), starts, lengths, strict=True):
            row[:n, :width] = self.rows[start : start + n]
            if use_tef:
                row[:n, width:] = temporal_endpoint_features(int(n))
        return batch


class DeviceRows(FeatureRows):
    """Rows of some keys that are held on a device, in the source's number type, and give batches there.

    With `use_tef` there is room for tef in each row, so that a batch is gathered with it at once.
    """

    def __init__(self, source: FeatureRows, keys: Sequence[str], device: torch.device, use_tef: bool = False) -> None:
        chosen = source.numbers_of(keys)
        lengths = source.lengths[chosen]
        starts = np.cumsum(lengths) - lengths
        super().__init__(source.rows, dict(zip(keys, range(len(keys)), strict=True)), starts, lengths, lengths)
        self.device, self._use_tef = device, use_tef
        n_rows, width = int(lengths.sum()), source.rows.shape[1]
        dtype = torch.float16 if source.rows.dtype == np.float16 else torch.float32
        shape = (n_rows + 1, width + TEF_SIZE * use_tef)
        try:
            self._held_rows = torch.zeros(shape, dtype=dtype, device=device)  # the last one stays zeros: padding
        except torch.cuda.OutOfMemoryError as err:
            raise InputError(
                f"{shape[0] * shape[1] * dtype.itemsize / 2**30:.1f} GiB of features do not fit on {device}: "
                "use --feature_cache ram, or halve them with --cache_dtype float16"
            ) from err
        self._nothing = torch.tensor(n_rows, device=device)
        number = starts * width * dtype.itemsize // COPY_BYTES
        for group in np.split(np.arange(len(keys)), np.flatnonzero(np.diff(number)) + 1):
            block = np.concatenate(
                [source.rows[at : at + n] for at, n in zip(source.starts[chosen[group]], lengths[group], strict=True)]
            )
            rows = slice(starts[group[0]], starts[group[0]] + len(block))
            self._held_rows[rows, :width] = torch.from_numpy(block).to(device)

    def padded(
        self, starts: np.ndarray, lengths: np.ndarray, length: int, use_tef: bool = False, pin_memory: bool = False
    ) -> torch.Tensor:
        """As of `FeatureRows`, on the device, which the host does not wait for."""
        assert use_tef == self._use_tef
        where = to_device(np.stack([starts, lengths]), self.device)
        return self.gathered(self.rows_of(where[0], where[1], length), where[1])

    def rows_of(self, starts: torch.Tensor, lengths: torch.Tensor, length: int) -> torch.Tensor:
        """(N, length) int64 rows of N stretches (N,), (N,) int64, and after each one's end that of zeros."""
        clip = torch.arange(length, device=self.device)
        return torch.where(clip < lengths.unsqueeze(1), starts.unsqueeze(1) + clip, self._nothing)

    def gathered(self, rows: torch.Tensor, lengths: torch.Tensor, tef: torch.Tensor | None = None) -> torch.Tensor:
        """Batch of `rows_of`: (N, length, D) float32, tef included, by default that of stretches of these lengths."""
        batch = self._held_rows.index_select(0, rows.flatten()).view(*rows.shape, -1).float()
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
