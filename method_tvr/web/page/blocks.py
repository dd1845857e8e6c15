"""Gradio's page made safe to leave open to strangers: what they send is plain, what they leave unread is bounded."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from typing import Any

from fastapi import HTTPException

from method_tvr.web.page.gradio_package import Queue, gr, run_coro_in_background

LONGEST = 100  # characters of a session's name, which the browser chooses, and of a text that comes with an event
MOST_OF_EVENT = 10  # such texts and numbers


class VisitorBlocks(gr.Blocks):
    """Blocks whose inputs are taken from visitors only as the plain values that their components show.

    Gradio takes objects in their place that stand for files, which it would read, copy and fetch for the visitor.
    """

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        if len(inputs) != len(block_fn.inputs):
            raise _refusal("an event with other inputs than the page has")
        for block, value in zip(block_fn.inputs, inputs, strict=True):
            if not block.stateful and not is_plain(block, value):  # of states, the server has its own
                raise _refusal(f"{block.label or 'an input'}: cannot be that")
        return list(await super().preprocess_data(block_fn, inputs, state, explicit_call))

    def queue(self, max_size: int | None = None, default_concurrency_limit: Any = "not_set") -> VisitorBlocks:
        """As Gradio's, with a queue of our own, and without making an app: `mount_gradio_app` makes another."""
        self._queue = VisitorQueue(self, max_size, default_concurrency_limit)
        return self

    def knows_session(self, name: str) -> bool:
        """Whether answers wait, or will, for a session of this name."""
        return name in self._queue.pending_messages_per_session


def is_plain(block: Any, value: Any) -> bool:
    """Whether a value is one that a component of the page can have; a component of another kind takes none."""
    if isinstance(block, gr.Textbox):
        return value is None or (isinstance(value, str) and len(value) <= (block.max_length or 0))
    if isinstance(block, gr.Slider):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and block.minimum <= value <= block.maximum
    if isinstance(block, gr.Dropdown):
        plain = value is None or isinstance(value, str | int | float)
        return plain and (value is None or value in [choice for _, choice in block.choices])
    return False


def is_plain_event(data: Any) -> bool:
    """Whether what came with an event is at most a few numbers and short texts, named or not."""
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else [data]
    return len(values) <= MOST_OF_EVENT and all(
        isinstance(one, int | float | None) or (isinstance(one, str) and len(one) <= LONGEST) for one in values
    )


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


class _Messages(asyncio.Queue[Any]):
    """The messages of a session, and how large the answers among them are."""

    def __init__(self, client: str) -> None:
        super().__init__()
        self.client, self.n_bytes, self.read_at = client, 0, time.monotonic()

    async def get(self) -> Any:
        self.read_at = time.monotonic()
        return await super().get()

    def _put(self, item: Any) -> None:
        self.n_bytes += _size(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self.n_bytes -= _size(item)
        return item


class _Sessions(OrderedDict[str, _Messages]):
    """Messages by the names of sessions; one that has been forgotten can be deleted again."""

    def __delitem__(self, name: str) -> None:
        if name in self:
            super().__delitem__(name)


class VisitorQueue(Queue):
    """Gradio's queue with bounds on answers that nobody fetches: their number, bytes and age, of a client and in all.

    A client is the address that connects. Whoever has too much unread is refused; what is unread for too long, and the
    oldest of all where that is too much, is forgotten.
    """

    MAX_UNREAD = 100  # events of a client that are asked for and not fetched
    MAX_UNREAD_BYTES = 16 << 20  # of answers of a client
    MAX_UNREAD_BYTES_IN_ALL = 64 << 20
    MAX_UNREAD_S = 60.0
    MAX_SESSIONS = 2000

    def __init__(self, blocks: gr.Blocks, max_size: int | None, default_concurrency_limit: Any) -> None:
        super().__init__(
            live_updates=True, concurrency_count=blocks.max_threads, update_intervals=1, max_size=max_size,
            blocks=blocks, default_concurrency_limit=default_concurrency_limit,
        )  # fmt: skip
        self.pending_messages_per_session: Any = _Sessions()
        self.ANALYTICS_MAX_EVENTS = 1  # of which every failed event would make a table

    def start(self) -> None:
        super().start()
        run_coro_in_background(self._forget_unread)

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        session, client = body.session_hash, request.client.host if request.client else ""
        event = self.blocks.fns.get(body.fn_index)
        known = event is not None and event.fn is not None and session and len(session) <= LONGEST
        if not known or not is_plain_event(body.event_data):
            return False, "there is no such event: load the page anew", "error"
        self.forget_unread()
        sessions = self.pending_messages_per_session
        unread = [name for name, messages in sessions.items() if messages.client == client]
        n_events = sum(len(self.pending_event_ids_session.get(name, ())) for name in unread)
        if n_events >= self.MAX_UNREAD or sum(sessions[name].n_bytes for name in unread) > self.MAX_UNREAD_BYTES:
            raise HTTPException(429, "too many answers wait to be fetched: read them first", {"Retry-After": "1"})
        if session not in sessions:
            sessions[session] = _Messages(client)
            while len(sessions) > self.MAX_SESSIONS:
                self.forget(next(iter(sessions)))
        return await super().push(body, request, username)

    def send_message(self, event: Any, event_message: Any) -> None:
        if event.session_hash not in self.pending_messages_per_session:
            event.alive = False  # what nobody can fetch any more
            return
        super().send_message(event, event_message)
        sessions = self.pending_messages_per_session
        while sum(messages.n_bytes for messages in sessions.values()) > self.MAX_UNREAD_BYTES_IN_ALL:
            self.forget(min((name for name in sessions if sessions[name].n_bytes), key=lambda n: sessions[n].read_at))

    def compute_analytics_summary(self, records: Any) -> dict[str, Any]:
        return {}

    def forget_unread(self) -> None:
        """Forget the sessions that nobody has read from for a while."""
        now = time.monotonic()
        for name, messages in list(self.pending_messages_per_session.items()):
            if now - messages.read_at > self.MAX_UNREAD_S:
                self.forget(name)

    def forget(self, session: str) -> None:
        """Forget a session and what it has asked."""
        self.pending_messages_per_session.pop(session, None)
        for event_id in self.pending_event_ids_session.pop(session, ()):
            event = self.event_ids_to_events.pop(event_id, None)
            if event is not None:
                event.alive = False

    async def _forget_unread(self) -> None:
        while not self.stopped:
            await asyncio.sleep(self.MAX_UNREAD_S / 10)
            self.forget_unread()


def _size(message: Any) -> int:
    """Bytes of an answer's texts, about."""
    output = getattr(message, "output", None)
    data = output.get("data") if isinstance(output, dict) else None
    return sum(len(value) for value in data if isinstance(value, str)) if isinstance(data, list) else 0
