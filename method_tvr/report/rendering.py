"""HTML from templates: what users and datasets wrote is escaped, and cleaned, wherever it is put in."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).resolve().parent / "templates"
LONGEST_TEXT = 2000  # characters of a sentence or a name
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def clean(value: Any) -> Any:
    """Other people's text without what no page can hold; halves of characters become `?`. All else stays as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _CONTROL.sub("\ufffd", value.encode("utf-8", "replace").decode("utf-8"))


def shown(text: object) -> str:
    """Other people's text, clean and of bearable length."""
    whole: str = clean(str(text))
    return whole if len(whole) <= LONGEST_TEXT else whole[:LONGEST_TEXT] + "…"


def renderer(folder: Path, **filters: Callable[..., Any]) -> Callable[..., Markup]:
    """A function that fills a folder's templates, which may use `shown` and `filters`: `render(template, **values)`."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, **filters}

    def render(template: str, **values: Any) -> Markup:
        return Markup(environment.get_template(template).render(values))

    return render


render = renderer(TEMPLATES)


def style_and_script() -> dict[str, Markup | str]:
    """What a report's template needs to hold in itself: `style`, `script`, and the `script_hash` that permits it."""
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return {"style": Markup(style), "script": Markup(script), "script_hash": digest}
