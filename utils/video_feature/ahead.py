"""Doing the next thing while the last one is being used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """Iterate while a thread makes the next items.

    Args:
        items: runs in that thread from beginning to end, and is closed there.
        depth: items that may wait at most, besides the one that is being made.

    Raises:
        Exception: what `items` raised, after those before have been yielded.
    """

    def next_one() -> list[T]:
        return list(islice(items, 1))  # empty at the end

    with ThreadPoolExecutor(1, "ahead") as thread:
        asked = deque(thread.submit(next_one) for _ in range(depth + 1))
        try:
            while made := asked.popleft().result():
                asked.append(thread.submit(next_one))
                yield from made
        finally:
            for future in asked:
                future.cancel()
            thread.submit(items.close)
