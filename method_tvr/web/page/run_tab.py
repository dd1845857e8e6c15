"""The tab that says how good the model is, by recalls or by NDCG, and the curves of its training."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from method_tvr.report.plots import Curve, draw_curves, read_curves
from method_tvr.trained.published_model import load_model
from method_tvr.web.outcomes.split_outcomes import SplitOutcomes
from method_tvr.web.page.gradio_package import gr
from method_tvr.web.page.rendering import message, render
from utils.basic_utils import InputError

CURVES_SIZE = (14, 4.2)  # inches
NO_CURVES = "There are no curves of the training in the folder of the model."


def build_run_tab(model_dir: Path, outcomes: SplitOutcomes | None) -> None:
    """Built inside a `gr.Blocks`, of a results folder and of queries with predictions, if there are any."""
    gr.HTML(summary_table(outcomes) if outcomes else "", elem_id="recalls")
    try:
        curves = read_curves(model_dir / "tensorboard_log")
    except InputError:  # whose message says where the folder is
        gr.HTML(message(NO_CURVES, "note"), elem_id="curves")
    else:
        kept = load_model(model_dir).epoch
        gr.HTML(curves_svg(curves, kept), elem_id="curves")


def summary_table(outcomes: SplitOutcomes) -> str:
    """How good the predictions are."""
    return render("summary.html.j2", summary=outcomes.summary())


def curves_svg(curves: dict[str, Curve], kept_epoch: int) -> str:
    """Losses and recalls over epochs, as inline SVG, with a line at the epoch whose model was kept."""
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "axes.spines.top": False}):
        figure = Figure(figsize=CURVES_SIZE)
        draw_curves(figure.add_subfigure(figure.add_gridspec()[0]), curves, kept_epoch)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]
