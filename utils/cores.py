"""Work that a CPU's cores share piece by piece, where PyTorch would have them share every operation of each."""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np
import torch

Piece = TypeVar("Piece")
Found = TypeVar("Found")
Array = TypeVar("Array", np.ndarray, torch.Tensor)
WAITING = 2  # pieces a core that are asked for ahead
_STARTING = threading.Lock()


def on_each_core(work: Callable[[Piece], Found], pieces: Iterable[Piece]) -> Iterator[Found]:
    """`work` of each piece, in their order; as many pieces at a time as PyTorch uses threads, each by one of them.

    Pieces are asked for here, by the thread that asks for what was found. Where operations are small, reading and
    Python count, and all of that is shared, too. There is nothing to gain where pieces are few, or take less than some
    milliseconds, in between operations that PyTorch's own threads share: those go on waiting for the next, on a core.
    """
    n, cores = _cores()
    if cores is None:
        yield from map(work, pieces)
        return
    inference, gradients, process = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), os.getpid()

    def of_piece(piece: Piece) -> Found:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(piece)

    waiting = deque[Future[Found]]()
    try:
        for piece in pieces:
            waiting.append(cores.ask(functools.partial(of_piece, piece)))
            if len(waiting) > WAITING * n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if os.getpid() == process:  # and not one forked meanwhile, which has no such threads
            wait([future for future in waiting if not future.cancel()])  # nothing goes on when this has ended


class Room(threading.local, Generic[Array]):
    """Memory that each thread uses again and again: fresh memory costs more than filling it.

    Args:
        empty: what makes an array of so many rows.
    """

    def __init__(self, empty: Callable[[int], Array]) -> None:
        self._empty: Callable[[int], Array] = empty
        self._rows: Array = empty(0)

    def of(self, n_rows: int) -> Array:
        """An array of so many rows, until the thread asks for the next; they hold anything."""
        if len(self._rows) < n_rows:
            self._rows = self._empty(n_rows)
        return self._rows[:n_rows]


class _Cores:
    """Threads of one core each. They stay, as starting them takes longer than many a search.

    Those of `concurrent.futures` take nothing more once the main thread has ended, while others may go on.
    """

    def __init__(self, n: int) -> None:
        self._asked: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        there = threading.Semaphore(0)
        try:
            for _ in range(n):
                threading.Thread(target=self._work, args=(there,), name="core", daemon=True).start()
                there.acquire()
        finally:
            torch.set_num_threads(n)

    def ask(self, call: Callable[[], Found]) -> Future[Found]:
        """What `call` returns or raises, as soon as one of the threads has come to it."""
        future = Future[Found]()
        self._asked.put((future, call))
        return future

    def _work(self, there: threading.Semaphore) -> None:
        torch.get_num_threads()  # the first time it sets what is the number elsewhere
        torch.set_num_threads(1)  # of this thread, and of those that have not computed yet
        there.release()
        while True:
            _answer(*self._asked.get())


def _answer(future: Future[Found], call: Callable[[], Found]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(call())
        except BaseException as err:  # it is raised where the result is asked for
            future.set_exception(err)


def _cores() -> tuple[int, _Cores | None]:
    """How many threads PyTorch uses, and as many of one core each; None where one is enough, or they cannot be had."""
    with _STARTING:
        n = torch.get_num_threads()
        if n > 1:
            with suppress(RuntimeError):  # no thread can be started when the interpreter is about to end, for one
                return n, _started(n)
        return n, None


_started = functools.cache(_Cores)


def _forget() -> None:
    """A forked process has none of the threads, nor who may be starting them."""
    global _STARTING
    _STARTING = threading.Lock()
    _started.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
