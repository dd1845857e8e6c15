"""SIGTERM and Ctrl-C end a run where it can go on from, a full disk is named, and the command to go on is said."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from method_tvr.training_state import has_state
from utils.basic_utils import PROJECT_ROOT, InputError, named_when_full


class Stopped(BaseException):
    """A signal asked to stop. No `Exception`, like KeyboardInterrupt, so that nothing takes it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopSignals:
    """Inside `with`, SIGTERM and SIGINT raise `Stopped`; a second one stops at once, as without all this.

    Inside `postponed` they only set `asked`, for work that has something to save first.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._postponing = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._pid = os.getpid()
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

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


@contextmanager
def resumable(folder: Path) -> Iterator[StopSignals]:
    """A run inside the block can be stopped by a signal, and whoever stops it learns how to go on.

    Args:
        folder: the run's results folder.

    Raises:
        InputError: as the block raises, or the disk is full; with the command to go on if there is a saved state.
        SystemExit: 128 + the signal's number.
    """
    try:
        with StopSignals() as signals, named_when_full(folder):
            yield signals
    except InputError as err:
        if not has_state(folder):
            raise
        raise InputError(f"{err}\nwhat was saved can be gone on with: {resume_command(folder)}") from err
    except Stopped as stopped:
        begun = (folder / "opt.json").exists()
        advice = f"go on with: {resume_command(folder)}" if begun else "nothing was begun"
        print(f"stopped by {signal.Signals(stopped.number).name}; {advice}", file=sys.stderr, flush=True)
        sys.exit(128 + stopped.number)
