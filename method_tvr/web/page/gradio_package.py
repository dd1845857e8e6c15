"""Gradio, imported in half of the time.

Whenever it is imported, it parses its own sources for every component, to write stubs for type checkers beside them:
two seconds of each start of a server. Of a class that has no source file it writes none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _without_stubs() -> Iterator[None]:
    """Let Gradio's classes have no source file for as long as it is imported."""
    getfile = inspect.getfile

    def getfile_of_others(described: Any) -> str:
        if isinstance(described, type) and described.__module__.startswith("gradio."):
            raise OSError("no source file, and so no stub")
        return getfile(described)

    inspect.getfile = getfile_of_others  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = getfile


with _without_stubs():
    import gradio as gr
    from gradio.queueing import Queue
    from gradio.utils import run_coro_in_background

__all__ = ["Queue", "gr", "run_coro_in_background"]
