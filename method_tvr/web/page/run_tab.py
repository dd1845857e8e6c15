"""The tab that says how good the model is: recalls, by type of query, and the curves of its training."""

from __future__ import annotations

import io
from pathlib import Path

import gradio as gr
import matplotlib
from matplotlib.figure import Figure

from method_tvr.report.plots import Curve, draw_curves, read_curves
from method_tvr.training.checkpoint import load_checkpoint
from method_tvr.web.page.rendering import message, render
from method_tvr.web.query_outcomes import QueryOutcomes
from standalone_eval.metrics import recalls, recalls_by_type
from utils.basic_utils import InputError

CURVES_SIZE = (14, 4.2)  # inches
NO_CURVES = "There are no curves of the training in the folder of the model."


def build_run_tab(model_dir: Path, outcomes: QueryOutcomes | None) -> None:
    """Built inside a `gr.Blocks`, of a results folder and of queries with predictions, if there are any."""
    gr.HTML(recall_table(outcomes) if outcomes else "", elem_id="recalls")
    try:
        curves = read_curves(model_dir / "tensorboard_log")
    except InputError:  # whose message says where the folder is
        gr.HTML(message(NO_CURVES, "note"), elem_id="curves")
    else:
        kept = load_checkpoint(model_dir / "model.ckpt").epoch
        gr.HTML(curves_svg(curves, kept), elem_id="curves")


def recall_table(outcomes: QueryOutcomes) -> str:
    """Recalls over all queries, and by their type where they have one."""
    rule, rows = outcomes.rule, []
    k_of_types = min(rule.ks)
    for task, of_task in outcomes.of_task.items():
        hits = of_task.hits_at_k(rule)
        by_type = recalls_by_type(hits, outcomes.kinds) if outcomes.types else {}
        overall = recalls(hits)
        for prefix in of_task.ranks:
            of_all = [overall[f"{prefix}r{k}"] for k in rule.ks]
            of_types = [by_type[f"{kind}-{prefix}r{k_of_types}"] for kind in outcomes.types]
            rows.append((f"{task}, IoU {prefix[:-1]}" if prefix else task, of_all + of_types))
    headings = [f"R@{k}" for k in rule.ks] + [f"R@{k_of_types}, type {kind}" for kind in outcomes.types]
    return render("recalls.html.j2", rows=rows, headings=headings, n=len(outcomes))


def curves_svg(curves: dict[str, Curve], kept_epoch: int) -> str:
    """Losses and recalls over epochs, as inline SVG, with a line at the epoch whose model was kept."""
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "axes.spines.top": False}):
        figure = Figure(figsize=CURVES_SIZE)
        draw_curves(figure.add_subfigure(figure.add_gridspec()[0]), curves, kept_epoch)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]
