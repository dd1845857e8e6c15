"""A list of moments beside the one that was chosen from it, as both tabs with moments have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from method_tvr.web.page.gradio_package import gr
from method_tvr.web.page.moment_view import MomentView, ShownMoment
from method_tvr.web.page.rendering import message

KEPT_S = 3600  # seconds after which what a visitor was shown is forgotten
FORGOTTEN = message("This list was shown too long ago: ask or filter again, then choose.")
ON_LOAD = Path(__file__).with_suffix(".js").read_text()


def choosable(elem_id: str, html: str = "") -> gr.HTML:
    """HTML whose elements with a `data-number` can be chosen: a `select` event has it as `number`."""
    return gr.HTML(html, elem_id=elem_id, js_on_load=ON_LOAD)


def number_of(event: gr.EventData, n: int) -> int:
    """The number in a `select` event, brought between 0 and n - 1: it comes from the browser, and may be anything."""
    number = event._data.get("number") if isinstance(event._data, dict) else 0
    return min(max(number, 0), n - 1) if isinstance(number, int) else 0


class Chooser:
    """Cards of moments on the left, the chosen one on the right: `{name}-cards` and `{name}-details` in the page."""

    def __init__(self, view: MomentView, name: str) -> None:
        self._view = view
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=360):
                self.cards = choosable(f"{name}-cards")
            with gr.Column(scale=2, min_width=320):
                self.details = gr.HTML(elem_id=f"{name}-details")
        self.state = gr.State([], time_to_live=KEPT_S)
        self.outputs: list[Any] = [self.cards, self.details, self.state]  # what `show` fills
        self.cards.select(self._choose, self.state, self.details, api_visibility="private", show_progress="hidden")

    def show(self, moments: Sequence[ShownMoment], list_url: str | None = None) -> tuple[str, str, list[ShownMoment]]:
        """The outputs that show moments; the first one is chosen, and does not play. `list_url`: see `cards`."""
        details = self._view.details(moments[0], play=False) if moments else ""
        return self._view.cards(moments, list_url), details, list(moments)

    def _choose(self, moments: list[ShownMoment], event: gr.EventData) -> str:
        if not moments:
            return FORGOTTEN
        return self._view.details(moments[number_of(event, len(moments))], play=True)
