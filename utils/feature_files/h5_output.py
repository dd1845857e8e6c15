"""What HDF5 writes into: a file whose errors wait until HDF5 is done with it.

HDF5 keeps part of a file in memory until it is closed. When that cannot be written then, the file is neither open nor
closed, and the process crashes at its end. So HDF5 never learns of an error here.
"""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import h5py

from utils.basic_utils import StrPath


@contextmanager
def h5_output(path: StrPath) -> Iterator[H5Output]:
    """Make a new h5 file in place of the file `path`; `OSError` says what first went wrong on the disk."""
    with _PatientSignals() as signals:
        output = H5Output(path, signals)
        try:
            yield output
            with output.writing():
                output.h5.close()
        finally:
            signals.wait()
            output.h5.close()
            output.raw.close()
            signals.go_on()


class H5Output:
    """A new h5 file that is open for writing; see `h5_output`."""

    def __init__(self, path: StrPath, signals: _PatientSignals) -> None:
        self._signals, self.raw = signals, _RawFile(path)
        with self.writing():
            self.h5 = h5py.File(self.raw, "w", libver="latest")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """HDF5 works inside the block, and only there; `OSError` at its end if the disk did not take everything."""
        self._signals.wait()
        try:
            yield
        finally:
            try:
                self._signals.go_on()
            finally:
                if self.raw.error is not None:  # the reason of whatever HDF5 raises then
                    raise self.raw.error


class _PatientSignals:
    """Ctrl-C and SIGTERM, where Python handles them, wait while HDF5 works.

    Python would raise inside of what HDF5 calls to write, which is an error on the disk to HDF5.
    """

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._busy, self._came = False, list[int]()

    def __enter__(self) -> _PatientSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(handler := signal.getsignal(number)):
                    self._before[number] = handler
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._receive:  # or has been given to somebody else meanwhile
                signal.signal(number, handler)

    def wait(self) -> None:
        """Let signals wait for `go_on`."""
        self._busy = True

    def go_on(self) -> None:
        """Handle those that came meanwhile, and others when they come."""
        self._busy = False
        while self._came:
            number = self._came.pop()
            self._before[number](number, None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._busy:
            self._came.append(number)
        else:
            self._before[number](number, frame)


class _RawFile(io.RawIOBase):
    """Bytes on the disk, as h5py asks for them. The first error is kept in `error`, and nothing is written after it."""

    def __init__(self, path: StrPath) -> None:
        self.error: OSError | None = None
        self._at = 0
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            self._at = offset
        else:
            self._at = offset + (self._at if whence == os.SEEK_CUR else os.fstat(self._handle).st_size)
        return self._at

    def readinto(self, buffer: Any) -> int:
        n = os.preadv(self._handle, [buffer], self._at)
        self._at += n
        return n

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                written = os.pwrite(self._handle, data, self._at)
                while written < len(data):  # a disk that fills up takes a part, and refuses the rest
                    written += os.pwrite(self._handle, data[written:], self._at + written)
            except OSError as err:
                self.error = err
        self._at += len(data)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        end = self._at if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._handle, end)
        except OSError as err:
            self.error = err
        return end

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()
