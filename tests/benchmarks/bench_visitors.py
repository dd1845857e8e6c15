"""A server among strangers: thousands of hostile requests while people ask, and then Ctrl-C.

    python tests/benchmarks/bench_visitors.py --model_dir MODEL_DIR --requests 100000 --seconds 3600 --people 50

All of it stays on this machine: strangers and people connect from loopback addresses of their own (127.0.1.x and
127.0.2.x, which Linux has), so that the server takes them for different clients, with the limits it has by default.
Reported are the people's answers, the server's memory, files and threads at the start and at the end, its log, and how
long it takes to end.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.bench_api import latency, memory_gib
from tests.benchmarks.common import Timing, benchmark_parser, measure_unit, start
from tests.support.server_process import ServerProcess, serving
from utils.basic_utils import command_line

CPU = torch.device("cpu")
Answers = tuple[list[float], Counter[str]]  # seconds of those that came, and how many others by their status
AT_A_TIME = 40  # strangers
HELD = 100  # connections that strangers leave open
PAUSE_S = 1.0  # between two questions of a person
WAIT_S = 30
SETTLE_S = 75.0  # until what strangers left is forgotten
FILE = {"path": "/dev/zero", "meta": {"_type": "gradio.FileData"}}


def request(method: str, path: str, body: bytes = b"", host: str = "localhost", *headers: str) -> bytes:
    """A request as it is sent."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def as_json(path: str, content: Any) -> bytes:
    return request("POST", path, json.dumps(content).encode(), "localhost", "Content-Type: application/json")


def hostile(rng: random.Random, n_events: int) -> tuple[bytes, bool]:
    """One of the things that strangers send, and whether they leave the connection open after it."""
    session = f"s{rng.randrange(1000)}"
    text = rng.choice(["<v" * 400, "a " * 1000, "\x1b]0;x\x07", "'" * 900, "\u202e" * 100, "", "9" * 1000])
    value = rng.choice([FILE, [FILE], {"a": FILE}, text * 20, float("nan"), 10**300, True, None, text, []])
    join = {"data": [value] * rng.randrange(8), "fn_index": rng.randrange(-1, n_events + 1), "session_hash": session}
    listed = f"prefix={'%00' * rng.randrange(100)}&limit={rng.choice(['9' * 99, '-1', 'x'])}"
    kinds = [
        (as_json("/gradio_api/queue/join", join), False),
        (as_json("/gradio_api/queue/join", join | {"event_data": value, "data": [None] * rng.randrange(8)}), False),
        (request("GET", f"/gradio_api/queue/data?session_hash={session}"), rng.random() < 0.5),
        (request("GET", f"/gradio_api/heartbeat/{session}"), True),
        (as_json("/api/search", {"sentence": text, "top_k": rng.choice([1, 100, 101, -1, "x", 1e300])}), False),
        (request("POST", "/api/search", rng.randbytes(rng.randrange(500))), False),
        (request("GET", "/media/" + "..%2f" * rng.randrange(20) + "etc/passwd"), False),
        (request("GET", f"/api/videos?{listed}"), False),
        (request("GET", "/api/health", host=rng.choice(["evil.example", "", "x" * 5000])), False),
        (request("POST", "/api/search", b"{}" * 40_000), False),
        (request("POST", "/gradio_api/upload", rng.randbytes(100)), False),
        (request(rng.choice(["PUT", "TRACE", "BREW"]), "/" + rng.choice(["config", "api/x", "login", "%ff"])), False),
        (rng.randbytes(rng.randrange(1, 300)) + b"\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: local", True),
        (b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{", True),
        (b"", True),
    ]
    return rng.choice(kinds)


class Strangers:
    """Send hostile requests, spread evenly over some seconds.

    Attributes:
        answers: how many by status; "none" where there was no answer.
    """

    def __init__(self, port: int, n_requests: int, seconds: float, n_events: int) -> None:
        self._port, self._n_requests, self._seconds, self._n_events = port, n_requests, seconds, n_events
        self._begun = 0
        self._held: list[asyncio.StreamWriter] = []
        self.answers: Counter[str] = Counter()

    async def run(self) -> None:
        self._start = time.perf_counter()
        await asyncio.gather(*(self._one(number) for number in range(AT_A_TIME)))
        for writer in self._held:
            writer.close()

    async def _one(self, number: int) -> None:
        rng = random.Random(number)
        while self._begun < self._n_requests:
            self._begun += 1
            due = self._start + self._seconds * self._begun / self._n_requests
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent, leaves_open = hostile(rng, self._n_events)
            with suppress(OSError, asyncio.TimeoutError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, local_addr=(f"127.0.1.{1 + number % 10}", 0)
                )
                writer.write(sent)
                status = b""
                if not leaves_open:
                    with suppress(OSError, asyncio.TimeoutError):
                        status = await asyncio.wait_for(reader.read(12), WAIT_S)
                self.answers[status[9:12].decode("ascii", "replace") or "none"] += 1
                if leaves_open and len(self._held) < HELD:
                    self._held.append(writer)
                else:
                    writer.transport.abort()


async def person(port: int, number: int, sentences: Sequence[str], ended: asyncio.Event) -> Answers:
    """Ask now and then until it has ended: the seconds that answers took, and what else came."""
    seconds: list[float] = []
    other: Counter[str] = Counter()
    await asyncio.sleep(PAUSE_S * number / 50)
    while not ended.is_set():
        begin, status = time.perf_counter(), b""
        asked = as_json("/api/search", {"sentence": sentences[len(seconds) % len(sentences)], "top_k": 10})
        with suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.2.{1 + number}", 0))
            writer.write(asked)
            status = (await asyncio.wait_for(reader.read(), WAIT_S))[9:12]
            writer.close()
        if status == b"200":
            seconds.append(time.perf_counter() - begin)
        else:
            other[status.decode() or "none"] += 1
        await asyncio.sleep(PAUSE_S)
    return seconds, other


async def hour(
    port: int, n_requests: int, seconds: float, n_people: int, n_events: int
) -> tuple[Answers, Counter[str]]:
    """Strangers and people at once: the people's seconds and other answers, and the strangers' answers."""
    ended = asyncio.Event()
    sentences = ["Nora opens the drawer.", "Omar laughs.", "Felix is making up a story."]
    people = [asyncio.create_task(person(port, number, sentences, ended)) for number in range(n_people)]
    strangers = Strangers(port, n_requests, seconds, n_events)
    await strangers.run()
    ended.set()
    found = await asyncio.gather(*people)
    answers = [one for took, _ in found for one in took], sum((other for _, other in found), Counter[str]())
    return answers, strangers.answers


def state(server: ServerProcess) -> dict[str, float]:
    """The server's memory in GiB, open files and threads."""
    folder = Path(f"/proc/{server.pid}")
    files, threads = (len(list((folder / name).iterdir())) for name in ("fd", "task"))
    return {"GiB": round(memory_gib(server.pid), 3), "files": files, "threads": threads}


def measure(server: ServerProcess, n_requests: int, n_people: int, duration: float) -> tuple[list[float], str]:
    """The people's seconds, and all else in words."""
    for warm in (True, False):  # the first round is what any server sees in its first minutes
        before = state(server)
        share = 0.05 if warm else 1.0
        asked = math.ceil(share * n_requests), share * duration
        (seconds, other), strangers = asyncio.run(hour(server.port, *asked, n_people, 40))
    time.sleep(SETTLE_S)
    after, log = state(server), len(server.said())
    begin = time.perf_counter()
    code = server.end(signal.SIGINT)
    took = time.perf_counter() - begin
    assert "Traceback" not in server.said(), server.said()
    return seconds, (
        f"people: {latency(seconds)}, others {dict(other)}; strangers' answers {dict(strangers.most_common())}; server "
        f"before {before}, after {after}; log {log} bytes; ended in {took:.1f} s with {code}"
    )


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("what").add_argument
    add("--model_dir", required=True, help="results folder of the model that is served")
    add("--requests", type=int, default=100_000, help="hostile requests")
    add("--seconds", type=float, default=3600, help="over which they are spread")
    add("--people", type=int, default=50, help="who ask meanwhile, a sentence a second each")
    args, options = parser.parse_known_args(argv)
    report, _ = start(
        "visitors", f"{args.requests} hostile requests in {args.seconds:.0f} s beside {args.people} people", args
    )
    unit = measure_unit(CPU)
    with serving(args.model_dir, "--device", args.device, *options) as server:
        seconds, note = measure(server, args.requests, args.people, args.seconds)
    timing = Timing(float(np.median(seconds)), unit, measure_unit(CPU))
    report.add("a person's answer", timing, 1, "requests", note=note)
    report.finish(args.json)


if __name__ == "__main__":
    main()
