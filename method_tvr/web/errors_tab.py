"""The tab on which the queries of a split are browsed: what was found for each, and what should have been."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from method_tvr.web.chooser import KEPT_S, Chooser, choosable, number_of
from method_tvr.web.judged_queries import ANY, JudgedQueries, Wanted
from method_tvr.web.moment_view import MomentView, ShownMoment
from method_tvr.web.rendering import render
from method_tvr.web.service import Service

SCROLL_TO_QUERY = "() => document.getElementById('query').scrollIntoView({ behavior: 'smooth' })"
PAGE_SIZE = 25  # queries
N_PREDICTIONS = 5
HIT, MISS = "right at rank 1", "not right at rank 1"
RANKS = {ANY: None, "1": (1, 1), "2 to 10": (2, 10), "11 to 100": (11, 100), "not found": (0, 0)}
ORDERS = ("as annotated", "best rank first", "worst rank first")


class ErrorsTab:
    """Built inside a `gr.Blocks`.

    Args:
        service: for the curves of a query.
        judged: queries and predictions.
        view: shows moments.
    """

    def __init__(self, service: Service, judged: JudgedQueries, view: MomentView) -> None:
        self._service, self._judged = service, judged
        with gr.Row():
            self.filters: list[Any] = [
                gr.Dropdown([ANY, *judged.types], value=ANY, label="Query type", visible=bool(judged.types)),
                gr.Dropdown(judged.iou_thds, value=judged.iou_thds[0], label="Right from IoU", elem_id="iou"),
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
        self,
        page: int,
        query_type: str,
        iou_thd: float,
        outcome: str,
        ranks: str,
        words: str | None,
        order: str,
    ) -> tuple[str, int, list[int]]:
        hit = None if outcome == ANY else outcome == HIT
        numbers = self._judged.select(Wanted(query_type, float(iou_thd), hit, RANKS[ranks], words or ""))
        rank = self._judged.ranks(float(iou_thd))[numbers]
        rank = np.where(rank == 0, np.iinfo(np.int64).max, rank)
        if order != ORDERS[0]:
            numbers = numbers[np.argsort(rank if order == ORDERS[1] else -rank, kind="stable")]
        page = min(max(page, 0), max(0, len(numbers) - 1) // PAGE_SIZE)
        first = page * PAGE_SIZE
        shown = numbers[first : first + PAGE_SIZE].tolist()
        table = render("queries.html.j2", judged=self._judged, numbers=shown, first=first, found=len(numbers))
        return str(table), page, shown

    def _open(self, numbers: list[int], event: gr.EventData) -> tuple[str, str, str, list[ShownMoment]]:
        if not numbers:
            return "", *self.chooser.show([])
        number = numbers[number_of(event, len(numbers))]
        heading = render("query.html.j2", judged=self._judged, number=number)
        return str(heading), *self.chooser.show(self._moments(number))

    def _moments(self, number: int) -> list[ShownMoment]:
        """The annotated moments of a query, then what was predicted for it."""
        judged, durations = self._judged, self._service.durations
        own, annotated = judged.vid_names[number], judged.annotated(number)
        predicted = judged.predicted(judged.task, number, N_PREDICTIONS)
        names = list(dict.fromkeys([own, *(name for name, *_ in predicted)]))
        curves = dict(zip(names, self._service.curves(judged.sentences[number], names), strict=True))
        truth = [
            ShownMoment("annotated", own, durations[own], span, truth=annotated, curves=curves[own])
            for span in annotated
        ]
        return truth + [
            ShownMoment(
                str(rank), name, durations[name], (st, ed), score,
                truth=annotated if name == own else (), curves=curves[name],
            )
            for rank, (name, st, ed, score) in enumerate(predicted, start=1)
        ]  # fmt: skip
