"""The server's connections: how many there may be, how long they may wait, and how they end.

Clients hold a place each, a file of this process. One that says nothing, half a request, or does not read its answer
gives its place back in time. Where all are taken, the client that holds most loses one for the next that comes: one
that is free, else its oldest. A client is the address that connects: several people behind one router share its places.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 10.0  # in which a request's headers have to be complete, from when the connection is free for it
STALLED_S = 60.0  # in which a client has to go on reading; players ask anew for what they did not read
ENDING_S = 1  # for what is being answered when the server is told to end
OWN_FILES = 128  # of this process: corpora, the model's, the system's
MAX_CONNECTIONS = 1000
SHARE_OF_CLIENT = 0.6  # of all places
STREAMS = ("/gradio_api/heartbeat/", "/gradio_api/queue/data")  # answers that end when the client goes


def allow_many_files() -> int:
    """Let this process open as many files as the system allows it; how many connections that is enough for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 4 * OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(8, min(MAX_CONNECTIONS, soft - OWN_FILES))


class Connection(H11Protocol):
    """A connection that gives its place back; `connections_of` says how many there may be."""

    max_open = MAX_CONNECTIONS
    _deadline: asyncio.TimerHandle | None = None
    _since = 0.0  # when it was free last

    @property
    def is_free(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_stream(self) -> bool:
        """Whether what is answered ends when the client goes."""
        return not self.is_free and self.scope["path"].startswith(STREAMS)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        held = Counter(one.host for one in self._others())
        if held[self.host] >= self.max_open * SHARE_OF_CLIENT:
            self._make_room(self.host)
        elif held.total() >= self.max_open:
            self._make_room(held.most_common(1)[0][0])
        self._wait_for_headers()

    @property
    def host(self) -> str:
        """The address that connected."""
        return self.client[0] if self.client else ""

    def handle_events(self) -> None:
        super().handle_events()
        if not self.is_free:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        if not self.transport.is_closing():
            self._wait_for_headers()
        super().on_response_complete()  # which handles a request that has arrived meanwhile

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._end_after(STALLED_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()

    def end(self) -> None:
        """Close it, whatever is still to be said."""
        self._stop_waiting()
        self.connections.discard(self)  # at once: the next may come before this one is known to be lost
        self.transport.abort()

    def _others(self) -> list[Connection]:
        return [one for one in self.connections if isinstance(one, Connection) and one is not self]

    def _make_room(self, host: str) -> None:
        """Close a client's connection: that which has been free for longest, or where none is, answered for longest."""
        min((one for one in self._others() if one.host == host), key=lambda one: (not one.is_free, one._since)).end()

    def _wait_for_headers(self) -> None:
        self._since = self.loop.time()
        self._end_after(HEADERS_S)

    def _end_after(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self.end)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def connections_of(max_open: int) -> type[Connection]:
    """Connections of a server that holds `max_open` at most."""
    return type("Connection", (Connection,), {"max_open": max_open})


class Server(uvicorn.Server):
    """A server that does not wait for clients when it ends."""

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and (connection.is_free or connection.is_stream):
                connection.end()
        await super().shutdown(sockets)


def config_of(app: Callable[..., Any], max_open: int) -> uvicorn.Config:
    """How an app is served on `max_open` connections at most."""
    return uvicorn.Config(
        app,
        http=connections_of(max_open),  # one parser, whatever is installed
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client is the address that connects, whatever it says
        timeout_graceful_shutdown=ENDING_S,
    )


def serve(app: Callable[..., Any], listening: Any) -> None:
    """Serve an app to those who connect to a socket, until SIGINT or SIGTERM."""
    Server(config_of(app, allow_many_files())).run(sockets=[listening])
