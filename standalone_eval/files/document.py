"""Reading a JSON document a piece at a time: what stands in a list right below its top is handed on, and not kept.

The text is cut into values, and each of these is read by the JSON decoder of Python. What is malformed is described by
it as well: it is given what is left of the text, behind a beginning that stands for all that was read before.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from .command import BadInput
from .pieces import Window

N_KEPT = 8  # elements of a list that nobody takes; messages show fewer, and so many say which form a document is of
BATCH = 1 << 20  # characters of a list that are handed on at a time
_LONGEST_MARK = 64  # more characters than any literal or escape has, so that a piece may have ended inside one
_NUMBER = frozenset("0123456789+-.eE")
_DECODER = json.JSONDecoder()


class Sink(Protocol):
    """What takes a list of the document."""

    def add(self, elements: list[Any]) -> None:
        """Take the next elements, as many as a piece of text holds."""


NewSink = Callable[[str, Mapping[str, Any]], "Sink | None"]


class NotJson(BadInput):
    """A file is not JSON.

    Attributes:
        first: the document that ends with the line on which it began, where more follows on others; otherwise None.
    """

    def __init__(self, message: str, first: Any = None) -> None:
        super().__init__(message)
        self.first = first


def read_document(path: str | os.PathLike[str], new_sink: NewSink | None = None) -> Any:
    """Read a JSON document, large lists of which are not kept.

    Args:
        path: the file.
        new_sink: called for each list that is a value of the document, an object, with its key and what was read
            before it; what it returns takes the list, and stands in its place.

    Returns:
        the document. Lists that no sink takes, and the document if it is one, have their first `N_KEPT` elements.

    Raises:
        NotJson: it is malformed.
        BadInput: it cannot be read, or is not UTF-8 text.
    """
    window = Window(path)
    try:
        with _uncollected():
            return _document(window, new_sink or (lambda key, content: None))
    except _MalformedError as err:
        window.drain()
        raise NotJson(f"{path}: is not valid JSON ({err}): was it written whole?", err.first) from err


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for circles of objects, which JSON has none of: it would go through all queries again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _MalformedError(Exception):
    """What the decoder has said, with the place in the file; `first` is that of `NotJson`."""

    def __init__(self, message: str, first: Any = None) -> None:
        super().__init__(message)
        self.first = first


def _document(window: Window, new_sink: NewSink) -> Any:
    begin = window.at = window.ahead()
    if window.position == 0 and window.character(begin) == "\ufeff":
        raise _malformed(window, "")
    line = window.line(begin)
    content = _content(window, new_sink)
    end_line, window.at = window.line(window.at), window.ahead()
    if window.at < len(window.text):
        alone = line == end_line < window.line(window.at)
        raise _malformed(window, "0 ", content if alone else None)
    return content


def _content(window: Window, new_sink: NewSink) -> Any:
    opening = window.character(window.at)
    if opening == "[":
        return _taken(window, _FirstFew()).kept
    if opening != "{":
        return _value(window)
    content: dict[str, Any] = {}
    for key in _keys(window):
        if window.character(window.at) == "[":
            sink = new_sink(key, content)
            content[key] = _taken(window, _FirstFew()).kept if sink is None else _taken(window, sink)
        else:
            content[key] = _value(window)
    return content


class _FirstFew:
    """Keeps the first elements of a list."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def add(self, elements: list[Any]) -> None:
        self.kept += elements[: N_KEPT - len(self.kept)]


def _taken(window: Window, sink: Any) -> Any:
    """Give the list at which the window stands to a sink, which is returned."""
    batch, since = [], window.position
    for element in _elements(window):
        batch.append(element)
        if window.position - since >= BATCH:
            sink.add(batch)
            batch, since = [], window.position
    if batch:
        sink.add(batch)
    return sink


def _elements(window: Window) -> Iterator[Any]:
    """The elements of the list that begins where the window stands, which ends up behind it."""
    index = window.ahead(1)
    if window.character(index) == "]":
        window.at = index + 1
        return
    window.at = index
    while True:
        yield _value(window)
        if not _goes_on(window, "]", "[0"):
            return


def _keys(window: Window) -> Iterator[str]:
    """The keys of the object that begins where the window stands; it stands at each one's value when that is due."""
    index = window.ahead(1)
    if window.character(index) == "}":
        window.at = index + 1
        return
    if window.character(index) != '"':
        raise _malformed(window, "")
    window.at = index
    while True:
        key = _value(window)
        window.at = window.ahead()
        if window.character(window.at) != ":":
            raise _malformed(window, '{""')
        window.at = window.ahead(1)
        yield key
        if not _goes_on(window, "}", '{"":0'):
            return


def _goes_on(window: Window, closing: str, before: str) -> bool:
    """Step over the comma to the next element or key, or over what closes the list or object, which is `before` it."""
    window.at = window.ahead()
    mark = window.character(window.at)
    if mark == closing:
        window.at += 1
        return False
    index = window.ahead(1) if mark == "," else window.at
    if mark != "," or window.character(index) == closing or (closing == "}" and window.character(index) != '"'):
        raise _malformed(window, before)
    window.at = index
    return True


def _value(window: Window) -> Any:
    """The value that begins where the window stands, which ends up behind it."""
    while True:
        try:
            value, end = _DECODER.raw_decode(window.text, window.at)
        except (ValueError, RecursionError) as err:
            if window.ended or not _may_be_cut(window.text, err):
                raise _MalformedError(_message(window, err)) from err
        else:
            if window.ended or end < len(window.text) - len("e+"):  # else a number may go on
                window.at = end
                return value
        window.grow()


def _may_be_cut(text: str, err: Exception) -> bool:
    """Whether a value may be malformed only because the text ends too early."""
    if isinstance(err, json.JSONDecodeError):
        return err.msg.startswith("Unterminated string") or err.pos > len(text) - _LONGEST_MARK
    # else it is too deep, or an integer is too long for Python, which may be the beginning of another number
    return isinstance(err, ValueError) and text[-1] in _NUMBER


def _malformed(window: Window, before: str, first: Any = None) -> _MalformedError:
    """What the decoder says of the text from where the window stands, with `before` in place of all before it."""
    try:
        json.loads(before + window.text[window.at :])
    except ValueError as err:
        return _MalformedError(_message(window, err, window.at - len(before)), first)
    raise AssertionError(f"the decoder takes what was taken for malformed after {before}")


def _message(window: Window, err: Exception, offset: int = 0) -> str:
    """An error of the decoder, whose text began at index `offset` of the window's, with the place in the file."""
    if isinstance(err, json.JSONDecodeError):
        return f"{err.msg}: {window.locate(err.pos + offset)}"
    return str(err)
