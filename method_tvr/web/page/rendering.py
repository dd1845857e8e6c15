"""Templates of the page."""

from __future__ import annotations

from pathlib import Path

from method_tvr.ask.moments import clock
from method_tvr.report.rendering import renderer

render = renderer(Path(__file__).parent / "templates", clock=clock)
