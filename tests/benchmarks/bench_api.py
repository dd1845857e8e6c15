"""Many users who ask a server at once through its HTTP API: throughput, latency, errors, and the server's memory.

    python tests/benchmarks/bench_api.py --model_dir MODEL_DIR --users 50 --seconds 60

The server is started by serve.sh in a process of its own, on a free port and without a limit of requests a second. Each
user asks the sentences of the val split one after another, on one connection, from a place of their own. Answers to the
first sentences must be those that each of them gets when it is asked alone. Other options, such as `--index faiss`, go
to the server.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from method_tvr.config import parse_inference_options
from method_tvr.dataset.annotations import load_queries
from method_tvr.options.saved import find_path
from tests.benchmarks.common import Report, Timing, benchmark_parser, measure_unit, start
from tests.benchmarks.ranking import check_same_ranking
from tests.support.server_process import ServerProcess, serving
from utils.basic_utils import InputError, command_line

Moments = list[dict[str, Any]]
CPU = torch.device("cpu")
MEMORY_EVERY_S = 10.0
TOP_K = 10
NO_ANSWER = "no answer"  # the connection broke


class User(threading.Thread):
    """Asks sentences one after another.

    Args:
        port: of the server.
        sentences: asked in a circle.
        first: which of them is the first.
        until: when to stop, on `time.perf_counter`.
        limit: sentences to ask at most.

    Attributes:
        seconds: of each answer.
        errors: how many by status.
        found: the last answer to each sentence.
    """

    def __init__(
        self, port: int, sentences: Sequence[str], first: int = 0, until: float = np.inf, limit: float = np.inf
    ) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._sentences, self._next, self._until, self._limit = sentences, first, until, limit
        self.seconds: list[float] = []
        self.errors: Counter[str] = Counter()
        self.found: dict[str, Moments] = {}

    def run(self) -> None:
        while time.perf_counter() < self._until and len(self.seconds) + self.errors.total() < self._limit:
            self._ask(self._sentences[self._next % len(self._sentences)])
            self._next += 1
        self._connection.close()

    def _ask(self, sentence: str) -> None:
        begin = time.perf_counter()
        body = json.dumps({"sentence": sentence, "top_k": TOP_K})
        try:
            self._connection.request("POST", "/api/search", body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next request opens it again
            self.errors[NO_ANSWER] += 1
            return
        if answer.status == 200:
            self.seconds.append(time.perf_counter() - begin)
            self.found[sentence] = json.loads(content)["moments"]
        else:
            self.errors[str(answer.status)] += 1


def memory_gib(process_id: int) -> float:
    """Resident memory of a process; NaN where the system does not tell."""
    path = Path(f"/proc/{process_id}/status")
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmRSS:")), np.nan)


def ask_together(
    server: ServerProcess, sentences: Sequence[str], n_users: int, seconds: float
) -> tuple[list[User], float, list[float]]:
    """Let users ask for a while: the users, how long they took, and the server's memory meanwhile, in GiB."""
    begin = time.perf_counter()
    first = np.linspace(0, len(sentences), n_users, endpoint=False).astype(int)
    users = [User(server.port, sentences, int(place), begin + seconds) for place in first]
    memory = [memory_gib(server.pid)]
    for user in users:
        user.start()
    while time.perf_counter() - begin + MEMORY_EVERY_S <= seconds:
        time.sleep(MEMORY_EVERY_S)
        memory.append(memory_gib(server.pid))
    for user in users:
        user.join()
    took = time.perf_counter() - begin
    return users, took, [*memory, memory_gib(server.pid)]


def compare(alone: dict[str, Moments], users: Sequence[User]) -> str:
    """See that users got what is found for a sentence that is asked alone; says how many answers were compared.

    Raises:
        AnswersDiffer: somebody did not.
    """
    pairs = [(user.found[sentence], alone[sentence]) for user in users for sentence in user.found.keys() & alone.keys()]
    if not pairs:
        return "none compared"
    numbers: dict[tuple[str, float, float], int] = {}
    ranked, scores = np.full((2, len(pairs), TOP_K), -1), np.zeros((2, len(pairs), TOP_K))
    for place, pair in enumerate(pairs):
        for which, moments in enumerate(pair):
            for rank, moment in enumerate(moments):
                name = moment["vid_name"], moment["start"], moment["end"]
                ranked[which, place, rank] = numbers.setdefault(name, len(numbers))
                scores[which, place, rank] = moment["score"]
    check_same_ranking("moments", ranked[0], scores[0], ranked[1], scores[1])
    return f"{len(pairs)} answers equal"


def latency(seconds: Sequence[float]) -> str:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return f"p50 {1e3 * p50:.0f} ms, p99 {1e3 * p99:.0f} ms of {len(seconds)}"


def sentences_of(model_dir: str) -> list[str]:
    """The sentences of a model's val split.

    Raises:
        InputError: it has none.
    """
    opt = parse_inference_options(["--model_dir", model_dir])
    if opt.eval_path is None:
        raise InputError(f"{model_dir}: its dataset has no queries of a val split to ask")
    return [query.desc for query in load_queries(find_path(opt.eval_path))]


def measure(report: Report, server: ServerProcess, sentences: Sequence[str], n_users: int, seconds: float) -> None:
    """Lines of one user's requests, and of many users' at once."""
    User(server.port, sentences, limit=3).run()  # files are mapped and compared with their digests
    unit = measure_unit(CPU)
    one = User(server.port, sentences, limit=20)
    one.run()
    if one.errors:
        raise InputError(f"a user who asks alone gets errors: {dict(one.errors)}\n{server.said()}")
    middle = measure_unit(CPU)
    asked_alone = Timing(float(np.median(one.seconds)), unit, middle)
    report.add("a request, one user", asked_alone, 1, "requests", note=latency(one.seconds))
    users, took, memory = ask_together(server, sentences, n_users, seconds)
    answered = [second for user in users for second in user.seconds]
    errors = sum((user.errors for user in users), Counter())
    if not answered:
        raise InputError(f"nobody got an answer: {dict(errors)}\n{server.said()}")
    said = [latency(answered), f"errors: {dict(errors) or 'none'}", compare(one.found, users)]
    shown = ", ".join(f"{gib:.3f}" for gib in memory)
    said.append(f"server's memory at the start, every {MEMORY_EVERY_S:.0f} s, and at the end: {shown} GiB")
    timing = Timing(took, middle, measure_unit(CPU)).per(len(answered))
    report.add(f"a request, {n_users} users at once", timing, 1, "requests", note="; ".join(said))


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("what").add_argument
    add("--model_dir", required=True, help="results folder of the model that is served; its val videos are searched")
    add("--users", type=int, default=50, help="users who ask at once")
    add("--seconds", type=float, default=60, help="for so long")
    args, options = parser.parse_known_args(argv)
    sentences = sentences_of(args.model_dir)
    report, _ = start("api", f"{args.users} users of a server, {len(sentences)} sentences", args)
    with serving(args.model_dir, "--device", args.device, "--max_rate", 0, *options) as server:
        measure(report, server, sentences, args.users, args.seconds)
    report.finish(args.json)


if __name__ == "__main__":
    main()
