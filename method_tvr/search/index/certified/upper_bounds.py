"""What the scores of videos are not above, by the bytes that a level keeps of their clips; see `bounds`.

Rows are read block by block, each by one core, and what is computed of a block stays in its caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from method_tvr.search.corpus import ByLength, Runs
from method_tvr.search.index.certified.bounds import (
    Asked,
    Floats,
    Layout,
    Scales,
    Weights,
    products,
    side_by_side,
    weights,
)
from method_tvr.search.scoring import COLUMNS_A_STEP, pooled_run_by_run
from utils.cores import Room, on_each_core
from utils.storage.array_file import ArrayFile

ROWS_AT_A_TIME = 1 << 16  # whose bounds are computed at a time: they stay in the caches
NUMBERS_AT_A_TIME = 1 << 20  # of bounds, for several queries
GAP = 32  # rows that are read along rather than left out
MANY = 8  # queries, whose products are large enough to be computed of one length after another


class Level(NamedTuple):
    """What is kept of the rows of a part at one level: of each modality by itself, or of all of them side by side.

    The first level is read from end to end, the next one here and there.
    """

    scales: Sequence[Scales]  # of each modality
    rows: ArrayFile | np.ndarray  # (M, R, W) or (1, R, M * W) int8, on disk or in memory


class Block(NamedTuple):
    """Entries of a part that are looked at together: their rows are read one stretch after another."""

    entries: slice  # of those that were asked for
    stretches: list[slice]  # of the part's rows
    edges: np.ndarray  # where the clips of each entry begin and end in what is read, one after another

    def by_length(self) -> tuple[np.ndarray, np.ndarray, Runs]:
        """Entries in order of length, counted from the first; the clips of each one after another; and their runs."""
        first, end = self.edges.reshape(-1, 2).T
        n_clips = end - first
        in_order = ByLength(n_clips, n_clips)
        ((_, runs),) = in_order.blocks(int(in_order.bounds[-1]))
        before = first[in_order.order] - in_order.bounds[:-1]
        return in_order.order, np.arange(in_order.bounds[-1]) + before.repeat(n_clips[in_order.order]), runs


class Wanted(NamedTuple):
    """Rows of a block that are to be multiplied."""

    kept: ArrayFile | np.ndarray  # see `Level`
    number: int  # of the kept ones, the modality or 0
    block: Block
    of: Sequence[Weights]  # for the bytes of a row, each as many as there are for the others


PartBlocks = tuple[int, list[Block]]  # number of a part, and blocks of its entries


def blocks_of(first: np.ndarray, n_clips: np.ndarray, most: int, number: int) -> Iterator[Block]:
    """Entries, in the order of their rows, in blocks of about `most` rows; the first of them has a number."""
    end = first + n_clips
    apart = np.append(True, first[1:] - end[:-1] > GAP)  # a stretch begins
    skipped = np.cumsum(np.where(apart, first - np.append(0, end[:-1]), 0))
    place = (first - skipped) // most
    begins = np.flatnonzero(np.append(True, place[1:] != place[:-1])).tolist()
    for a, b in zip(begins, [*begins[1:], len(first)], strict=True):
        new = np.append(True, apart[a + 1 : b])
        firsts = first[a:b][new]
        ends = np.append(end[a : b - 1][new[1:]], end[b - 1])
        before = np.cumsum(ends - firsts) - (ends - firsts)
        shift = (before - firsts)[np.cumsum(new) - 1]
        edges = np.stack([first[a:b] + shift, end[a:b] + shift], axis=1).ravel()
        yield Block(slice(number + a, number + b), list(map(slice, firsts.tolist(), ends.tolist())), edges)


class UpperBounds:
    """Of the scores of a corpus' entries.

    Args:
        layouts: of each level.
        level: number of a part and of a level -> that level of the part's rows.
        part, first_row: (Nv,) int64, where each entry lies: its part, and the first of its rows there.
        n_clips: (Nv,) int64.

    Attributes:
        in_order: (Nv,) all entries in the order in which they lie.
    """

    def __init__(
        self,
        layouts: Sequence[Layout],
        level: Callable[[int, int], Level],
        part: np.ndarray,
        first_row: np.ndarray,
        n_clips: np.ndarray,
    ) -> None:
        self._layouts, self._level = layouts, level
        self._part, self._first, self._n_clips = part, first_row, n_clips
        self.in_order = np.lexsort((first_row, part))
        self._whole: tuple[int, list[PartBlocks]] = (0, [])  # blocks of that many rows, of all entries

    def of(self, queries: Sequence[Floats], entries: np.ndarray, level: int) -> tuple[npt.NDArray[np.float32], int]:
        """(Nq, n) what scores of entries (n,), in the order in which they lie, are not above; and bytes that were read.

        Queries are given by their coordinates (Nq, D) in each modality.
        """
        n, layout = len(queries[0]), self._layouts[level]
        found, n_bytes = np.zeros((n, len(entries)), np.float32), 0
        if n >= MANY:  # to whole steps of a product
            queries = [np.pad(coordinates, ((0, -n % COLUMNS_A_STEP), (0, 0))) for coordinates in queries]
        asked = [Asked.of(coordinates, layout) for coordinates in queries]
        most = max(1 << 12, min(ROWS_AT_A_TIME, NUMBERS_AT_A_TIME // n))

        def wanted() -> Iterator[Wanted]:
            for part, blocks in self._blocks(entries, most):
                there = self._level(part, level)
                of = [weights(one, layout, own, level > 0) for one, own in zip(asked, there.scales, strict=True)]
                if len(there.rows) == len(of):
                    together = [[own] for own in of]
                else:  # modalities are side by side
                    together = [of if n >= MANY else [side_by_side(of)]]
                for block in blocks:
                    yield from (Wanted(there.rows, number, block, own) for number, own in enumerate(together))

        room: Room[np.ndarray] = Room(lambda n: np.empty(n, np.int8))

        def above(this: Wanted) -> tuple[int, np.ndarray | slice, np.ndarray]:
            rows = _read(this, room)
            if n >= MANY:
                order, of_many = _above_of_many(rows, this.block, this.of)
                return rows.nbytes, this.block.entries.start + order, of_many[:n].numpy()
            of_few = _best(rows, this.block, this.of[0]) * this.of[0].step + this.of[0].constant
            return rows.nbytes, this.block.entries, of_few.reshape(len(of_few), -1, n).sum(axis=1).T

        for read, places, of_block in on_each_core(above, wanted()):
            n_bytes += read
            found[:, places] += of_block
        return np.divide(found, len(queries), out=found), n_bytes

    def _blocks(self, entries: np.ndarray, most: int) -> list[PartBlocks]:
        """Entries, in the order in which they lie, part by part; those of all are kept for the next query."""
        if entries is self.in_order and self._whole[0] == most:
            return self._whole[1]
        of_part, found = self._part[entries], []
        begins = np.flatnonzero(np.append(True, of_part[1:] != of_part[:-1])).tolist()
        for a, b in zip(begins, [*begins[1:], len(entries)], strict=True):
            some = entries[a:b]
            found.append((int(of_part[a]), list(blocks_of(self._first[some], self._n_clips[some], most, a))))
        if entries is self.in_order:
            self._whole = most, found
        return found


def _read(wanted: Wanted, room: Room[np.ndarray]) -> np.ndarray:
    """(n, W) int8 rows of a block, one stretch after another, until the thread reads the next."""
    kept, number, block, _ = wanted
    if isinstance(kept, np.ndarray) and len(block.stretches) == 1:
        return np.asarray(kept[number, block.stretches[0]])
    n, width = sum(stretch.stop - stretch.start for stretch in block.stretches), kept.shape[2]
    found = room.of(n * width).reshape(n, width)
    if isinstance(kept, np.ndarray):
        return np.concatenate([kept[number, stretch] for stretch in block.stretches], out=found)
    kept.read_stretches(found, block.stretches, number)
    return found


def _best(rows: np.ndarray, block: Block, of: Weights) -> npt.NDArray[np.int32]:
    """(n, Nq) the largest product of the clips of each entry of a block, of as many queries as have weights."""
    found = F.pad(products(torch.from_numpy(rows), of), (0, 0, 0, 1)).numpy()  # to where the last entry's clips end
    flat = found if found.shape[1] > 1 else found[:, 0]
    best: npt.NDArray[np.int32] = np.maximum.reduceat(flat, block.edges, axis=0)[::2]
    return best.reshape(-1, found.shape[1])


def _above_of_many(rows: np.ndarray, block: Block, of: Sequence[Weights]) -> tuple[np.ndarray, torch.Tensor]:
    """A block's entries in an order, (n,), and what sums over modalities, or over one, (Nq, n) are not above."""
    order, clips, runs = block.by_length()
    total = torch.zeros((len(order), len(of[0].step)))
    for own, columns in zip(of, torch.from_numpy(rows[clips]).chunk(len(of), dim=1), strict=True):
        best = pooled_run_by_run(products(columns, own), runs).float()
        step, constant = (torch.from_numpy(x).float() for x in own[1:])
        total.addcmul_(best, step).add_(constant)
    return order, total.t()
