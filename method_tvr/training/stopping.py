"""SIGTERM and Ctrl-C end a run where it can go on from, a full disk is named, and the command to go on is said."""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from method_tvr.training.saved_run import has_state
from utils.basic_utils import PROJECT_ROOT, InputError, named_when_full

CPU = torch.device("cpu")
BACK_S = 20.0  # in which the main thread takes notice of a signal; torchrun kills after 30
REPEATED_S = 1.0  # signals that are closer together are one, sent by several or to several


class Stopped(BaseException):
    """A signal asked to stop. No `Exception`, like KeyboardInterrupt, so that nothing takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopSignals:
    """Inside `with`, SIGTERM and SIGINT raise `Stopped`; a second one stops at once, as without all this.

    Inside `postponed` they only set `asked`, for work that has something to save first.

    A main thread that waits for a device runs no Python until the device answers, and takes no notice of signals. With
    `back_s` a thread beside it ends the process then: so many seconds after the first signal, or at the second one.
    """

    def __init__(self, back_s: float | None = None) -> None:
        self.asked: int | None = None
        self._postponing = False
        self._back_s = back_s
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._pid = os.getpid()
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        if self._back_s is not None:
            read, self._written_to = os.pipe()
            os.set_blocking(self._written_to, False)
            self._wakeup_before = signal.set_wakeup_fd(self._written_to, warn_on_full_buffer=False)
            threading.Thread(target=self._watch_main_thread, args=(read, self._back_s), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._back_s is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._written_to)  # which ends the thread

    def _watch_main_thread(self, read: int, back_s: float) -> None:
        """End the process when signals come, whose numbers can be read, and their handler is not run."""
        first, number = 0.0, 0
        with open(read, "rb", buffering=0) as signals:
            while True:
                left = max(0.0, first + back_s - time.monotonic()) if number else None
                ready, _, _ = select.select([signals], [], [], left)
                numbers = signals.read(64) if ready else b""
                if self.asked is not None or (ready and not numbers):  # the main thread is back, or the block has ended
                    return
                came = [n for n in numbers if n in self._before]
                if came and not number:
                    first, number = time.monotonic(), came[0]
                elif number and (not ready or (came and time.monotonic() - first > REPEATED_S)):
                    break
        name = signal.Signals(number).name
        print(advised(f"stopped by {name} in a wait for the device"), file=sys.stderr, flush=True)
        os._exit(128 + number)

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """A signal inside the block raises at its end, or when `raise_if_asked` is called."""
        self._postponing = True
        try:
            yield
        finally:
            self._postponing = False
        self.raise_if_asked()

    def raise_if_asked(self, anyone: bool = False) -> None:
        """Raise `Stopped` if a signal came, here or to another process of the run (`anyone`)."""
        if self.asked is not None or anyone:
            raise Stopped(self.asked or signal.SIGTERM)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a loading process has inherited this; it ends with the one that started it
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.asked = number
        if not self._postponing:
            raise Stopped(number)
        print("stopping after this step; a second signal stops at once", file=sys.stderr, flush=True)


def resume_command(folder: Path) -> str:
    """What to type to go on with the run in a results folder, from the folder that it was started in."""
    script = PROJECT_ROOT / "method_tvr" / "scripts" / "train.sh"
    return shlex.join(["bash", str(script), "--resume", str(folder.resolve())])


_going_on: list[Path] = []  # the folder of the run of this process, if there is one


def advised(text: str) -> str:
    """The text of an error that ends this process, with the command to go on if it has saved what a run needs."""
    if not (_going_on and has_state(_going_on[0])):
        return text
    return f"{text}\nwhat was saved can be gone on with: {resume_command(_going_on[0])}"


@contextmanager
def resumable(folder: Path, device: torch.device = CPU) -> Iterator[StopSignals]:
    """A run inside the block can be stopped by a signal, and whoever stops it learns how to go on.

    Args:
        folder: the run's results folder.
        device: where it computes; waits for the CPU end by themselves.

    Raises:
        InputError: as the block raises, or the disk is full; with the command to go on if there is a saved state.
        SystemExit: 128 + the signal's number.
    """
    back_s = BACK_S if device.type == "cuda" else None
    _going_on[:] = [folder]
    try:
        with StopSignals(back_s) as signals, named_when_full(folder):
            yield signals
    except InputError as err:
        raise InputError(advised(str(err))) from err
    except Stopped as stopped:
        begun = (folder / "opt.json").exists()
        advice = f"go on with: {resume_command(folder)}" if begun else "nothing was begun"
        print(f"stopped by {signal.Signals(stopped.number).name}; {advice}", file=sys.stderr, flush=True)
        sys.exit(128 + stopped.number)
    finally:
        _going_on.clear()
