"""Encoded videos as a search reads them: what every corpus offers, and how entries are packed. No files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

LEAST_NORM = 1e-12


class Run(NamedTuple):
    """Entries of one shape that lie one after another."""

    entries: np.ndarray  # (n,)
    n_clips: int  # of each
    rows: slice  # n times the same number of them


class Packing:
    """Entries packed in order of length, so that those of one length are scored by one matrix product.

    Args:
        n_clips, n_rows: (Nv,) int64, clips and rows of each entry.
    """

    def __init__(self, n_clips: np.ndarray, n_rows: np.ndarray) -> None:
        self.order = np.lexsort((n_rows, n_clips))  # position -> entry
        shapes = np.stack([n_clips, n_rows], axis=1)[self.order]
        self._n_clips = shapes[:, 0]
        another = (shapes[1:] != shapes[:-1]).any(axis=1)
        self._changes = np.flatnonzero(another) + 1  # positions where another shape begins
        self.bounds = np.concatenate([[0], np.cumsum(shapes[:, 1])])  # position p has rows [bounds[p], bounds[p + 1])

    def blocks(self, max_rows: int) -> Iterator[tuple[slice, list[Run]]]:
        """All positions, some at a time.

        Yields:
            positions, and the runs that their entries form, rows counted from the first of the block; it has at most
            `max_rows`, unless it is but one entry.
        """
        position, n = 0, len(self.order)
        while position < n:
            first = self.bounds[position]
            end = max(position + 1, int(np.searchsorted(self.bounds, first + max_rows, side="right")) - 1)
            inside = self._changes[(self._changes > position) & (self._changes < end)]
            runs = [
                Run(
                    self.order[a:b],
                    int(self._n_clips[a]),
                    slice(int(self.bounds[a] - first), int(self.bounds[b] - first)),
                )
                for a, b in pairwise([position, *inside.tolist(), end])
            ]
            yield slice(position, end), runs
            position = end


class Block(NamedTuple):
    """Some entries of a corpus, with all of their rows."""

    rows: torch.Tensor  # (R, M, D)
    norms: torch.Tensor  # (M, R) float32, lengths of the rows, at least `LEAST_NORM`
    runs: list[Run]  # the rows of each counted within these


class Corpus(ABC):
    """Encoded videos as a `Searcher` reads them, wherever they are kept.

    Entry i has min(L_i + kernel // 2, max_ctx_l) rows. Those past its L_i clips are encodings of padding. No search
    returns them, but the boundary clips' scores need them, because the convolutions see past the end. A corpus may be
    any part of a larger one: entries are numbered within it.

    Attributes:
        n_clips: (Nv,) int64, the L_i.
        n_rows: (Nv,) int64.
        dtype: of rows, and what they are multiplied in; results are float32.
        device: of rows; queries are there too.
    """

    n_clips: np.ndarray
    n_rows: np.ndarray
    dtype: torch.dtype
    device: torch.device

    def __len__(self) -> int:
        return len(self.n_clips)

    @abstractmethod
    def rows_of(self, entry: int) -> torch.Tensor:
        """(R_i, M, D) rows of an entry, to be used before the next are asked for."""

    @abstractmethod
    def clips_of(self, entries: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of some entries one after another, padding left out: (R, M, D), and their lengths (M, R)."""

    def expect(self, entries: np.ndarray) -> None:  # noqa: B027 (what is in memory is there already)
        """Say that the clips of some entries will be asked for: what is on disk may be read ahead of that."""

    @abstractmethod
    def blocks(self, max_rows: int) -> Iterator[Block]:
        """The whole corpus, some entries at a time, each to be used before the next is asked for.

        A block has at most `max_rows`, unless it is but one entry.
        """


def row_norms(rows: torch.Tensor) -> torch.Tensor:
    """Lengths of (R, M, D) rows, (R, M) float32: they turn dot products into cosines."""
    return torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float32).clamp_min(LEAST_NORM)
