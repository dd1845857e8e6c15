"""What one client, one request and all requests together may take, and who has asked too often."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BURST_S = 2  # seconds' worth of requests that a client may make at once
MAX_CLIENTS = 10_000  # that a rate limiter remembers


@dataclass(frozen=True)
class Limits:
    """What a server answers at most.

    Attributes:
        max_sentence, max_top_k, max_body: characters of a sentence, moments of an answer, bytes of a request's body.
        rate: requests a second of one client in the long run; 0: any.
        burst: requests of one client at once, after it has been quiet for a while.
        max_queue: sentences that wait to be searched for.
        max_cuts, max_clip_s, max_clip_bytes, clip_timeout: clips that are cut at a time; seconds of a video, and
            bytes, of one; seconds that it may take.
        max_thumbnails, max_thumbnail_queue, thumbnail_timeout: small pictures that are made at a time, and that wait;
            seconds that one may wait, and then take.
        max_thumbnails_kept: how many are kept in memory, of some 10 KiB each.
        thumbnail_rate: how many times as often a client may ask for one as for anything else: a page shows many.
        max_picture, max_pictures, max_pictures_of_client: bytes of a picture that is asked with; how many are received
            and looked at at a time, of all clients and of one.
        max_pictures_kept: that are remembered, as some KiB of numbers each.
        timeout: seconds that a request waits, for its own body to arrive and then for its answer.
    """

    max_sentence: int = 1000
    max_top_k: int = 100
    max_body: int = 64 * 1024
    rate: float = 20.0
    burst: float = 40.0
    max_queue: int = 256
    max_cuts: int = 2
    max_clip_s: float = 300.0
    max_clip_bytes: int = 256 * 1024 * 1024
    clip_timeout: float = 60.0
    max_thumbnails: int = 2
    max_thumbnail_queue: int = 16
    thumbnail_timeout: float = 10.0
    max_thumbnails_kept: int = 2000
    thumbnail_rate: float = 5.0
    max_picture: int = 10 * 1024 * 1024
    max_pictures: int = 8
    max_pictures_of_client: int = 4
    max_pictures_kept: int = 1000
    timeout: float = 30.0


class RateLimiter:
    """A bucket of tokens for each client, filled at a rate; a request takes one. Threads may share it.

    A client whose bucket is full again is forgotten; beyond `max_clients`, so is the one that asked longest ago.

    Args:
        rate: tokens a second; 0: nobody is ever refused.
        burst: tokens of a full bucket, at least 1.
        clock: seconds, never going back.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic, max_clients: int = MAX_CLIENTS
    ) -> None:
        self._rate, self._burst, self._clock, self._max_clients = rate, max(1.0, burst), clock, max_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when: the oldest first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, client: str) -> float:
        """Take a token of a client: 0, or the seconds until there is one, in which case none was taken."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = self._clock()
            self._forget(now)
            tokens, since = self._buckets.get(client, (self._burst, now))
            tokens = min(self._burst, tokens + (now - since) * self._rate)
            allowed = tokens >= 1
            self._buckets[client] = (tokens - allowed, now)
            self._buckets.move_to_end(client)
            return 0.0 if allowed else (1 - tokens) / self._rate

    def _forget(self, now: float) -> None:
        while self._buckets:
            tokens, since = next(iter(self._buckets.values()))
            if tokens + (now - since) * self._rate < self._burst and len(self._buckets) < self._max_clients:
                return
            self._buckets.popitem(last=False)
