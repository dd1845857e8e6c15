"""Templates of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from method_tvr.ask.moments import clock, percent
from method_tvr.report.rendering import renderer

_fill = renderer(Path(__file__).parent / "templates", clock=clock, percent=percent)


def render(template: str, **values: Any) -> str:
    """A template filled, as Gradio takes it."""
    return str(_fill(template, **values))


def message(text: str, kind: str = "problem") -> str:
    """What is said to the visitor: of a `problem`, or as a `note`."""
    return render("message.html.j2", text=text, kind=kind)
