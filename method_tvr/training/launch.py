"""Starting a command as one process or as several, and ending them together when one fails.

`torchrun` starts several itself. Without it, `launch` does when several are asked for; either way `started` joins them.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TextIO

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from method_tvr.options.values import NUMBERED
from method_tvr.training.distributed import ProcessRanks, Watch
from method_tvr.training.stopping import advised
from utils.basic_utils import BAD_INPUT_EXIT_CODE, InputError, command_line, end_at_once, first_line
from utils.model_utils import available_cpus, choose_device, use_cuda
from utils.ranks import ALONE, Ranks

OF_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what it tells a process it starts
LOST = "lost another process, which may have been killed"
WAITING_IN_C = ("cuda",)  # devices whose waits may never end; computations of the CPU do, and gloo notices then
NOTICING_S = 10.0  # in which the main thread notices by itself, if it can
JOINING = timedelta(minutes=10)  # that processes may differ in when they begin


def processes_to_launch(device_ids: Sequence[int]) -> int:
    """How many processes this one should start instead of itself: NGPU of them, or one for each of several devices.

    1 when one is enough, or when this one has been started as one of several.
    """
    if "RANK" in os.environ:
        return 1
    typed = os.environ.get("NGPU", "")
    if not typed:
        return len(device_ids)
    if not typed.isdecimal() or int(typed) < 1:
        raise InputError(f"NGPU={typed}: expected the number of processes to start, such as NGPU=2")
    if device_ids != NUMBERED and len(device_ids) != int(typed):
        raise InputError(f"NGPU={typed}, but --device_ids names {len(device_ids)}: name as many, or leave NGPU out")
    return int(typed)


def launch(argv: Sequence[str], n: int) -> NoReturn:
    """Run a Python command, `argv` as in `sys.argv`, as `n` processes on this machine, and end as they end."""
    logging.disable(logging.ERROR)  # processes that fail say why themselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // n)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)(*argv)
    except ChildFailedError as err:
        rank, failure = err.get_first_failure()
        if failure.exitcode >= 0:  # it has said why
            sys.exit(failure.exitcode)
        name = signal.Signals(-failure.exitcode).name
        print(f"error: process {rank} of {n} was ended by {name}: was there enough memory?", file=sys.stderr)
        sys.exit(128 - failure.exitcode)
    except SignalException as err:
        sys.exit(128 + err.sigval)
    sys.exit(0)


@contextmanager
def started(device: int, device_ids: Sequence[int], tf32: bool = False) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that this one was started with, if any, for a block: yields these, and this one's device.

    A process that is one of several ends with the block. Of several, only the main one prints. When the block raises on
    one of them, all end with an exit code that is not 0, and the one that raised first says why: as `command_line`
    does, or with a traceback.

    Args:
        device: CUDA device of a process that is alone; -1 for the CPU.
        device_ids: CUDA devices of several processes, in their order on each machine; `NUMBERED`: those with the
            processes' numbers.
        tf32: see `set_precision`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield ALONE, choose_device(device, tf32)
        return
    missing = [name for name in OF_TORCHRUN if name not in os.environ]
    if missing:
        raise InputError(f"WORLD_SIZE is set, but {', '.join(missing)} is not: start several processes with torchrun")
    store, rank, size = next(dist.rendezvous("env://", timeout=JOINING))
    with _failing_together(store, rank) as heard:
        own = _device(device, device_ids, int(os.environ.get("LOCAL_RANK", rank)), tf32)
        ranks = ProcessRanks(own, dist.PrefixStore("group", store), rank, size)
        end = _EndWhenLost(store, heard)
        if own.type in WAITING_IN_C:
            Watch(dist.PrefixStore("watch", store), rank, size, end)
        yield ranks, own
        end.leaving = True
        ranks.close()
        end_at_once(0)


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Make an error in what processes exchange an `InputError`: another one has ended."""
    try:
        yield
    except RuntimeError as err:
        frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(err.__traceback__)]
        if not any(name.startswith("torch.distributed.") for name in frames):
            raise
        raise InputError(f"{LOST} ({first_line(err)})") from err


def _device(device: int, device_ids: Sequence[int], local_rank: int, tf32: bool) -> torch.device:
    """The device of the `local_rank`-th process of this machine."""
    if device < 0 or not torch.cuda.is_available():
        return choose_device(device, tf32)
    if device_ids == NUMBERED:
        number = local_rank
    elif local_rank < len(device_ids):
        number = device_ids[local_rank]
    else:
        raise InputError(
            f"--device_ids {' '.join(map(str, device_ids))}, for {local_rank + 1} processes or more on this machine: "
            "name a device for each"
        )
    if not 0 <= number < torch.cuda.device_count():
        raise InputError(
            f"there is no CUDA device {number} for process {local_rank} of this machine, which has "
            f"{torch.cuda.device_count()}: start fewer processes, or give --device_ids that are there"
        )
    return use_cuda(number, tf32)


class _EndWhenLost:
    """Ends this process when another is gone and the main thread, in a wait for the device, cannot notice.

    NCCL's kernels wait for a lost process for ever, the device for them, the main thread for the device, and no
    exception or signal handler reaches it. torch aborts only what takes longer than `distributed.TIMEOUT`.
    """

    def __init__(self, store: dist.Store, heard: TextIO) -> None:
        self.leaving = False  # whether others may end from now on
        self._store, self._heard, self._called = store, heard, threading.Lock()

    def __call__(self) -> None:
        if self.leaving or not self._called.acquire(blocking=False):
            return
        time.sleep(NOTICING_S)
        if self.leaving:
            return
        last = threading.Timer(NOTICING_S, os._exit, (BAD_INPUT_EXIT_CODE,))  # the store may not answer
        last.daemon = True
        last.start()
        if _first_to_fail(self._store):
            print(f"error: {advised(LOST)}", file=self._heard, flush=True)
        os._exit(BAD_INPUT_EXIT_CODE)


@contextmanager
def _failing_together(store: dist.Store, rank: int) -> Iterator[TextIO]:
    """Speak for the main process alone, and end all when the block raises in one; yields where all are heard."""
    heard = sys.stdout, sys.stderr
    if rank:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process)
    try:
        with naming_lost_processes():
            yield heard[1]
    except BaseException as err:
        unheard = isinstance(err, SystemExit) and rank > 0  # it said why where nobody hears it: another will speak
        if not unheard and _first_to_fail(store):
            sys.stdout, sys.stderr = heard
        else:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        code = _report(err)
        for stream in heard:
            stream.flush()
        # threads of gloo may wait for processes that will not answer, which would keep this one from ending, or are
        # still there when the interpreter takes itself apart, which then aborts
        end_at_once(code)


def _first_to_fail(store: dist.Store) -> bool:
    try:
        return int(store.add("failed", 1)) == 1
    except RuntimeError:  # it went with the process that kept it
        return False


def _report(err: BaseException) -> int:
    """Say what happened as a command does, and return its exit code."""

    def fail() -> None:
        raise err

    try:
        command_line(fail)()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    return 1
