"""A signal ends a process whose main thread waits in C, where no handler of it runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from method_tvr.training import stopping
from method_tvr.training.saved_run import LAST
from tests.support.processes import LIMIT_S, codes_of, said, start_ranks, stay_in_c

SETTLED_S = 0.4  # after which a main thread that goes into C is there, for certain
Work = Callable[[stopping.StopSignals], object]


def say(word: str) -> None:
    print(word, flush=True)


def run(work: Work, folder: Path, back_s: float, device: str) -> None:
    """In a process of its own."""
    stopping.BACK_S, stopping.REPEATED_S = back_s, 0.4
    with stopping.resumable(folder, torch.device(device)) as signals:
        work(signals)


def begin(work: Work, folder: Path, back_s: float, device: str = "cuda") -> BaseProcess:
    """Run something inside `resumable` in a process of its own, up to where it says that it has begun."""
    (process,) = start_ranks(1, folder, partial(run, work, folder, back_s, device))
    wait_until_said("begun", process, folder)
    return process


def wait_until_said(word: str, process: BaseProcess, folder: Path) -> None:
    end = time.monotonic() + LIMIT_S
    while not ((folder / "out_0").exists() and word in (folder / "out_0").read_text().split()):
        assert process.is_alive(), said(1, folder)
        assert time.monotonic() < end
        time.sleep(0.01)


def stuck(_: stopping.StopSignals) -> None:
    """Said to have begun when the main thread is in C for certain: before, it would take notice of a signal."""
    threading.Timer(SETTLED_S, say, ("begun",)).start()
    stay_in_c()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_that_waits_for_a_device(tmp_path, number):
    (tmp_path / LAST).touch()
    process = begin(stuck, tmp_path, back_s=0.2)
    os.kill(process.pid, number)
    assert codes_of([process]) == [128 + number]
    assert f"stopped by {number.name} in a wait for the device\n" in said(1, tmp_path)
    assert said(1, tmp_path).count(f"train.sh --resume {tmp_path}") == 1


def test_a_second_signal_ends_it_at_once(tmp_path):
    process = begin(stuck, tmp_path, back_s=10 * LIMIT_S)
    while process.is_alive():  # the first ones are one
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.2)
    assert codes_of([process]) == [143]
    assert said(1, tmp_path) == "stopped by SIGTERM in a wait for the device\n"


def finishing(signals: stopping.StopSignals) -> None:
    with signals.postponed():
        say("begun")
        while signals.asked is None:
            time.sleep(0.01)
        time.sleep(0.5)  # more than `back_s`
        say("finished")


def test_a_signal_that_is_taken_notice_of_leaves_time_to_finish(tmp_path):
    process = begin(finishing, tmp_path, back_s=0.2)
    os.kill(process.pid, signal.SIGTERM)
    assert codes_of([process]) == [143]
    assert "finished" in (tmp_path / "out_0").read_text()
    assert "stopping after this step" in said(1, tmp_path)
    assert "in a wait" not in said(1, tmp_path)


def computing(_: stopping.StopSignals) -> None:
    for word, after_s in (("begun", SETTLED_S), ("waiting", 2 * SETTLED_S)):
        threading.Timer(after_s, say, (word,)).start()
    stay_in_c()


def test_computations_of_the_cpu_are_waited_for(tmp_path):
    process = begin(computing, tmp_path, back_s=0, device="cpu")
    os.kill(process.pid, signal.SIGTERM)
    wait_until_said("waiting", process, tmp_path)
    assert process.is_alive()
    process.kill()
    assert codes_of([process]) == [-signal.SIGKILL]


def test_after_a_run_signals_are_what_they_were(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
    with stopping.StopSignals(back_s=1):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)) == before
