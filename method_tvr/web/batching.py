"""What many users ask at once, searched for together: one pass over the corpus answers all that wait."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import numpy as np

from method_tvr.ask.moments import Answer
from method_tvr.ask.questions import check_asked
from method_tvr.ask.searcher import MomentSearcher

Asked = str | np.ndarray  # a sentence, or what `MomentSearcher.of_picture` made of a picture


class Busy(Exception):  # noqa: N818 (a state, which passes)
    """Too many ask at once, or the search is ending: asking again later may help."""


@dataclass
class _Request:
    asked: Asked
    top_k: int
    video: str | None
    show: str | None
    nms_thd: float | None
    answer: Future[Answer] = field(default_factory=Future)


class BatchedSearcher:
    """Finds moments for what many threads ask, which wait in a bounded queue for the one that searches.

    At most `max_queue` requests wait, and `max_batch` are searched for together; others may use the searcher meanwhile.
    """

    def __init__(self, searcher: MomentSearcher, max_queue: int = 256, max_batch: int = 32) -> None:
        self._searcher, self._max_queue, self._max_batch = searcher, max_queue, max_batch
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="searching", daemon=True)
        self._worker.start()

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return not self._closed and self._worker.is_alive()

    def search(
        self,
        asked: Asked,
        top_k: int = 10,
        video: str | None = None,
        show: str | None = None,
        timeout: float | None = None,
        nms_thd: float | None = None,
    ) -> Answer:
        """The best moments for what is asked, as the searcher finds them; waits `timeout` seconds at most.

        Raises:
            Busy: too many wait already, or it took too long.
            InputError: the sentence is blank, or there is no such video or show.
        """
        answer = self.submit(asked, top_k, video, show, nms_thd)
        wait([answer], timeout)
        return self._result(answer)

    async def search_async(
        self, asked: Asked, top_k: int, video: str | None, show: str | None, timeout: float
    ) -> Answer:
        """`search`, for callers that must not block a thread."""
        answer = self.submit(asked, top_k, video, show)
        awaited = asyncio.wrap_future(answer)
        try:
            await asyncio.wait([awaited], timeout=timeout)
        except asyncio.CancelledError:  # the client has gone
            awaited.cancel()
            raise
        return self._result(awaited)

    def close(self) -> None:
        """End: what waits is refused, what is being searched for is answered first. May be called again."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for request in left:
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_exception(_ending())
        self._worker.join()

    def submit(
        self,
        asked: Asked,
        top_k: int = 10,
        video: str | None = None,
        show: str | None = None,
        nms_thd: float | None = None,
    ) -> Future[Answer]:
        """Have a sentence or picture searched for: what will be found. Cancelled in time, it is not searched for.

        Raises:
            Busy: too many wait already, or the search has ended.
            InputError: the sentence is blank.
        """
        check_asked([asked] if isinstance(asked, str) else [], top_k)
        request = _Request(asked, top_k, video, show, nms_thd)
        with self._changed:
            if self._closed:
                raise _ending()
            if len(self._waiting) >= self._max_queue:  # some may have been given up since they came
                self._waiting = deque(request for request in self._waiting if not request.answer.cancelled())
            if len(self._waiting) >= self._max_queue:
                raise Busy(f"{self._max_queue} sentences are waiting already: try again in a moment")
            self._waiting.append(request)
            self._changed.notify()
        return request.answer

    @staticmethod
    def _result(answer: Future[Answer] | asyncio.Future[Answer]) -> Answer:
        """What was found; a request without an answer by now is given up."""
        if not answer.done():
            answer.cancel()
            raise Busy("no answer in time, because many ask: try again in a moment")
        return answer.result()

    def _work(self) -> None:
        while requests := self._take():
            groups: dict[tuple[bool, str | None, str | None, float | None], list[_Request]] = {}
            for request in requests:
                kind = isinstance(request.asked, str), request.video, request.show, request.nms_thd
                groups.setdefault(kind, []).append(request)
            for group in groups.values():
                self._answer([request for request in group if request.answer.set_running_or_notify_cancel()])

    def _take(self) -> list[_Request]:
        """Requests that have waited longest, as many as fit a batch; none once there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]

    def _answer(self, group: Sequence[_Request]) -> None:
        """Search for what is asked alike: together, or, when one of it spoils that, each alone."""
        if not group:
            return
        where = max(request.top_k for request in group), group[0].video, group[0].show, group[0].nms_thd
        sentences = [request.asked for request in group if isinstance(request.asked, str)]
        pictures = [request.asked for request in group if not isinstance(request.asked, str)]
        try:
            search, search_pictures = self._searcher.search, self._searcher.search_pictures
            found = search(sentences, *where) if sentences else search_pictures(pictures, *where)
        except Exception as err:  # it is the waiting one's, whatever it is
            if len(group) == 1:
                group[0].answer.set_exception(err)
            else:
                for request in group:
                    self._answer([request])
        else:
            for request, answer in zip(group, found, strict=True):
                request.answer.set_result(answer.first(request.top_k))


def _ending() -> Busy:
    return Busy("the server is ending: ask again once it is back")
