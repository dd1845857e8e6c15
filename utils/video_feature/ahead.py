"""Doing the next thing while the last one is being used."""

from __future__ import annotations

import threading
from collections.abc import Generator
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.1


class _End:
    """Said by the thread when it has no more items, or has failed."""

    def __init__(self, err: BaseException | None) -> None:
        self.err = err


def ahead(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """Iterate while a thread makes the next items.

    Args:
        items: runs in that thread from beginning to end, and is closed there.
        depth: items that may wait at most, besides the one that is being made.

    Raises:
        Exception: what `items` raised, after those before have been yielded.
    """
    waiting: Queue[T | _End] = Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(item: T | _End) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=_PAUSE_S)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        err: BaseException | None = None
        try:
            for item in items:
                if not offer(item):
                    break
        except BaseException as raised:  # handed over to the one who iterates
            err = raised
        finally:
            items.close()
            offer(_End(err))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = waiting.get(timeout=_PAUSE_S)  # in steps, so that Ctrl-C gets through
            except Empty:
                continue
            if isinstance(item, _End):
                if item.err is not None:
                    raise item.err
                return
            yield item
    finally:
        stopped.set()
        thread.join()
