"""What folders share that are there whole or not at all: caches, encoded corpora, indexes; and locks on any folder.

A folder is made under another name beside its place and renamed when all of it is safely on the disk. Beside large
arrays lies a JSON file with a seal, the digest of its own content.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from standalone_eval.files.parts import SUFFIX, make_ordinary, part_folder
from utils.basic_utils import InputError, read_bytes, sync, write_json

LOCK = ".lock"
PAUSE_S = 0.25  # between tries to take a lock


@contextmanager
def lock_file(folder: Path) -> Iterator[int]:
    """The file `.lock` in a folder, to be given to `lock`; made when it is not there.

    `OSError` when it cannot be opened: no link that leads elsewhere is followed, and no pipe waited for.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    handle = os.open(folder / LOCK, flags, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def lock(
    handle: int, place: Path, busy: InputError | str, no_locks: str | None = None, patience_s: float = 0.0
) -> bool:
    """Keep other processes out until the handle, of a file or folder, is closed; False where there are no locks.

    Args:
        handle, place: what is locked, and what to call it in the note.
        busy: for when another process is in: an error, raised after `patience_s`, or a note, said before waiting for
            as long as it takes.
        no_locks: what the user has to see to where the file system knows no locks, for a note; None for none.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if isinstance(busy, str):
                print(f"note: {busy}", file=sys.stderr, flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
                return True
            if time.monotonic() >= end:
                raise busy from None
            time.sleep(PAUSE_S)
        except OSError as err:  # some network file systems have no locks
            if no_locks is not None:
                print(f"note: {place}: cannot be locked ({err.strerror}): {no_locks}", file=sys.stderr, flush=True)
            return False


@contextmanager
def locked_folder(
    folder: Path, busy: InputError | str, no_locks: str | None = None, patience_s: float = 0.0
) -> Iterator[None]:
    """`lock` a folder for the time of the block; no file is left for it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, folder, busy, no_locks, patience_s)
        yield
    finally:
        os.close(handle)


def put_in_place(part: Path, folder: Path, gives_way: Callable[[], bool] | None = None, mode: int = 0o777) -> None:
    """Give a finished folder of files, of `part_folder`, its name beside it, once they would survive a power cut.

    Its permissions are those of `mode` that the umask leaves.

    Whether a folder of that name is to be replaced is asked of `gives_way`; one that is not stays, and the new one is
    not needed. Without `gives_way` there must be none; `OSError` if there is.
    """
    for path in part.iterdir():
        sync(path)
    make_ordinary(part, mode)
    try:
        os.rename(part, folder)
    except OSError:
        if gives_way is None or not folder.is_dir():
            raise
        if not gives_way():
            return
        with part_folder(folder.parent, part.name.removesuffix(SUFFIX)) as replaced:
            os.rename(folder, replaced)
            try:
                os.rename(part, folder)
            except OSError:
                os.rename(replaced, folder)  # what was there is not lost
                raise
    sync(folder.parent)


def remove_left_over(parent: Path, prefix: str) -> None:
    """Remove what killed runs left of `part_folder`."""
    for path in parent.glob(f"{prefix}*"):
        if path.is_dir():  # rmtree waits for ever for what a pipe might say
            shutil.rmtree(path, ignore_errors=True)


def seal(content: dict[str, Any]) -> str:
    """SHA-256 of a JSON object."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)).hexdigest()


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object with a digest beside it."""
    write_json({"content": content, "sha256": seal(content)}, path)


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Read what `write_sealed` wrote; `InputError`, which ends with the `remedy`, when it is missing or damaged."""
    text = read_bytes(path, remedy)
    try:
        sealed = orjson.loads(text)
        content, said = sealed["content"], sealed["sha256"]
        intact = isinstance(content, dict) and said == seal(content)
    except (orjson.JSONDecodeError, KeyError, TypeError):  # the last also for what is nested too deeply to be sealed
        intact = False
    if not intact:
        raise InputError(f"{path}: is damaged: {remedy}")
    return dict(content)


def file_digest(file: Path | int) -> str:
    """SHA-256 of the bytes of a file, given by its path, or by a handle, which stays open."""
    digest, buffer = hashlib.sha256(), bytearray(1 << 20)
    with open(file, "rb", buffering=0, closefd=not isinstance(file, int)) as opened:
        if isinstance(file, int):
            opened.seek(0)
        while n := opened.readinto(buffer):
            digest.update(memoryview(buffer)[:n])
    return digest.hexdigest()


def npy_header(shape: Sequence[int], dtype: str) -> bytes:
    """What an npy file of version 1.0 begins with: a magic number, the length of a text, the text."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": tuple(shape)})
    return header.getvalue()
