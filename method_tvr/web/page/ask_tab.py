"""The tab on which a sentence is asked: ranked moments, and the chosen one to watch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import gradio as gr

from method_tvr.ask.moments import Moment
from method_tvr.ask.searcher import QuestionError
from method_tvr.web.answers import LOST
from method_tvr.web.batching import Busy
from method_tvr.web.page.chooser import Chooser, choosable, number_of
from method_tvr.web.page.moment_view import MomentView, ShownMoment
from method_tvr.web.page.rendering import message, render
from method_tvr.web.saving.lists import list_url
from method_tvr.web.service import Service
from standalone_eval.ground_truth import Span
from utils.basic_utils import InputError

LOG = logging.getLogger(__name__)
N_EXAMPLES = 6


class AskTab:
    """Built inside a `gr.Blocks`."""

    def __init__(self, service: Service, view: MomentView) -> None:
        self._service = service
        limits = service.limits
        self.sentence = gr.Textbox(
            label="What happens in the moment?",
            placeholder="Somebody opens a drawer.",
            max_length=limits.max_sentence,
            elem_id="sentence",
            autofocus=True,
        )
        with gr.Row():
            ask = gr.Button("Find moments", variant="primary", scale=0, min_width=160, elem_id="ask")
            with gr.Accordion("Where to look, how many to show", open=False):
                video = gr.Textbox(label="In this video alone", max_length=500, elem_id="in-video")
                show = gr.Textbox(
                    label="In this show alone (what video names begin with)", max_length=500, elem_id="in-show"
                )
                top_k = gr.Slider(1, min(50, limits.max_top_k), value=10, step=1, label="Moments", elem_id="top-k")
        self._sentences = service.example_sentences(N_EXAMPLES)
        if self._sentences:
            examples = choosable("examples", render("examples.html.j2", sentences=self._sentences))
            examples.select(
                self._example,
                None,
                self.sentence,
                api_visibility="private",
                show_progress="hidden",
            )
        self.message = gr.HTML(elem_id="ask-message")
        self.chooser = Chooser(view, "asked")
        gr.on(
            [ask.click, self.sentence.submit],
            self._ask,
            [self.sentence, top_k, video, show],
            [self.message, *self.chooser.outputs],
            api_visibility="private",
        )

    def _example(self, event: gr.EventData) -> str:
        return self._sentences[number_of(event, len(self._sentences))]

    def _ask(
        self, sentence: str | None, top_k: float, video: str | None, show: str | None
    ) -> tuple[str, str, str, list[ShownMoment]]:
        asked, video, show = ((text or "").strip() for text in (sentence, video, show))
        try:
            found = self._service.search(asked, int(top_k), video or None, show or None)
            truth = self._service.annotated(asked)
            shown = self._shown(asked, found, truth)
        except (QuestionError, Busy) as err:
            return message(str(err)), "", "", []
        except InputError as err:
            LOG.error("%s", err)
            return message(LOST), "", "", []
        note = f"This is a query of the split; its moment is in {', '.join(truth)}."
        return message(note, "note") if truth else "", *self.chooser.show(
            shown, list_url(asked, int(top_k), video or None, show or None)
        )

    def _shown(self, sentence: str, found: Sequence[Moment], truth: Mapping[str, Sequence[Span]]) -> list[ShownMoment]:
        names = list(dict.fromkeys(moment.vid_name for moment in found))
        curves = dict(zip(names, self._service.searcher.curves(sentence, names), strict=True))
        durations = self._service.durations
        shown = []
        for rank, moment in enumerate(found, start=1):
            name = moment.vid_name
            shown.append(ShownMoment(str(rank), moment, durations[name], truth.get(name, ()), curves[name]))
        return shown
