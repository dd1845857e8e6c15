"""An encoded corpus that is searched from disk: rows are read block by block."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, pairwise

import numpy as np
import torch

from method_tvr.search.corpus import Block, ByLength, Corpus, Runs, UnreadBlock
from method_tvr.search.corpus_store import CorpusStore, OpenPart
from method_tvr.search.memory_corpus import EncodedCorpus
from utils.basic_utils import progress
from utils.cores import Room
from utils.tensor_utils import to_device

SEARCH_BYTES = 4 << 30  # of a GPU's memory that a search works with, besides the corpus
GPU_BLOCK_ROWS = 1 << 15  # 50 MB of TVR's rows in float16: a copy of them takes longer than to ask for it


class StoredCorpus(Corpus):
    """Videos of a corpus on disk, entries in the order of their names; of one that was cut, an entry for each window.

    Rows come as float32 whatever they are kept in; in memory are only the rows in use, and some tens of bytes for each
    video. `open_corpus` may put them into a GPU's memory instead. Several searchers may divide a store's videos among
    them; each name is given once, and has to be there. Where a file is cut short meanwhile, reading it ends in an
    `InputError`.
    """

    def __init__(self, store: CorpusStore, vid_names: Sequence[str], device: torch.device) -> None:
        self.dtype, self.device = torch.float32, device
        self.n_vectors = store.recipe.n_vectors
        if device.type != "cpu":
            self.block_rows = GPU_BLOCK_ROWS
        self._store, self._kept = store, getattr(torch, store.recipe.dtype)
        where = np.array([store.where[name] for name in vid_names], dtype=np.int64).reshape(-1, 2)
        self._part, place, window = _entries(where, store)
        self.n_clips, self.n_rows, self._first_row = (np.empty_like(place) for _ in range(3))
        self._by_length: dict[int, ByLength] = {}
        for part in np.unique(self._part).tolist():
            entries = np.flatnonzero(self._part == part)
            entries = entries[np.lexsort((window[entries], place[entries]))]
            table, places = store.parts[part], place[entries]
            size = store.recipe.max_ctx_l  # no video that was not cut has more rows, and any window has as many
            self.n_clips[entries] = np.minimum(table.n_clips[places], size)
            self.n_rows[entries] = np.minimum(table.n_rows[places], size)
            self._first_row[entries] = (np.cumsum(table.n_rows) - table.n_rows)[places] + size * window[entries]
            self._by_length[part] = ByLength(self.n_clips[entries], self.n_rows[entries], entries)

    def rows_of(self, entry: int) -> torch.Tensor:
        return self._tensor(self._kept_rows(entry))

    def _kept_rows(self, entry: int) -> np.ndarray:
        first = self._first_row[entry]
        return self._store.opened(int(self._part[entry])).rows[first : first + self.n_rows[entry]]

    def rows_with(self, entries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Copies of the rows of the entries, each once; see `Corpus.rows_with`."""
        present, place = np.unique(entries.cpu().numpy(), return_inverse=True)
        n_rows = self.n_rows[present]
        rows = self._room(int(n_rows.sum()))
        for at, entry, n in zip(np.cumsum(n_rows) - n_rows, present, n_rows, strict=True):
            self._store.opened(int(self._part[entry])).rows.read_into(rows[at : at + n], self._first_row[entry])
        first, n_rows = ((of_entry[place]).reshape(entries.shape) for of_entry in (np.cumsum(n_rows) - n_rows, n_rows))
        return self._tensor(rows), to_device(first, self.device), to_device(n_rows, self.device)

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each entry the number of its part in the store, and that of its first row in the part, (Nv,) int64."""
        return self._part, self._first_row

    @property
    def row_bytes(self) -> int:
        """What a row and its norms take as they are kept."""
        return self.n_vectors * (self._store.recipe.hidden_size * self._kept.itemsize + 4)

    @property
    def n_bytes(self) -> int:
        """What rows and norms take as they are kept."""
        return int(self.n_rows.sum()) * self.row_bytes

    def in_memory(self) -> EncodedCorpus:
        """The same corpus, read once and held on the device as it is kept."""
        entries = progress(range(len(self)), "reading the encoded corpus")
        rows = (torch.from_numpy(self._kept_rows(entry)) for entry in entries)
        return EncodedCorpus(rows, self.n_clips, self.dtype, self.n_rows, self._kept, self.device)

    def expect(self, entries: np.ndarray) -> None:
        """Have the system read rows from disk beside each other, not one after another; see `Corpus.expect`."""
        places = zip(self._part[entries], self._first_row[entries], self.n_clips[entries], strict=True)
        for part, first, n in places:
            self._store.opened(int(part)).rows.expect(int(first), int(n))

    def clips_of(self, entries: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of rows and norms; see `Corpus.clips_of`."""
        first, n_clips, part = self._first_row[entries], self.n_clips[entries], self._part[entries]
        stretches = list(map(slice, first.tolist(), (first + n_clips).tolist()))
        ends = np.cumsum(n_clips)
        rows, norms = self._room(int(ends[-1])), self._norms_room(int(ends[-1]))
        edges = [0, *(np.flatnonzero(part[1:] != part[:-1]) + 1).tolist(), len(part)]
        for a, b in pairwise(edges):  # entries of one part
            own = slice(int(ends[a] - n_clips[a]), int(ends[b - 1]))
            self._store.opened(int(part[a])).read_stretches(rows[own], norms[:, own], stretches[a:b])
        return self._tensor(rows), torch.from_numpy(norms).to(self.device)

    def unread_blocks(self, max_rows: int) -> Iterator[UnreadBlock]:
        """The whole corpus, part by part; see `Corpus.unread_blocks`."""
        by_part = {part: by_length.blocks(max_rows) for part, by_length in self._by_length.items()}
        for _, runs in chain.from_iterable(by_part.values()):
            runs.on(self.device)  # what stays is made first: memory between what stays is not given back
        shape = (self.n_vectors, self._store.recipe.hidden_size)
        rooms = Room(self._room), Room(lambda n: torch.empty((n, *shape), dtype=self.dtype))
        for part, blocks in progress(by_part.items(), "reading the encoded corpus", total=len(by_part)):
            opened, by_length = self._store.opened(part), self._by_length[part]
            for positions, runs in blocks:
                stretches = self._stretches(by_length.order[positions])
                yield UnreadBlock(runs, partial(self._read_block, opened, stretches, runs, rooms))

    def _read_block(
        self,
        part: OpenPart,
        stretches: Sequence[slice],
        runs: Runs,
        rooms: tuple[Room[np.ndarray], Room[torch.Tensor]],
    ) -> Block:
        """`rooms`: for rows as they are kept, and converted."""
        n_rows, at = runs[-1].rows.stop, 0
        read, norms = rooms[0].of(n_rows), self._norms_room(n_rows)
        for stretch in stretches:
            at = _read(part, stretch, read, norms, at)
        converts = self.device.type == "cpu" and self._kept != self.dtype
        rows = rooms[1].of(n_rows).copy_(torch.from_numpy(read)) if converts else self._tensor(read)
        return Block(rows, self._tensor(norms), runs)

    def _room(self, n_rows: int) -> np.ndarray:
        """For (R, V, D) rows as they are kept."""
        recipe = self._store.recipe
        return np.empty((n_rows, recipe.n_vectors, recipe.hidden_size), recipe.dtype)

    def _norms_room(self, n_rows: int) -> np.ndarray:
        """For (V, R) norms."""
        return np.empty((self.n_vectors, n_rows), np.float32)

    def _stretches(self, entries: np.ndarray) -> list[slice]:
        """The rows of entries, in their order: rows that lie one after another in as few slices as there can be."""
        firsts = self._first_row[entries]
        ends = firsts + self.n_rows[entries]
        gaps = np.flatnonzero(firsts[1:] != ends[:-1])
        begins, stops = np.append(0, gaps + 1), np.append(gaps, len(entries) - 1)
        return [slice(int(firsts[a]), int(ends[b])) for a, b in zip(begins, stops, strict=True)]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device).to(self.dtype)


def open_corpus(store: CorpusStore, vid_names: Sequence[str], device: torch.device) -> Corpus:
    """Videos of a corpus on disk as they are searched soonest: held on the GPU if there is one and they fit.

    What was decided is said on stderr. On a CPU nothing is: what was read stays in the system's file cache.
    """
    corpus, free = StoredCorpus(store, vid_names, device), _free_bytes(device)
    if free is None:
        return corpus
    size = f"the encoded corpus ({corpus.n_bytes / 2**30:.1f} GiB)"
    if corpus.n_bytes + SEARCH_BYTES <= free:
        print(f"note: {size} is loaded onto {device}", file=sys.stderr)
        return corpus.in_memory()
    print(
        f"note: {size} stays on disk and is read for every search: of {device}, {free / 2**30:.1f} GiB are free, and a "
        f"search takes up to {SEARCH_BYTES / 2**30:.0f} GiB besides",
        file=sys.stderr,
    )
    return corpus


def _free_bytes(device: torch.device) -> int | None:
    """Of a GPU's memory; None for a CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def _entries(where: np.ndarray, store: CorpusStore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Part, place in it, and number of the window, of each entry (Nv,), from part and place of each video (n, 2)."""
    part, place = where.T
    windows = store.recipe.windows
    if windows is None:
        return part, place, np.zeros_like(place)
    counts = np.array([windows.count(store.parts[a].n_clips[b].item()) for a, b in where.tolist()], dtype=np.int64)
    first = np.cumsum(counts) - counts
    return part.repeat(counts), place.repeat(counts), np.arange(counts.sum()) - first.repeat(counts)


def _read(part: OpenPart, stretch: slice, rows: np.ndarray, norms: np.ndarray, at: int) -> int:
    """Read a stretch of a part into (R, V, D) rows and (V, R) norms from row `at` on: the row after it."""
    end = at + stretch.stop - stretch.start
    part.rows.read_into(rows[at:end], stretch.start)
    part.norms_into(norms[:, at:end], stretch.start)
    return end
