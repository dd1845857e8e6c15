"""Errors, whole-or-nothing files, JSON and progress: what every part of the project needs."""

from __future__ import annotations

import argparse
import errno
import functools
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import orjson

from standalone_eval.files.parts import make_ordinary, part_file
from standalone_eval.files.terminal import escaped_output, printable
from standalone_eval.files.writing import why_not_output

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")
C = TypeVar("C", bound="Closing")
StrPath: TypeAlias = str | os.PathLike[str]

PROJECT_ROOT = Path(__file__).resolve().parents[1]
BAD_INPUT_EXIT_CODE = 2
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # a full disk, a spent quota, a limit on file sizes


class InputError(Exception):
    """Something the user gave is wrong. The message names the file, the key and the remedy."""


def needed(package: str, what: str, install: str) -> Any:
    """A package that few need, or an `InputError` that says `what` needs it, and the command that installs it."""
    try:
        return import_module(package)
    except ImportError as err:
        raise InputError(f"{what}: needs {package} ({err}): {install}") from err


def recorded(settings: Any, later: Mapping[str, Any]) -> dict[str, Any]:
    """What files hold of a dataclass: {field: value}, without fields that have the value they have in `later`.

    Those are newer than the form of the files, which so are what they were before there were such fields.
    """
    return {name: value for name, value in asdict(settings).items() if name not in later or value != later[name]}


class Closing:
    """What has something open, such as a file, until `close` or the end of a `with` block."""

    def close(self) -> None:
        """Close it; a second time changes nothing."""
        raise NotImplementedError

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


NO_DEBUG = "would write a file of the first few videos alone: leave it out, or give a small file"


class RefusedOption(argparse.Action):
    """An option of the published code that is not taken here: an `InputError` says `why`, and what to do instead."""

    def __init__(self, option_strings: Sequence[str], dest: str, why: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs="*", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        self._why = why

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> NoReturn:
        raise InputError(f"{option_string}: {self._why}")


def command_line(main: Callable[..., object]) -> Callable[..., None]:
    """Make `main` report an `InputError` as one clear message with exit code 2 instead of a traceback.

    What is printed meanwhile is `printable`: no name from a file is obeyed by the terminal.
    """

    @functools.wraps(main)
    @escaped_output()
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except InputError as err:
            print(f"error: {err}", file=sys.stderr)
            sys.exit(BAD_INPUT_EXIT_CODE)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)

    return wrapped


def parse_first(parse: Callable[..., object], *args: Any) -> None:
    """Let --help and mistyped options end a program before it imports what takes seconds, such as torch.

    Args:
        parse: reads the program's command line and prints nothing else, as `main` has it read again.
        *args: what `parse` takes.
    """
    command_line(parse)(*args)


def end_at_once(code: int) -> NoReturn:
    """End this process, without the interpreter taking itself apart: nothing of Python's may be needed any more."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


@contextmanager
def named_when_full(path: StrPath) -> Iterator[None]:
    """Make a disk that fills up inside the block an `InputError` that names `path`, what is being written there."""
    try:
        yield
    except OSError as err:
        if err.errno not in NO_ROOM:
            raise
        raise InputError(f"{path}: cannot be written ({err.strerror}): make room there, and try again") from err


def check_room(folder: Path, n_bytes: int) -> None:
    """An `InputError` if a folder's disk lacks room for what is to be written: sooner, not instead of a full disk's."""
    if n_bytes > (free := shutil.disk_usage(folder).free):
        needed = f"{n_bytes / 2**20:,.1f} MiB are needed, {free / 2**20:,.1f} MiB are free"
        raise InputError(f"{folder}: has too little room ({needed}): make room there, or name another folder")


def refuse_input_as_output(option: str, out: StrPath, inputs: Iterable[StrPath | None]) -> None:
    """An `InputError` if a file to be written is one of those that are read, which would be lost."""
    if reason := why_not_output(option, out, inputs):
        raise InputError(reason)


@contextmanager
def whole_file(path: StrPath, previous: StrPath | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well; `InputError` if there is no room.

    A kill, an error or a power cut at any moment leaves either the old file or the new one, never half of one. The old
    one is kept as `previous`, if that is given: a kill between the two renamings leaves it there alone. What a kill
    leaves of a new one is removed when the file is written the next time.
    """
    target = Path(path)
    with named_when_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_file(target.parent, f".{target.name}.") as part:
            yield part
            sync(part)
            make_ordinary(part, 0o666)
            if previous is not None and target.exists():
                target.replace(previous)
            part.replace(target)
            sync(target.parent)


def sync(path: StrPath) -> None:
    """Wait until the content of a file, or the names in a folder, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as err:
        if err.errno != errno.EINVAL:  # what file systems say that cannot do this for folders
            raise
    finally:
        os.close(handle)


def write_json(data: Any, path: StrPath, indent: bool = False) -> None:
    """Write `data` (numpy scalars and arrays allowed) as JSON, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(json_bytes(data, indent))


def json_bytes(data: Any, indent: bool = False) -> bytes:
    """`data` (numpy scalars and arrays allowed) as JSON."""
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0))


def write_jsonl(rows: Iterable[dict[str, Any]], path: StrPath) -> None:
    """Write one JSON object a line, whole or not at all."""
    with whole_file(path) as part:
        put_jsonl(rows, part)


def is_writable(content: Any) -> bool:
    """Whether JSON can be written of what was read: more can be nested in what is read, and numbers be larger."""
    try:
        json_bytes(content)
    except TypeError:
        return False
    return True


def put_jsonl(rows: Iterable[dict[str, Any]], part: Path) -> None:
    """Write one JSON object a line into a part of `whole_file`."""
    with open(part, "wb") as out:
        for row in rows:
            out.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


def read_bytes(path: StrPath, remedy: str = "check the path") -> bytes:
    """Read a file, or raise `InputError` saying why it cannot be read and the `remedy`.

    Pipes and devices are refused: they may have no end, or never begin.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return Path(path).read_bytes()
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror}): {remedy}") from err


def read_json(path: StrPath, remedy: str = "check the path") -> Any:
    """Load a JSON file; `InputError` when it is missing or is not JSON."""
    try:
        return orjson.loads(read_bytes(path, remedy))
    except orjson.JSONDecodeError as err:
        raise InputError(f"{path}: is not valid JSON ({err}): was it written whole?") from err


def read_jsonl(path: StrPath, remedy: str = "check the path") -> list[dict[str, Any]]:
    """Load a file of one JSON object a line: row i is line i + 1.

    `InputError` when it is missing or empty, or a line, which is named, is not a JSON object.
    """
    rows = []
    for number, line in enumerate(read_bytes(path, remedy).rstrip().splitlines(), start=1):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as err:
            raise InputError(f"{path}, line {number}: is not valid JSON ({err}): mend or remove the line") from err
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected an object {{…}}, found {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: has no lines: was it downloaded or written whole?")
    return rows


def is_text(string: str) -> bool:
    """Whether a string can be written as UTF-8, unlike what Python makes of bytes on a command line that are not."""
    return string.isascii() or not any("\ud800" <= character <= "\udfff" for character in string)


def is_name(string: str) -> bool:
    """Whether a string can be a name in files and on terminals: it has no characters that a terminal obeys."""
    return bool(string) and printable(string) == string


def first_line(err: BaseException) -> str:
    """The first line of an error's message, or its kind when it has none."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0]


def first_few(names: Sequence[Any], limit: int = 5) -> str:
    """'a, b, c … (12 in all)': the first names of a list and how many there are."""
    shown = ", ".join(printable(str(name)) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} … ({len(names)} in all)"


@functools.cache
def note_once(text: str) -> None:
    """Print a note, unless this process has printed it before."""
    print(f"note: {text}", file=sys.stderr, flush=True)


def _bar(*args: Any, **options: Any) -> tqdm[Any]:
    """A progress bar, see `tqdm`, which is imported for terminals alone: that takes as long as all else here."""
    from tqdm import tqdm

    return tqdm(*args, **options)


def progress(items: Iterable[T], desc: str, total: int | None = None, every_s: float = 15.0) -> Iterator[T]:
    """Iterate with a progress bar on a terminal, and with a plain line every `every_s` seconds elsewhere."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if total == 1:  # has no progress to show
        yield from items
        return
    if sys.stderr.isatty():
        yield from _bar(items, desc=desc, total=total, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            print(f"{desc}: {done}/{total or '?'} in {now - start:.0f} s", file=sys.stderr, flush=True)


class Meter:
    """How far one long thing has come, and when it will end: shown once it takes more than `every_s` seconds.

    A bar on a terminal, elsewhere a plain line every `every_s` seconds.
    """

    def __init__(self, desc: str, total: float, unit: str, every_s: float = 15.0) -> None:
        self._desc, self._total, self._unit, self._every_s = printable(desc), total, unit, every_s
        self._start = self._last = time.monotonic()
        self._bar: tqdm[None] | None = None

    def reach(self, done: float) -> None:
        """Say that `done` of the total is done."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        if sys.stderr.isatty():
            form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}]"
            self._bar = _bar(desc=self._desc, total=self._total, unit=self._unit, bar_format=form, leave=False)
            self._bar.start_t -= now - self._start
            self._bar.update(done)
            return
        taken = now - self._start
        left = f", {taken * (self._total - done) / done:.0f} s left" if 0 < done < self._total else ""
        of = f"{done:.0f} of {self._total:.0f} {self._unit}"
        print(f"{self._desc}: {of} in {taken:.0f} s{left}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
