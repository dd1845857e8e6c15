"""An LMDB read in a process of its own.

Its library believes what the pages of a file say, and a damaged one ends the process that reads it: then this one goes
on, and says so. Between the two go bytes alone.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from utils.basic_utils import Closing, first_line

SIZE, KEYS, VALUE = b"s", b"k", b"v"  # questions; the last is followed by a key
FOUND, ABSENT, ERROR, END = b"f", b"a", b"e", b"."  # what answers begin with


class LmdbProcess(Closing):
    """Asks the process; an `OSError` says what is wrong with the file."""

    def __init__(self, folder: Path) -> None:
        # not forked: what this process has open, and its threads, are none of its business
        context = get_context("spawn")
        self._asked, other = context.Pipe()
        self._process = context.Process(target=_answer, args=(str(folder), other), daemon=True)
        self._process.start()
        other.close()

    def close(self) -> None:
        """End the process."""
        self._asked.close()
        self._process.join()

    def n_bytes(self) -> int:
        """How many bytes the file has by what it says of its pages."""
        return int(next(self._answers(SIZE)))

    def all_keys(self) -> list[bytes]:
        """All keys, in the file's order."""
        return list(self._answers(KEYS))

    def value(self, key: bytes) -> bytes | None:
        """What is under a key."""
        return next(self._answers(VALUE + key), None)

    def _answers(self, question: bytes) -> Iterator[bytes]:
        try:
            self._asked.send_bytes(question)
            while (answer := self._asked.recv_bytes())[:1] == FOUND:
                yield answer[1:]
                if question != KEYS:
                    return
        except (EOFError, ConnectionError) as err:
            raise OSError("what is in it has ended the library that reads it: it is damaged") from err
        if answer[:1] == ERROR:
            raise OSError(answer[1:].decode())


def _answer(folder: str, asked: Connection) -> None:
    """The process: answers until nobody asks any more."""
    import lmdb

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks is interrupted, and closes
    env = None
    with suppress(EOFError, ConnectionError):
        while True:
            question = asked.recv_bytes()
            try:
                env = env or lmdb.open(folder, readonly=True, lock=False, create=False, readahead=False)
                for answer in _answers_to(question, env):
                    asked.send_bytes(answer)
            except lmdb.Error as err:
                asked.send_bytes(ERROR + first_line(err).encode())


def _answers_to(question: bytes, env: Any) -> Iterator[bytes]:
    if question == SIZE:
        yield FOUND + str((env.info()["last_pgno"] + 1) * env.stat()["psize"]).encode()
        return
    with env.begin() as transaction:
        if question == KEYS:
            with transaction.cursor() as cursor:
                yield from (FOUND + key for key in cursor.iternext(keys=True, values=False))
            yield END
        else:
            value = transaction.get(question[len(VALUE) :])
            yield ABSENT if value is None else FOUND + value
