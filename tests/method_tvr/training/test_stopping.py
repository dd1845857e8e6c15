"""A signal ends a process whose main thread waits in C, where no handler of it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from method_tvr.training import stopping
from method_tvr.training.saved_run import LAST
from tests.support.processes import LIMIT_S
from tests.support.shell import PROJECT_ROOT

BEGIN = """
import signal, sys, threading, time
from pathlib import Path
import torch
from method_tvr.training import stopping
from tests.support.processes import stay_in_c
stopping.BACK_S = float(sys.argv[2])
with stopping.resumable(Path(sys.argv[1]), torch.device(sys.argv[3])) as signals:
"""
# said when the main thread is in C for certain: before, it would take notice of a signal
STUCK = """
    threading.Timer(1, print, ("begun",), {"flush": True}).start()
    stay_in_c()
"""


def begin(code: str, folder: Path, back_s: float, device: str = "cuda") -> subprocess.Popen[str]:
    """Run code inside `resumable` in a process of its own, up to where it says that it has begun."""
    command = [sys.executable, "-c", BEGIN + code, str(folder), str(back_s), device]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what it said."""
    try:
        _, said = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_that_waits_for_a_device(tmp_path, number):
    (tmp_path / LAST).touch()
    process = begin(STUCK, tmp_path, back_s=0.2)
    process.send_signal(number)
    code, said = ended(process)
    assert code == 128 + number
    assert f"stopped by {number.name} in a wait for the device\n" in said
    assert said.count(f"train.sh --resume {tmp_path}") == 1


def test_a_second_signal_ends_it_at_once(tmp_path):
    process = begin(STUCK, tmp_path, back_s=10 * LIMIT_S)
    while process.poll() is None:  # the first ones are one
        process.send_signal(signal.SIGTERM)
        time.sleep(stopping.REPEATED_S / 2)
    assert ended(process) == (143, "stopped by SIGTERM in a wait for the device\n")


def test_a_signal_that_is_taken_notice_of_leaves_time_to_finish(tmp_path):
    code = """
    with signals.postponed():
        print("begun", flush=True)
        while signals.asked is None:
            time.sleep(0.01)
        time.sleep(1)
        print("finished", flush=True)
    """
    process = begin(code, tmp_path, back_s=0.2)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "finished\n"
    code, said = ended(process)
    assert code == 143
    assert "stopping after this step" in said
    assert "in a wait" not in said


def test_computations_of_the_cpu_are_waited_for(tmp_path):
    code = """
    threading.Thread(target=lambda: (time.sleep(1), print("waiting", flush=True))).start()
    print("begun", flush=True)
    stay_in_c()
    """
    process = begin(code, tmp_path, back_s=0, device="cpu")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    assert process.poll() is None
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL


def test_after_a_run_signals_are_what_they_were(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
    with stopping.StopSignals(back_s=1):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)) == before
