"""Encoded videos as a search reads them: what every corpus offers, and in which order. No files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from utils.tensor_utils import to_device

LEAST_NORM = 1e-12


class Run(NamedTuple):
    """Entries of one shape that lie one after another."""

    entries: np.ndarray  # (n,)
    n_clips: int  # of each
    rows: slice  # n times the same number of them


class RunsOnDevice(NamedTuple):
    """Of n entries of a block, (n,) int64 each."""

    entries: torch.Tensor
    first_row: torch.Tensor  # counted from the block's first
    n_clips: torch.Tensor


class Runs(tuple[Run, ...]):
    """The runs of a block one after another; what a device is told of them is told once."""

    @cached_property
    def entries(self) -> np.ndarray:
        """(n,) all entries of the block."""
        return np.concatenate([run.entries for run in self])

    def on(self, device: torch.device) -> RunsOnDevice:
        """The entries and where their clips are, on a device."""
        if device not in self._on:
            counts = [len(run.entries) for run in self]
            n_rows = [(run.rows.stop - run.rows.start) // n for run, n in zip(self, counts, strict=True)]
            ends = np.cumsum(np.repeat(n_rows, counts))
            first, n_clips = ends - np.repeat(n_rows, counts), np.repeat([run.n_clips for run in self], counts)
            self._on[device] = RunsOnDevice(*(to_device(x, device) for x in (self.entries, first, n_clips)))
        return self._on[device]

    @cached_property
    def _on(self) -> dict[torch.device, RunsOnDevice]:
        return {}


class ByLength:
    """Entries in order of length, so that those of one length are scored by one matrix product.

    Args:
        n_clips, n_rows: (Nv,) int64, clips and rows of each entry.
        entries: (Nv,) int64, what the entries are called, by default 0, 1, 2 …

    Attributes:
        order: (Nv,) int64, the entry at each position.
        bounds: (Nv + 1,) int64, position p has the rows [bounds[p], bounds[p + 1]).
    """

    def __init__(self, n_clips: np.ndarray, n_rows: np.ndarray, entries: np.ndarray | None = None) -> None:
        order = np.lexsort((n_rows, n_clips))
        self.order = order if entries is None else entries[order]
        shapes = np.stack([n_clips, n_rows], axis=1)[order]
        self._n_clips = shapes[:, 0]
        self._changes = np.flatnonzero((shapes[1:] != shapes[:-1]).any(axis=1)) + 1  # where another shape begins
        self.bounds = np.concatenate([[0], np.cumsum(shapes[:, 1])])
        self._cut: tuple[int, list[tuple[slice, Runs]]] = (0, [])

    def blocks(self, max_rows: int) -> list[tuple[slice, Runs]]:
        """Positions of each block and the runs of their entries, rows counted from the block's first.

        A block has at most `max_rows`, unless it is but one entry. Blocks are kept for the next pass, which has blocks
        of the same size as a rule.
        """
        if self._cut[0] != max_rows:
            self._cut = max_rows, list(self._blocks(max_rows))
        return self._cut[1]

    def _blocks(self, max_rows: int) -> Iterator[tuple[slice, Runs]]:
        position, n = 0, len(self.order)
        while position < n:
            first = self.bounds[position]
            end = max(position + 1, int(np.searchsorted(self.bounds, first + max_rows, side="right")) - 1)
            inside = self._changes[(self._changes > position) & (self._changes < end)]
            edges = [position, *inside.tolist(), end]
            starts = (self.bounds[edges] - first).tolist()  # in rows
            runs = Runs(
                Run(self.order[a:b], int(self._n_clips[a]), slice(*rows))
                for (a, b), rows in zip(pairwise(edges), pairwise(starts), strict=True)
            )
            yield slice(position, end), runs
            position = end


class Block(NamedTuple):
    """Some entries of a corpus, with all of their rows."""

    rows: torch.Tensor  # (R, V, D)
    norms: torch.Tensor  # (V, R) float32, lengths of the rows, at least `LEAST_NORM`
    runs: Runs  # the rows of each counted within these


class UnreadBlock(NamedTuple):
    """A `Block` before it is read, by any thread: what is in it, and what reads it."""

    runs: Runs
    read: Callable[[], Block]


class Corpus(ABC):
    """Encoded videos as a `Searcher` reads them, wherever they are kept.

    Entry i has min(L_i + kernel // 2, max_ctx_l) rows. Those past its L_i clips are encodings of padding. No search
    returns them, but the boundary clips' scores need them, because the convolutions see past the end. A corpus may be
    any part of a larger one: entries are numbered within it.
    """

    n_vectors: int  # of a row, V: see `encode_videos`
    n_clips: np.ndarray  # (Nv,) int64, the L_i
    n_rows: np.ndarray  # (Nv,) int64
    dtype: torch.dtype  # of rows, and what they are multiplied in; results are float32
    device: torch.device  # of rows; queries are there too
    # rows of the blocks that a search goes through it fastest by: what is computed of one stays in a CPU's caches
    block_rows = 1 << 12

    def __len__(self) -> int:
        return len(self.n_clips)

    @abstractmethod
    def rows_of(self, entry: int) -> torch.Tensor:
        """(R_i, V, D) rows of an entry, to be used before the next are asked for."""

    @abstractmethod
    def clips_of(self, entries: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of some entries one after another, padding left out: (R, V, D), and their lengths (V, R)."""

    @abstractmethod
    def rows_with(self, entries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows (R, V, D) of entries (Nq, E) int64, and of each entry the number of its first row and how many it has.

        There may be others among them, but R is at most Nq * E times the most that an entry has.
        """

    def expect(self, entries: np.ndarray) -> None:  # noqa: B027 (what is in memory is there already)
        """Say that the clips of some entries will be asked for: what is on disk may be read ahead of that."""

    @abstractmethod
    def unread_blocks(self, max_rows: int) -> Iterator[UnreadBlock]:
        """The whole corpus, some entries at a time; what a thread reads is to be used before it reads more.

        A block has at most `max_rows`, unless it is but one entry.
        """

    def blocks(self, max_rows: int) -> Iterator[Block]:
        """The same, read one after another, each to be used before the next is asked for."""
        for unread in self.unread_blocks(max_rows):
            yield unread.read()


def row_norms(rows: torch.Tensor) -> torch.Tensor:
    """Lengths of (R, V, D) rows, (R, V) float32: they turn dot products into cosines."""
    return torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float32).clamp_min(LEAST_NORM)
