"""Templates of the page: what users and datasets wrote is escaped wherever it is put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from method_tvr.ask.moments import clock

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["clock"] = clock


def render(template: str, **values: Any) -> Markup:
    """A template of `templates/` with values in it; halves of characters, which cannot be sent, become `?`."""
    return Markup(_ENVIRONMENT.get_template(template).render(values).encode("utf-8", "replace").decode("utf-8"))
