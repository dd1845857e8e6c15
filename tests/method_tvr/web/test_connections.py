"""Connections of a running server: whoever holds a place and does nothing with it loses it, and it ends at once."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.support.web_stubs import REASON

pytest.importorskip("fastapi_offline", reason=REASON)

from method_tvr.web import connections
from method_tvr.web.connections import Connection, Server, allow_many_files, config_of
from method_tvr.web.log import AGAIN_S, Repeats

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
STREAM = b"GET /gradio_api/queue/data HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIMIT_S = 20


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers who asks, or at these paths without an end: a stream, a flood."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/gradio_api/queue/data":
        await send({"type": "http.response.body", "body": b"data", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
    elif scope["path"] == "/flood":
        for _ in range(10_000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": f"to {scope['client'][0]}".encode()})


class Running:
    """A server in a thread."""

    def __init__(self, max_open: int) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.server = Server(config_of(app, max_open))
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]}, daemon=True)
        self._thread.start()
        self.wait_for(lambda: self.server.started)

    @property
    def open(self) -> list[Connection]:
        return [one for one in self.server.server_state.connections if isinstance(one, Connection)]

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A connection on which something has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S)
        connection.sendall(sent)
        return connection

    def wait_for(self, holds: Any) -> None:
        end = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.01)

    def end(self) -> float:
        """End it: how many seconds that takes."""
        begin = time.monotonic()
        self.server.should_exit = True
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        return time.monotonic() - begin


@contextmanager
def running(max_open: int = 100) -> Iterator[Running]:
    server = Running(max_open)
    try:
        yield server
    finally:
        server.end()
        server.listening.close()


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes a connection, sooner or later."""
    with suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


def read_until(connection: socket.socket, wanted: bytes) -> None:
    """Receive until something has come."""
    received = b""
    while wanted not in received:
        part = connection.recv(1000)
        assert part, received
        received += part


@pytest.mark.parametrize("sent", [b"", b"G", REQUEST[:-2], b"\r\n", REQUEST + b"GET / HT"])
def test_a_connection_without_a_whole_request_is_closed(monkeypatch, sent):
    monkeypatch.setattr(connections, "HEADERS_S", 0.2)
    with running() as server, server.connect(sent) as connection:
        assert is_closed(connection)
        assert not server.open


def test_a_request_in_parts_is_answered():
    with running() as server, server.connect(REQUEST[:10]) as connection:
        time.sleep(0.05)
        connection.sendall(REQUEST[10:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_an_answer_may_take_longer_than_a_request(monkeypatch):
    monkeypatch.setattr(connections, "HEADERS_S", 0.2)
    with (
        running() as server,
        server.connect(STREAM) as stream,
    ):
        time.sleep(1)
        read_until(stream, b"data")
        assert len(server.open) == 1


def test_who_does_not_read_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(connections, "STALLED_S", 0.3)
    with running() as server, server.connect(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        server.wait_for(lambda: len(server.open) == 1)
        server.wait_for(lambda: not server.open)


def test_where_all_places_are_taken_those_that_wait_for_nothing_go_first():
    with running(max_open=5) as server:
        stream = server.connect(STREAM)
        read_until(stream, b"data")
        idle = [server.connect() for _ in range(20)]
        with server.connect(REQUEST) as asking:
            assert asking.recv(100).startswith(b"HTTP/1.1 200 ")
        assert len(server.open) <= 5
        assert any(one.is_stream for one in server.open)
        assert is_closed(idle[0])
        for connection in (stream, *idle):
            connection.close()


def test_a_client_whose_places_are_all_in_use_loses_its_oldest_for_the_next():
    with running(max_open=10) as server:
        streams = [server.connect(STREAM) for _ in range(6)]
        server.wait_for(lambda: sum(one.is_stream for one in server.open) == 6)
        for _ in range(3):
            with server.connect(REQUEST) as asking:
                assert asking.recv(100).startswith(b"HTTP/1.1 200 ")
        assert is_closed(streams[0])
        for connection in streams:
            connection.close()


def test_one_client_leaves_places_to_others():
    with running(max_open=10) as server:
        streams = [server.connect(STREAM) for _ in range(10)]
        server.wait_for(lambda: sum(one.is_stream for one in server.open) == 6)
        assert len(server.open) == 6
        for connection in streams:
            connection.close()


def test_it_ends_at_once_whoever_is_connected():
    with running() as server:
        stream = server.connect(STREAM)
        read_until(stream, b"data")
        idle = [server.connect(sent) for sent in (b"", REQUEST[:5])]
        server.wait_for(lambda: len(server.open) == 3)
        assert server.end() < 2
        for connection in (stream, *idle):
            assert is_closed(connection)
            connection.close()


def test_a_client_is_the_address_that_connects_whatever_it_says():
    with running() as server, server.connect(REQUEST[:-2] + b"X-Forwarded-For: 9.9.9.9\r\n\r\n") as connection:
        read_until(connection, b"to 127.0.0.1")


@pytest.mark.parametrize(("soft", "hard", "expected"), [(256, 256, 128), (64, 10**6, 1000), (40, 40, 8)])
def test_as_many_files_may_be_open_as_the_system_allows(monkeypatch, soft, hard, expected):
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert allow_many_files() == expected
    assert all(soft <= limits[0] <= hard and limits[1] == hard for limits in asked)


# ---------------------------------------------------------------------------- the log


def record(line: int, error: type[BaseException] | None = None) -> logging.LogRecord:
    info = None if error is None else (error, error(), None)
    return logging.LogRecord("name", logging.WARNING, "file.py", line, "it %s", ("failed",), info)


def test_what_repeats_is_said_once_a_minute_with_how_often():
    now = [0.0]
    repeats = Repeats(lambda: now[0])
    assert [repeats.filter(record(1)) for _ in range(5)] == [True, False, False, False, False]
    assert repeats.filter(record(2))
    assert repeats.filter(record(1, ValueError))
    now[0] = AGAIN_S
    again = record(1)
    assert repeats.filter(again)
    assert again.getMessage() == "it failed (4 more like this since the last)"


@pytest.mark.parametrize("error", [asyncio.CancelledError, ConnectionResetError, BrokenPipeError])
def test_clients_that_go_are_not_worth_a_line(error):
    assert not Repeats().filter(record(1, error))


def test_the_log_remembers_a_few_kinds_only():
    repeats = Repeats()
    assert all(repeats.filter(record(line)) for line in range(1000))
    assert len(repeats._last) <= 200
