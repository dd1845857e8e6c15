"""An encoded corpus in memory, of a CPU or of a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain

import numpy as np
import torch

from method_tvr.search.corpus import Block, ByLength, Corpus, Runs, UnreadBlock, row_norms
from utils.tensor_utils import to_device

DEVICE_BLOCK_ROWS = 1 << 18  # on a GPU: 0.8 GB of float32 rows in TVR's size, and 0.3 GB of scores for 256 queries
NORM_ROWS = 1 << 18  # whose lengths are computed at a time


class EncodedCorpus(Corpus):
    """Encoded videos in memory, packed in order of length; entries are numbered as they were given.

    Args:
        rows: per entry (R_i, V, D) encodings of its clips and of the padding after them.
        dtype: what rows are multiplied in. Less than float32 changes scores a little.
        n_clips, n_rows: (Nv,) the L_i, and the R_i where `rows` are made one after another.
        kept: what rows are kept in, by default `dtype`; of another type, those in use are converted.
        device: where they are kept, by default where they are.
    """

    def __init__(
        self,
        rows: Iterable[torch.Tensor],
        n_clips: Sequence[int] | np.ndarray,
        dtype: torch.dtype = torch.float32,
        n_rows: np.ndarray | None = None,
        kept: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.n_clips = np.asarray(n_clips, dtype=np.int64)
        if n_rows is None:
            rows = list(rows)
            n_rows = np.array([len(of_entry) for of_entry in rows], dtype=np.int64)
        self.n_rows, self._by_length = n_rows, ByLength(self.n_clips, n_rows)
        bounds = self._by_length.bounds
        self._first_row = np.empty_like(n_rows)
        self._first_row[self._by_length.order] = bounds[:-1]
        rows = iter(rows)
        some = next(rows)
        self.dtype, self.device = dtype, some.device if device is None else device
        if self.device.type != "cpu":
            self.block_rows = DEVICE_BLOCK_ROWS
        self.n_vectors, shape = some.shape[1], (int(bounds[-1]), *some.shape[1:])
        self.rows = torch.empty(shape, dtype=dtype if kept is None else kept, device=self.device)  # (all rows, V, D)
        for entry, of_entry in enumerate(chain([some], rows)):
            self._kept_rows(entry).copy_(of_entry)
        norms = [row_norms(self.rows[first : first + NORM_ROWS]).t() for first in range(0, shape[0], NORM_ROWS)]
        self._norms = torch.cat(norms, dim=1)  # (V, all rows)
        self._places = [to_device(of_entry, self.device) for of_entry in (self._first_row, self.n_rows)]

    def _kept_rows(self, entry: int) -> torch.Tensor:
        first = self._first_row[entry]
        return self.rows[first : first + self.n_rows[entry]]

    def rows_of(self, entry: int) -> torch.Tensor:
        return self._kept_rows(entry).to(self.dtype)

    def rows_with(self, entries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All rows, or copies of those of the entries where these are fewer; see `Corpus.rows_with`."""
        (first, n_rows), longest = (where[entries] for where in self._places), int(self.n_rows.max())
        if entries.numel() * longest >= len(self.rows):
            return self.rows.to(self.dtype), first, n_rows
        each = first.view(-1, 1) + torch.arange(longest, device=self.device)  # a shorter entry's are followed by others
        rows = self.rows[each.flatten().clamp_(max=len(self.rows) - 1)].to(self.dtype)
        return rows, torch.arange(0, len(rows), longest, device=self.device).view(entries.shape), n_rows

    def clips_of(self, entries: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of rows and norms; see `Corpus.clips_of`."""
        first, n_clips = self._first_row[entries], self.n_clips[entries]
        stretches = [slice(a, b) for a, b in zip(first.tolist(), (first + n_clips).tolist(), strict=True)]
        rows = torch.cat([self.rows[s] for s in stretches]).to(self.dtype)
        return rows, torch.cat([self._norms[:, s] for s in stretches], dim=1)

    def unread_blocks(self, max_rows: int) -> Iterator[UnreadBlock]:
        bounds = self._by_length.bounds
        for positions, runs in self._by_length.blocks(max_rows):
            rows = slice(int(bounds[positions.start]), int(bounds[positions.stop]))
            yield UnreadBlock(runs, partial(self._block, rows, runs))

    def _block(self, rows: slice, runs: Runs) -> Block:
        return Block(self.rows[rows].to(self.dtype), self._norms[:, rows], runs)
