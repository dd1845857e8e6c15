"""The page: ask, learn from mistakes, see how good the model is. Everything it needs comes from this machine."""

from __future__ import annotations

from pathlib import Path

from method_tvr.web.page.ask_tab import AskTab
from method_tvr.web.page.blocks import VisitorBlocks
from method_tvr.web.page.gradio_package import gr
from method_tvr.web.page.moment_view import MomentView
from method_tvr.web.page.outcomes_tab import OutcomesTab
from method_tvr.web.page.rendering import message, render
from method_tvr.web.page.run_tab import build_run_tab
from method_tvr.web.service import Service

FONTS = ["system-ui", "DejaVu Sans", "sans-serif"]  # the visitor's own: no font is fetched from anywhere
MONO_FONTS = ["ui-monospace", "DejaVu Sans Mono", "monospace"]
AT_A_TIME = 8  # events that are worked on; searches wait for each other anyway
MAX_SESSIONS = 250  # visitors whose lists are remembered, up to half a megabyte each; the latest
STYLES = Path(__file__).parent / "page.css"


def theme() -> gr.themes.Base:
    """Gradio's plain theme with fonts that are there."""
    return gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONO_FONTS)


def build_page(service: Service) -> VisitorBlocks:
    """The three tabs over one service; to be mounted into the server's app with `theme` and `STYLES`."""
    view = MomentView(service.subtitles, service.media)
    name = service.model_dir.resolve().name
    with VisitorBlocks(title=f"Moments: {name}", analytics_enabled=False) as page:
        facts = list(map(str, service.facts))
        gr.HTML(render("heading.html.j2", name=name, n_videos=len(service.videos), facts=facts))
        with gr.Tab("Ask", id="ask"):
            AskTab(service, view)
        with gr.Tab("Mistakes", id="mistakes"):
            if service.outcomes is None:
                gr.HTML(message(service.why_no_outcomes, "note"))
            else:
                fill, outputs = OutcomesTab(service, service.outcomes, view).first_page
                page.load(fill, None, outputs, api_visibility="private", show_progress="hidden")
        with gr.Tab("Run", id="run"):
            build_run_tab(service.model_dir, service.outcomes)
    page.state_session_capacity = MAX_SESSIONS
    return page.queue(max_size=service.limits.max_queue, default_concurrency_limit=AT_A_TIME)
