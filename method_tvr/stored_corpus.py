"""An encoded corpus that is searched from disk: rows are read block by block from mapped files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from method_tvr.corpus_store import CorpusStore
from method_tvr.packing import Block, Corpus, Packing
from utils.basic_utils import progress


@dataclass(frozen=True)
class _Share:
    """What a corpus has of one part: entries in the order of their rows, and how these are packed."""

    part: int
    entries: np.ndarray
    packing: Packing


class StoredCorpus(Corpus):
    """Videos of a corpus on disk, entries in the order of their names; of one that was cut, an entry for each window.

    Rows come as float32 whatever they are kept in, and as copies or as views of the mapped files; in memory are only
    the rows in use, and some tens of bytes for each video.

    Args:
        store: the corpus on disk.
        vid_names: which of its videos, each once; all have to be there. All of them, those of a split, or a share:
            several searchers may divide a store's videos among them.
        device: where rows are needed.
    """

    def __init__(self, store: CorpusStore, vid_names: Sequence[str], device: torch.device) -> None:
        self.dtype, self.device = torch.float32, device
        self._store = store
        where = np.array([store.where[name] for name in vid_names], dtype=np.int64).reshape(-1, 2)
        self._part, place, window = _entries(where, store)
        self.n_clips, self.n_rows, self._first_row = (np.empty_like(place) for _ in range(3))
        self._shares = []
        for part in np.unique(self._part).tolist():
            entries = np.flatnonzero(self._part == part)
            entries = entries[np.lexsort((window[entries], place[entries]))]
            table, places = store.parts[part], place[entries]
            size = store.recipe.max_ctx_l  # no video that was not cut has more rows, and any window has as many
            self.n_clips[entries] = np.minimum(table.n_clips[places], size)
            self.n_rows[entries] = np.minimum(table.n_rows[places], size)
            self._first_row[entries] = (np.cumsum(table.n_rows) - table.n_rows)[places] + size * window[entries]
            self._shares.append(_Share(part, entries, Packing(self.n_clips[entries], self.n_rows[entries])))

    def rows_of(self, entry: int) -> torch.Tensor:
        """(R_i, M, D) rows of an entry."""
        first = self._first_row[entry]
        rows = self._store.mapped(int(self._part[entry])).rows[first : first + self.n_rows[entry]]
        self._store.was_read(rows.nbytes)
        return self._tensor(rows)

    def expect(self, entries: np.ndarray) -> None:
        """Have the system read rows from disk beside each other, not one after another; see `Corpus.expect`."""
        places = zip(self._part[entries], self._first_row[entries], self.n_clips[entries], strict=True)
        for part, first, n in places:
            self._store.mapped(int(part)).expect(int(first), int(n))

    def clips_of(self, entries: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of rows and norms; see `Corpus.clips_of`."""
        rows, norms = [], []
        places = zip(self._part[entries], self._first_row[entries], self.n_clips[entries], strict=True)
        for part, first, n in places:
            mapped = self._store.mapped(int(part))
            rows.append(mapped.rows[first : first + n])
            norms.append(mapped.norms[:, first : first + n])
        # joined as they are kept: half of the bytes, for fp16. Pages stay mapped: the next query may want them again
        return self._tensor(np.concatenate(rows)), self._tensor(np.concatenate(norms, axis=1))

    def blocks(self, max_rows: int) -> Iterator[Block]:
        """The whole corpus, part by part; see `Corpus.blocks`."""
        for share in progress(self._shares, "reading the encoded corpus"):
            mapped = self._store.mapped(share.part)
            for positions, runs in share.packing.blocks(max_rows):
                stretches = self._stretches(share.entries[share.packing.order[positions]])
                rows = _joined([mapped.rows[stretch] for stretch in stretches], axis=0)
                norms = _joined([mapped.norms[:, stretch] for stretch in stretches], axis=1)
                named = [run._replace(entries=share.entries[run.entries]) for run in runs]
                yield Block(self._tensor(rows), self._tensor(norms), named)
                self._store.was_read(rows.nbytes + norms.nbytes)
        self._store.release()

    def _stretches(self, entries: np.ndarray) -> list[slice]:
        """The rows of entries, in their order: rows that lie one after another in as few slices as there can be."""
        firsts = self._first_row[entries]
        ends = firsts + self.n_rows[entries]
        gaps = np.flatnonzero(firsts[1:] != ends[:-1])
        begins, stops = np.append(0, gaps + 1), np.append(gaps, len(entries) - 1)
        return [slice(int(firsts[a]), int(ends[b])) for a, b in zip(begins, stops, strict=True)]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device).to(self.dtype)


def _entries(where: np.ndarray, store: CorpusStore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Part, place in it, and number of the window, of each entry (Nv,), from part and place of each video (n, 2)."""
    part, place = where.T
    windows = store.recipe.windows
    if windows is None:
        return part, place, np.zeros_like(place)
    counts = np.array([windows.count(store.parts[a].n_clips[b].item()) for a, b in where.tolist()], dtype=np.int64)
    first = np.cumsum(counts) - counts
    return part.repeat(counts), place.repeat(counts), np.arange(counts.sum()) - first.repeat(counts)


def _joined(arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)
