"""The process in which hostile inputs are read.

It sends a message before and after each input. What it does not survive, whoever started it notices.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import shutil
import stat
import sys
import tempfile
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.fuzz.readers import READERS, Reader, quiet

ADDRESS_SPACE = 3 << 30  # on top of what the libraries take
# what no reader of data has any business with
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "shutil.unpack")
# what changes folders, and how many of its arguments name paths
CHANGES = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.rename": 2, "shutil.rmtree": 1}
forbidden_calls: list[str] = []
watched: list[str] = []  # the folder of the input that is being read


def _audit(event: str, args: tuple[object, ...]) -> None:
    if not watched:
        return
    if event in FORBIDDEN or (event == "pickle.find_class"):
        forbidden_calls.append(f"{event} {args!r:.200}")
    elif event == "os.truncate" or (
        event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    ):
        _note_elsewhere(event, args[0], follow=event != "open" or not args[2] & os.O_NOFOLLOW)
    elif event in CHANGES and not (isinstance(args[-1], int) and args[-1] >= 0):  # not within an open folder
        for path in args[: CHANGES[event]]:
            _note_elsewhere(event, path, follow=False)


def _note_elsewhere(event: str, path: object, follow: bool) -> None:
    """Note a path that is written to and lies outside the input's folder, links followed at its end or not."""
    if isinstance(path, str | bytes | os.PathLike):
        name = os.fsdecode(path)
        parent, base = os.path.split(name)
        real = os.path.realpath(name) if follow else os.path.join(os.path.realpath(parent or "."), base)
        if not (real + os.sep).startswith(watched[0] + os.sep) and real != os.devnull:
            forbidden_calls.append(f"{event} {name}")


def _reset_peak() -> None:
    """Begin anew with the most memory that this process has had (Linux; else a peak hides later lower ones)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident(name: str) -> int:
    """VmRSS, what this process has in memory, or VmHWM, the most of it so far: bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def keep(folder: Path, copy: Path) -> None:
    """Copy an input, but for pipes: reading them never ends."""

    def pipes(parent: str, names: list[str]) -> list[str]:
        return [name for name in names if stat.S_ISFIFO(os.lstat(os.path.join(parent, name)).st_mode)]

    shutil.copytree(folder, copy, symlinks=True, ignore=pipes)


def attempt(reader: Reader, name: str, number: int, folder: Path) -> tuple[str, str]:
    """Make input `number` in `folder` and read it: ("refused" or "used" or "finding", what was found)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with quiet():
        reader.write(Random(f"{name}/{number}"), folder)
    size, outcome, detail = _size(folder), "used", ""
    forbidden_calls.clear()
    _reset_peak()
    held = _resident("VmRSS")
    watched.append(str(folder.resolve()))
    try:
        with quiet():
            reader.read(folder)
    except reader.refusal as err:
        outcome, detail = "refused", str(err)[:200]
    except BaseException:
        outcome, detail = "finding", traceback.format_exc(limit=-6)
    finally:
        watched.clear()
    taken, allowed = _resident("VmHWM") - held, reader.memory[0] + reader.memory[1] * size
    if taken > allowed:
        outcome, detail = "finding", f"{size} bytes took {taken} bytes of memory (allowed: {allowed}); {detail}"
    if forbidden_calls:
        outcome, detail = "finding", f"reached for {forbidden_calls[:3]}"
    return outcome, detail


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_inputs(name: str, first: int, count: int, folder: Path, messages: Connection) -> None:
    """Read `count` inputs of a reader from number `first` on, each in a folder; what goes wrong is said in `errors`."""
    os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    faulthandler.enable()
    reader = READERS[name]
    warnings.simplefilter("ignore")
    tempfile.tempdir = str(folder)  # which outlives the process, and goes when whoever started it is done
    attempt(reader, name, first, folder / "in")  # imports what it needs, before limits and counting
    _limit_memory()
    sys.addaudithook(_audit)
    for number in range(first, first + count):
        messages.send({"begin": number})
        outcome, detail = attempt(reader, name, number, folder / "in")
        if outcome == "finding":  # kept for whoever started this, out of the way of the next input
            keep(folder / "in", folder / str(number))
        messages.send({"end": number, "outcome": outcome, "detail": detail})
