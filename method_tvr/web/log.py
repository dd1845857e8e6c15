"""The server's log: a line for what happens, once a minute for what happens again and again."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

AGAIN_S = 60.0
MAX_KINDS = 200  # of messages that are remembered


class Repeats(logging.Filter):
    """Lets a kind of message through once in `AGAIN_S`, and says then how many were left out since.

    Messages are of a kind when they come from one line of code and are about one kind of error.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()  # when, how many since

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        if kind is not None and issubclass(kind, asyncio.CancelledError | ConnectionError):
            return False  # a client has gone, or the server ends
        key = record.pathname, record.lineno, kind
        then, left_out = self._last.pop(key, (-AGAIN_S, 0))
        now = self._clock()
        if now - then < AGAIN_S:
            self._last[key] = then, left_out + 1
            return False
        self._last[key] = now, 0
        if len(self._last) > MAX_KINDS:
            self._last.popitem(last=False)
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like this since the last)"
        return True


def log_to_stderr() -> None:
    """Have warnings and errors of the server and of what it is made of logged, each kind once a minute."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Repeats())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
