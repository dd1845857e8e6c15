"""A Milvus that may be away for a while, and what it complains of as what the user can mend."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from method_tvr.search.candidates import INSTALL
from utils.basic_utils import InputError, first_line, needed

CONNECT_S = 5.0  # for a server to be there at the start
PATIENCE_S = 60.0  # for one that has answered to come back: a node that starts again took 35 s
ANSWER_S = 60.0  # for one answer
AGAIN_S = 1.0
# service unavailable; collection not loaded, or only in part, or recovering; channel not available
AWAY_CODES = frozenset({2, 101, 103, 106, 503})
SILENT = "DEADLINE_EXCEEDED"
AWAY_STATES = frozenset({"UNAVAILABLE", SILENT})
AWAY_WORDS = ("empty grpc client", "node not match")  # of a server whose parts do not reach each other yet
REFUSED_STATES = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
REFUSED_WORDS = ("auth check failure", "permission deny", "privilege")  # where there is no state


class Milvus:
    """A local file or a server that was reached; threads may share it.

    Args:
        uri: a local file, or the address of a server.
        token: what a server asks for.

    Raises:
        InputError: pymilvus is missing, nothing answers at the address, or the token is refused.
    """

    def __init__(self, uri: str, token: str | None) -> None:
        pymilvus = import_milvus()
        self.uri, self.is_local = uri, "://" not in uri
        self._lock, self._away_since = threading.Lock(), 0.0
        if self.is_local:
            Path(uri).parent.mkdir(parents=True, exist_ok=True)
        with self._naming_faults():
            self._client = pymilvus.MilvusClient(uri, token=token or "", timeout=CONNECT_S)
            self._client.list_collections(timeout=CONNECT_S)

    def ask(self, method: str, *args: Any, again: str | None = None, answer_s: float = ANSWER_S, **options: Any) -> Any:
        """What a method of the client gives; one that the server is away for is called again for `PATIENCE_S`.

        Args:
            method: of `pymilvus.MilvusClient`.
            again: the method for later calls, where an earlier one may have done its work without an answer.
            answer_s: seconds that one answer may take.

        Raises:
            InputError: Milvus complains, or is away for longer.
        """
        with self._naming_faults():
            while True:
                try:
                    answer = getattr(self._client, method)(*args, timeout=answer_s, **options)
                except _errors() as err:
                    if self.is_local or not _is_away(err) or not self._waits(err):
                        raise
                    method = again or method
                    time.sleep(AGAIN_S)
                else:
                    self._away_since = 0.0
                    return answer

    def _waits(self, err: BaseException) -> bool:
        """Whether there is patience left; threads that ask at once have it together."""
        with self._lock:
            if not self._away_since:
                self._away_since = time.monotonic()
                what = "has not answered in time" if _is_silent(err) else "is away"
                note = f"note: --index milvus: {self.uri} {what} ({_said(err)}): trying for {PATIENCE_S:.0f} s"
                print(note, file=sys.stderr, flush=True)
            return time.monotonic() - self._away_since < PATIENCE_S

    @contextmanager
    def _naming_faults(self) -> Iterator[None]:
        try:
            yield
        except _errors() as err:
            said = _said(_refusal(err) or err)
            raise InputError(f"--index milvus: {self.uri}: {said}: {self._remedy(err)}") from err

    def _remedy(self, err: BaseException) -> str:
        if _refusal(err):
            return (
                "give as --index_token the user:password, or the API key, of someone who may create, fill and search "
                "collections at this --index_uri"
            )
        if self.is_local:
            return "is there room, does no other process have the file open, and does its name end in .db?"
        if _is_silent(err):
            return (
                "is it busy? After a build a node merges what it was sent and indexes it anew, which takes minutes: "
                "ask again later"
            )
        if _is_away(err):
            return "is --index_uri the address of a running Milvus, and is it up?"
        return "is there room, and is --index_uri the address of a running Milvus, or a local file that ends in .db?"


def import_milvus() -> Any:
    """The pymilvus package, silenced: of what users can do something about, an error speaks."""
    pymilvus = needed("pymilvus", "--index milvus", INSTALL)
    for name in ("pymilvus", "milvus_lite", "grpc"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


def _errors() -> tuple[type[BaseException], ...]:
    """What the client raises: errors of its own, and of gRPC those that it does not try again at."""
    import grpc  # a part of what pymilvus needs

    return import_milvus().MilvusException, grpc.RpcError


def _said(err: BaseException) -> str:
    details = getattr(err, "details", None)  # of an error of gRPC, whose text begins with a frame around it
    return (details() or "").split("\n")[0] if callable(details) else first_line(err)


def _is_away(err: BaseException) -> bool:
    if _refusal(err):
        return False
    known = getattr(err, "code", None) in AWAY_CODES or _state(err) in AWAY_STATES
    return known or any(words in str(err) for words in AWAY_WORDS)


def _is_silent(err: BaseException) -> bool:
    return _state(err) == SILENT or "deadline exceeded" in str(err).lower()


def _refusal(err: BaseException) -> BaseException | None:
    """What says that it is about who asks: the error, or as a connection is refused, what caused it."""
    seen: list[BaseException] = []
    cause: BaseException | None = err
    while cause is not None and cause not in seen:  # pymilvus raises errors from themselves
        if _state(cause) in REFUSED_STATES or any(words in str(cause) for words in REFUSED_WORDS):
            return cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _state(err: BaseException) -> str:
    code = getattr(err, "code", None)
    return str(getattr(code() if callable(code) else code, "name", ""))
