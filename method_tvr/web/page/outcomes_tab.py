"""The tab on which the queries of a split are browsed: what was found for each, and what should have been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from method_tvr.ask.moments import Moment
from method_tvr.ask.questions import QuestionError
from method_tvr.search.answering import SpanCurves
from method_tvr.web.outcomes.split_outcomes import ANY, NamedMoment, SplitOutcomes, Wanted
from method_tvr.web.page.chooser import FORGOTTEN, KEPT_S, Chooser, choosable, number_of
from method_tvr.web.page.gradio_package import gr
from method_tvr.web.page.moment_view import MomentView, ShownMoment
from method_tvr.web.page.rendering import render
from method_tvr.web.service import Service
from standalone_eval.ground_truth import Span

SCROLL_TO_QUERY = "() => document.getElementById('query').scrollIntoView({ behavior: 'smooth' })"
PAGE_SIZE = 25  # queries
N_PREDICTIONS = 5
HIT, MISS = "right at rank 1", "not right at rank 1"
RANKS = {ANY: None, "1": (1, 1), "2 to 10": (2, 10), "11 to 100": (11, 100), "not found": (0, 0)}
ORDERS = ("as annotated", "best first", "worst first")


class OutcomesTab:
    """Built inside a `gr.Blocks`."""

    def __init__(self, service: Service, outcomes: SplitOutcomes, view: MomentView) -> None:
        self._service, self._outcomes = service, outcomes
        with gr.Row():
            self.filters: list[Any] = [
                gr.Dropdown(
                    [ANY, *outcomes.types], value=ANY, label="Query type", visible=bool(outcomes.types), elem_id="type"
                ),
                gr.Dropdown(
                    outcomes.iou_thds,
                    value=outcomes.iou_thds[0],
                    label="Right from IoU",
                    elem_id="iou",
                    visible=outcomes.has_moments,
                ),
                gr.Dropdown([ANY, HIT, MISS], value=ANY, label="Outcome", elem_id="outcome"),
                gr.Dropdown(list(RANKS), value=ANY, label="Rank of the truth", elem_id="rank"),
                gr.Textbox("", label="Words", max_length=200, elem_id="words"),
                gr.Dropdown(list(ORDERS), value=ORDERS[0], label="Order", elem_id="order"),
            ]
        self.table = choosable("queries")
        with gr.Row():
            back = gr.Button("‹ before", size="sm", scale=0, min_width=110, elem_id="queries-back")
            on = gr.Button("next ›", size="sm", scale=0, min_width=110, elem_id="queries-on")
        self.heading = gr.HTML(elem_id="query")
        self.chooser = Chooser(view, "query")
        self._page = gr.State(0)
        self._numbers = gr.State([], time_to_live=KEPT_S)  # of the queries in the table
        listed = [self.table, self._page, self._numbers]
        quiet: Any = {"api_visibility": "private", "show_progress": "hidden"}
        for one in self.filters:
            one.change(lambda *chosen: self._list(0, *chosen), self.filters, listed, **quiet)
        back.click(lambda page, *chosen: self._list(page - 1, *chosen), [self._page, *self.filters], listed, **quiet)
        on.click(lambda page, *chosen: self._list(page + 1, *chosen), [self._page, *self.filters], listed, **quiet)
        opened = self.table.select(self._open, self._numbers, [self.heading, *self.chooser.outputs], **quiet)
        opened.then(None, js=SCROLL_TO_QUERY)
        self.first_page = (lambda: self._list(0, *(one.value for one in self.filters)), listed)

    def _list(
        self, page: int, query_type: Any, iou_thd: Any, outcome: Any, ranks: Any, words: str | None, order: Any
    ) -> tuple[str, int, list[int]]:
        thd = _chosen(iou_thd, self._outcomes.iou_thds)
        hit = {ANY: None, HIT: True, MISS: False}[_chosen(outcome, (ANY, HIT, MISS))]
        kind, order = _chosen(query_type, (ANY, *self._outcomes.types)), _chosen(order, ORDERS)
        wanted = Wanted(kind, thd, hit, RANKS[_chosen(ranks, tuple(RANKS))], words or "")
        numbers = self._outcomes.select(wanted)
        if order != ORDERS[0]:
            quality = self._outcomes.quality(thd)[numbers]
            numbers = numbers[np.argsort(-quality if order == ORDERS[1] else quality, kind="stable")]
        page = min(max(page, 0), max(0, len(numbers) - 1) // PAGE_SIZE)
        first = page * PAGE_SIZE
        shown = numbers[first : first + PAGE_SIZE].tolist()
        table = render("queries.html.j2", outcomes=self._outcomes, numbers=shown, first=first, found=len(numbers))
        return table, page, shown

    def _open(self, numbers: list[int], event: gr.EventData) -> tuple[str, str, str, list[ShownMoment]]:
        if not numbers:
            return FORGOTTEN, "", "", []
        number = numbers[number_of(event, len(numbers))]
        heading = render("query.html.j2", outcomes=self._outcomes, number=number)
        return heading, *self.chooser.show(self._moments(number))

    def _moments(self, number: int) -> list[ShownMoment]:
        """The annotated moments of a query, then what was predicted for it."""
        truth, found = self._outcomes.truth(number), self._outcomes.predicted(number, N_PREDICTIONS)
        annotated = self._outcomes.annotated(number)
        named = [*truth, *found]
        names = list(dict.fromkeys(one.vid_name for one in named))
        durations = self._durations(names, [(one.vid_name, one.span) for one in named if one.span is not None])
        curves = self._curves(self._outcomes.sentences[number], names)

        def shown(one: NamedMoment) -> ShownMoment:
            name = one.vid_name
            start, end = one.span or (0.0, durations[name])
            return ShownMoment(
                one.name,
                Moment(name, start, end, one.score),
                durations[name],
                annotated.get(name, ()),
                curves.get(name),
            )

        return list(map(shown, named))

    def _durations(self, names: Sequence[str], spans: Sequence[tuple[str, Span]]) -> dict[str, float]:
        """{vid_name: seconds}; of a video that is not searched, until where the last of these spans ends."""
        last = {name: max((end for of, (_, end) in spans if of == name), default=0.0) for name in names}
        known = self._service.durations
        return {name: known.get(name) or max(last[name], 1.0) for name in names}

    def _curves(self, sentence: str, names: Sequence[str]) -> dict[str, SpanCurves]:
        """{vid_name: curves} of the videos that are searched; none of a sentence that cannot be looked for."""
        searched = [name for name in names if name in self._service.durations]
        try:
            return dict(zip(searched, self._service.searcher.curves(sentence, searched), strict=True))
        except QuestionError:  # it is blank, or nothing in it is a word
            return {}


def _chosen(value: Any, choices: Sequence[Any]) -> Any:
    """The choice that is equal to what the browser sent; the first where it sent none, or several."""
    return choices[choices.index(value)] if value in choices else choices[0]
