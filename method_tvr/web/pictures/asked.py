"""Pictures that visitors ask with: received within limits, and kept as what the model makes of them alone."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from method_tvr.ask.questions import QuestionError
from method_tvr.ask.searcher import MomentSearcher
from method_tvr.web.batching import Busy
from method_tvr.web.limits import Limits

PATH = "/api/pictures"
NAME_LETTERS = 32  # hexadecimal digits of a picture's name


class AskedPictures:
    """Takes pictures and gives them names to ask with; threads may share it."""

    def __init__(self, searcher: MomentSearcher, limits: Limits) -> None:
        self._searcher, self._limits = searcher, limits
        self._clients: Counter[str] = Counter()  # whose pictures are being received or encoded
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()  # those asked with last come last
        self._lock = threading.Lock()

    @contextmanager
    def receiving(self, client: str) -> Iterator[None]:
        """A place for a picture of a client, from before its bytes are received until it is taken.

        Raises:
            Busy: others', or its own, have them all.
        """
        with self._lock:
            free = self._clients.total() < self._limits.max_pictures
            if not free or self._clients[client] >= self._limits.max_pictures_of_client:
                raise Busy("other pictures are being looked at: ask again in a few seconds")
            self._clients[client] += 1
        try:
            yield
        finally:
            with self._lock:
                self._clients[client] -= 1
                self._clients += Counter()  # without those of none

    def take(self, content: bytes) -> str:
        """The name by which the picture in a file of these bytes is asked with, while it is remembered.

        Raises:
            QuestionError: it cannot be read, or the model compares none.
        """
        name = hashlib.sha256(content).hexdigest()[:NAME_LETTERS]
        with self._lock:
            features = self._kept.get(name)
        if features is None:
            features = self._searcher.of_picture(content)
        with self._lock:
            self._kept[name] = features
            self._kept.move_to_end(name)
            if len(self._kept) > self._limits.max_pictures_kept:
                self._kept.popitem(last=False)
        return name

    def features(self, name: str) -> np.ndarray:
        """(2, D) what the model made of a picture, see `MomentSearcher.of_picture`; a `QuestionError` if it is gone."""
        with self._lock:
            if name not in self._kept:
                raise QuestionError(f"picture: none of this name is remembered: send it to {PATH} again")
            self._kept.move_to_end(name)
            return self._kept[name]
