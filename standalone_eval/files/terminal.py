"""Text of others on a terminal: characters that it would obey are shown, not sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

# what terminals obey: C0, DEL and C1 controls, separators of lines, what turns the direction of text; and halves of
# characters, which cannot be written. Above ASCII in a form that JSON has too, whose strings may be among the output.
_SHOWN = {code: f"\\x{code:02x}" for code in range(0x20)} | {
    code: f"\\u{code:04x}"
    for codes in (range(0x7F, 0xA0), range(0x2028, 0x202F), range(0x2066, 0x206A), range(0xD800, 0xE000))
    for code in codes
}
_SHOWN_IN_LINES = {code: shown for code, shown in _SHOWN.items() if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """Text of others in one line: an escape character as `\\x1b`, and so on."""
    return text.translate(_SHOWN)


class _Escaping:
    """A stream to which text goes as `printable` has it, line by line; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        begin = "\r" if text.startswith("\r") else ""  # progress bars go back to the beginning of their line
        self._stream.write(begin + text[len(begin) :].translate(_SHOWN_IN_LINES))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Whatever is printed inside the block, names and sentences of any files in it, is `printable`."""
    os.environ.setdefault("NO_COLOR", "1")  # for argparse and others, whose colours are escape sequences as well
    out, err = (cast(TextIO, _Escaping(stream)) if stream else stream for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield
