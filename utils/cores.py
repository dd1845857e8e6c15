"""Work that a CPU's cores share piece by piece, where PyTorch would have them share every operation of each."""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Found = TypeVar("Found")
WAITING = 2  # pieces a core that are asked for ahead
_STARTING = threading.Lock()


def on_each_core(work: Callable[[Piece], Found], pieces: Iterable[Piece]) -> Iterator[Found]:
    """`work` of each piece, in their order; as many pieces at a time as PyTorch uses threads, each by one of them.

    Pieces are asked for here, by the thread that asks for what was found. Where operations are small, reading and
    Python count, and all of that is shared, too.
    """
    n = torch.get_num_threads()
    if n == 1:
        yield from map(work, pieces)
        return
    pool, inference = _pool(n), torch.is_inference_mode_enabled()

    def of_piece(piece: Piece) -> Found:
        with torch.inference_mode(inference):
            return work(piece)

    waiting = deque[Future[Found]]()
    try:
        for piece in pieces:
            waiting.append(pool.submit(of_piece, piece))
            if len(waiting) > WAITING * n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _pool(n: int) -> ThreadPoolExecutor:
    """Threads of one core each; they stay, as starting them takes longer than many a search."""
    with _STARTING:
        return _started(n)


@functools.cache
def _started(n: int) -> ThreadPoolExecutor:
    pool, all_there = ThreadPoolExecutor(n, "core"), threading.Barrier(n)

    def start(_: int) -> None:
        torch.get_num_threads()  # the first time it sets what is the number elsewhere
        torch.set_num_threads(1)  # of this thread, and of those that have not computed yet
        all_there.wait()

    try:
        list(pool.map(start, range(n)))
    finally:
        all_there.abort()  # had one not come, the others would wait for it
        torch.set_num_threads(n)
    return pool


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads
    os.register_at_fork(after_in_child=_started.cache_clear)
