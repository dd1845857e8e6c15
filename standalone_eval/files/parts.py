"""Unfinished files and folders beside their places: one that a killed process left is known by nobody holding it.

Whoever writes one holds a shared lock on it until it is done, and whoever begins the next one of the same place removes
those on which no lock is held. Shared, because HDF5 takes one of its own to read what has just got its name.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there is nobody to tell whose a part is, and what was left stays
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".part"
_DRAWN = r"([a-z0-9_]{8}){1,2}"  # what tempfile puts between prefix and suffix; twice for what is being replaced


def make_ordinary(path: Path, mode: int) -> None:
    """Give what `tempfile` made, which is private, the permissions that `mode` and the umask give others."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


@contextmanager
def part_file(parent: Path, prefix: str) -> Iterator[Path]:
    """A new empty file `{prefix}XXXXXXXX.part`; whatever is there under its name when the block ends is removed."""
    remove_abandoned(parent, prefix)
    with _held(lambda: _new_file(parent, prefix)) as part:
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def part_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder `{prefix}XXXXXXXX.part`; whatever is there under its name when the block ends is removed."""
    remove_abandoned(parent, prefix)
    with _held(lambda: Path(tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX, dir=parent))) as part:
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the parts with this prefix whose writers were killed; others, and what cannot be locked, stay."""
    if fcntl is None:
        return
    form = re.compile(re.escape(prefix) + _DRAWN + re.escape(SUFFIX))
    for path in [path for path in parent.iterdir() if form.fullmatch(path.name)]:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # its writer is done with it, or it is a link or somebody else's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        except OSError:  # a living process holds it, or there are no locks here, or it may not be removed
            pass
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _new_file(parent: Path, prefix: str) -> Path:
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=SUFFIX, dir=parent)
    os.close(handle)
    return Path(name)


@contextmanager
def _held(make: Callable[[], Path]) -> Iterator[Path]:
    """What `make` makes, with a lock on it where there are locks; made again if it was taken for an abandoned one."""
    while True:
        part = make()
        if fcntl is None:
            yield part
            return
        try:
            handle = os.open(part, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            if _lock_shared(handle) and part.exists():
                yield part
                return
        finally:
            os.close(handle)


def _lock_shared(handle: int) -> bool:
    """Lock a part; False when somebody is just removing it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks, where nobody else gets one either
        return True
    return True
