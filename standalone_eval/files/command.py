"""Programs: what is wrong with a file or an option is one message, with exit code 2."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from .terminal import escaped_output

BAD_INPUT_EXIT_CODE = 2


class BadInput(Exception):  # noqa: N818 (as much a finding as an error)
    """A file the user gave cannot be used; the message lists what is wrong with it."""


def command_line(main: Callable[[], None]) -> Callable[[], None]:
    """Make `main` report `BadInput` and unusable paths as a message with exit code 2 instead of a traceback.

    What is printed meanwhile is `printable`: no name from a file is obeyed by the terminal.
    """

    @functools.wraps(main)
    @escaped_output()
    def wrapped() -> None:
        try:
            main()
        except (BadInput, OSError) as err:
            print(f"error: {err}", file=sys.stderr)
            sys.exit(BAD_INPUT_EXIT_CODE)

    return wrapped


def positive_int(text: str) -> int:
    """An option's value as an integer from 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)
