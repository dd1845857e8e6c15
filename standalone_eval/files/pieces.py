"""A file's text some of it at a time, so that no file is too large: UTF-8, with every end of line as a newline."""

from __future__ import annotations

import codecs
import io
import os
import re
import stat
from collections.abc import Iterator
from typing import BinaryIO

from .command import BadInput

PIECE = 1 << 20  # bytes that are read at a time
MAX_LINE = 64 << 20  # characters of a line; a document that was written into one may be longer
_SPACE = re.compile(r"[ \t\n\r]*")  # what JSON calls whitespace


def pieces_of(path: str | os.PathLike[str]) -> Iterator[str]:
    """A file's text in order; a `BadInput` says why it cannot be read. A pipe or device may have no end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadInput(f"{path}: cannot be read (it is not a regular file): check the path")
        with open(path, "rb") as file:
            yield from _decoded(file, path)
    except OSError as err:
        raise BadInput(f"{path}: cannot be read ({err.strerror}): check the path") from err


def _decoded(file: BinaryIO, path: str | os.PathLike[str]) -> Iterator[str]:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    n_read = 0
    while True:
        data = file.read(PIECE)
        n_read += len(data)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as err:  # its object is `data` and what the decoder had kept of the piece before
            place = f"{err.reason} at byte {n_read - len(err.object) + err.start}"
            raise BadInput(f"{path}: is not UTF-8 text ({place}): is it the right file?") from err
        if text:
            yield text
        if not data:
            return


def lines_of(path: str | os.PathLike[str], longest: int = MAX_LINE) -> Iterator[str]:
    """A file's lines without their ends. One that is longer than `longest` is the last, as far as it was read."""
    line = ""
    for text in pieces_of(path):
        *ended, rest = text.split("\n")
        if ended:
            yield line + ended[0]
            yield from ended[1:]
            line = ""
        line += rest
        if len(line) > longest:
            break
    yield line


def first_line(path: str | os.PathLike[str]) -> str:
    """The first line that is not blank, or its beginning if it is long; empty if there is none."""
    return next((line for line in lines_of(path, PIECE) if line.strip()), "")


class Window:
    """The part of a text that is looked at, from a place on; it grows at its end, and what was passed is forgotten.

    Attributes:
        text: the part.
        at: index in it, where reading goes on.
        ended: whether it reaches to the end of the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._pieces = pieces_of(path)
        self.text, self.at, self.ended = "", 0, False
        self._passed = 0  # characters before `text`
        self._lines = 0  # newlines among them
        self._line_start = 0  # characters before the line in which `text` begins

    @property
    def position(self) -> int:
        """How many characters of the file lie before `at`."""
        return self._passed + self.at

    def grow(self) -> None:
        """Read on, at least as much as there is from `at` on; what lies before it is dropped."""
        _, self._lines, self._line_start = self._place(self.at)
        self._passed += self.at
        parts, n_more = [self.text[self.at :]], len(self.text) - self.at
        while n_more >= 0 and not self.ended:
            piece = next(self._pieces, "")
            self.ended = not piece
            n_more -= len(piece) or 1
            parts.append(piece)
        self.text, self.at = "".join(parts), 0

    def ahead(self, n: int = 0) -> int:
        """The index of what follows `n` characters and then whitespace; the text's length at the end of the file."""
        while True:
            found = _SPACE.match(self.text, self.at + n)
            index = found.end() if found else len(self.text)
            if index < len(self.text) or self.ended:
                return index
            self.grow()

    def character(self, index: int) -> str:
        """The character there, empty at the end of the file."""
        return self.text[index : index + 1]

    def line(self, index: int) -> int:
        """How many lines end before `index`."""
        return self._place(index)[1]

    def locate(self, index: int) -> str:
        """Where in the file an index of `text` is, as messages of Python's JSON decoder have it."""
        position, n_lines, line_start = self._place(index)
        return f"line {n_lines + 1} column {position - line_start + 1} (char {position})"

    def drain(self) -> None:
        """Read the rest of the file, which may turn out not to be text."""
        for _ in self._pieces:
            pass

    def _place(self, index: int) -> tuple[int, int, int]:
        """Characters of the file before an index of `text`, newlines among them, and characters before its line."""
        newline = self.text.rfind("\n", 0, index)
        line_start = self._line_start if newline < 0 else self._passed + newline + 1
        return self._passed + index, self._lines + self.text.count("\n", 0, index), line_start
