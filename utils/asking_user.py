"""Asking the user for a yes."""

from __future__ import annotations

import sys


def agreed(notice: str, question: str) -> bool | None:
    """Whether the user at the terminal says yes to a question, after a notice; None where nobody can be asked."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    print(notice, file=sys.stderr)
    try:
        answer = input(question)
    except EOFError:
        answer = ""
    return answer.strip().lower() in ("y", "yes")
