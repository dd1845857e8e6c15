"""The tab on which a sentence or a picture is asked: ranked moments, and the chosen one to watch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from method_tvr.ask.moments import Moment
from method_tvr.ask.questions import QuestionError
from method_tvr.web.answers import LOST
from method_tvr.web.batching import Asked, Busy
from method_tvr.web.page.chooser import Chooser, choosable, number_of
from method_tvr.web.page.gradio_package import gr
from method_tvr.web.page.moment_view import MomentView, ShownMoment
from method_tvr.web.page.rendering import message, render
from method_tvr.web.pictures.asked import PATH as PICTURES
from method_tvr.web.saving.lists import list_url
from method_tvr.web.service import Service
from standalone_eval.ground_truth import Span
from utils.basic_utils import InputError

LOG = logging.getLogger(__name__)
N_EXAMPLES = 6
ON_LOAD = Path(__file__).with_name("picture.js").read_text()

Answer = tuple[str, str, str, list[ShownMoment]]  # a message, cards, details, and what they show


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
        compares_pictures = service.searcher.compares_pictures
        if compares_pictures:
            template = render("picture.html.j2", path=PICTURES, most_bytes=limits.max_picture)
            picture = gr.HTML(template, elem_id="ask-picture", js_on_load=ON_LOAD)
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
        where, outputs = [top_k, video, show], [self.message, *self.chooser.outputs]
        gr.on(
            [ask.click, self.sentence.submit],
            self._ask,
            [self.sentence, *where],
            outputs,
            api_visibility="private",
        )
        if compares_pictures:
            picture.select(self._ask_picture, where, outputs, api_visibility="private")

    def _example(self, event: gr.EventData) -> str:
        return self._sentences[number_of(event, len(self._sentences))]

    def _ask(self, sentence: str | None, top_k: float, video: str | None, show: str | None) -> Answer:
        return self._answer((sentence or "").strip(), None, int(top_k), video, show)

    def _ask_picture(self, top_k: float, video: str | None, show: str | None, event: gr.EventData) -> Answer:
        sent = event._data.get("picture") if isinstance(event._data, dict) else None
        return self._answer(None, str(sent), int(top_k), video, show)

    def _answer(
        self, sentence: str | None, picture: str | None, top_k: int, video: str | None, show: str | None
    ) -> Answer:
        video, show = ((text or "").strip() or None for text in (video, show))
        try:
            asked = self._service.what_is_asked(sentence, picture)
            found = self._service.search(asked, top_k, video, show)
            truth = {} if sentence is None else self._service.annotated(sentence)
            shown = self._shown(asked, found, truth)
        except (QuestionError, Busy) as err:
            return message(str(err)), "", "", []
        except InputError as err:
            LOG.error("%s", err)
            return message(LOST), "", "", []
        note = f"This is a query of the split; its moment is in {', '.join(truth)}."
        saved_from = list_url(sentence, picture, top_k, video, show)
        return message(note, "note") if truth else "", *self.chooser.show(shown, saved_from)

    def _shown(self, asked: Asked, found: Sequence[Moment], truth: Mapping[str, Sequence[Span]]) -> list[ShownMoment]:
        names = list(dict.fromkeys(moment.vid_name for moment in found))
        curves = dict(zip(names, self._service.searcher.curves(asked, names), strict=True))
        durations = self._service.durations
        shown = []
        for rank, moment in enumerate(found, start=1):
            name = moment.vid_name
            shown.append(ShownMoment(str(rank), moment, durations[name], truth.get(name, ()), curves[name]))
        return shown
