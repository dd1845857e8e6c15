"""Several processes in a test, each in the environment that torchrun would give it.

What they print goes to files in a folder: `out_{rank}` and `err_{rank}`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from method_tvr.training.launch import started
from tests.support.fork_server import fork_server

LIMIT_S = 120


def start_ranks(n: int, folder: Path, work: Callable[[], object]) -> list[BaseProcess]:
    """Let `n` processes do `work`, each in the environment that torchrun would give it."""
    folder.mkdir(exist_ok=True)
    context = fork_server()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes: list[BaseProcess] = []
    for rank in range(n):
        processes.append(context.Process(target=_run_rank, args=(rank, n, port, folder, work)))
        processes[-1].start()
    return processes


def codes_of(processes: Sequence[BaseProcess]) -> list[int]:
    """Wait for all and return their exit codes; the test fails when they do not end by themselves."""
    end = time.monotonic() + LIMIT_S
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
    if late:
        pytest.fail(f"{len(late)} of {len(processes)} processes did not end within {LIMIT_S} s")
    return [process.exitcode or 0 for process in processes]


def run_ranks(n: int, folder: Path, work: Callable[..., Any]) -> list[int]:
    """Run `work(ranks)` in `n` processes, results into `folder`; their exit codes."""
    return codes_of(start_ranks(n, folder, partial(_joined, folder, work)))


def results_of(n: int, folder: Path, work: Callable[..., Any]) -> list[Any]:
    """What `work(ranks)` returned in each process."""
    codes = run_ranks(n, folder, work)
    assert codes == [0] * n, said(n, folder)
    return [torch.load(folder / f"result_{rank}", weights_only=False) for rank in range(n)]


def start_command(
    n: int,
    folder: Path,
    main: Callable[[], None],
    argv: Sequence[str],
    prepare: Callable[[], None] | None = None,
) -> list[BaseProcess]:
    """Run a command's `main` in `n` processes as if it had been typed, after `prepare` in each of them."""
    return start_ranks(n, folder, partial(_typed, main, list(argv), prepare))


def said(n: int, folder: Path) -> str:
    """Everything on the stderr of all."""
    return "".join((folder / f"err_{rank}").read_text() for rank in range(n))


def stay_in_c() -> NoReturn:
    """Wait in C for ever, as for a device: other threads run, and no signal or exception ends it."""
    locked = ctypes.create_string_buffer(64)  # room for a pthread_mutex_t
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(locked)
    raise AssertionError("it came back")


def _run_rank(rank: int, n: int, port: int, folder: Path, work: Callable[[], object]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{name}_{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    work()


def _joined(folder: Path, work: Callable[..., Any]) -> None:
    with started(-1, [0]) as (ranks, _):
        torch.save(work(ranks), folder / f"result_{ranks.rank}")
        print(f"rank {ranks.rank} is done", flush=True)


def _typed(main: Callable[[], None], argv: list[str], prepare: Callable[[], None] | None) -> None:
    sys.argv = ["command", *argv]
    os.fsync = lambda handle: None  # nothing here cuts the power
    if prepare is not None:
        prepare()
    main()
