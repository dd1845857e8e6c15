"""Pictures of a run: loss and recall curves, and timelines of queries."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping

import matplotlib

matplotlib.use("Agg")  # no display needed

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.gridspec import SubplotSpec

from method_tvr.report.curves import Curve
from method_tvr.report.timelines import Timeline
from utils.basic_utils import whole_file

# Okabe and Ito's palette: told apart with any kind of colour vision.
BLUE, ORANGE, GREEN, SKY, PURPLE, INK = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#222222"
WRONG = "#B0B0B0"
LOSS_COLOURS = {
    "loss_overall": INK,
    "loss_neg_ctx": BLUE,
    "loss_neg_q": SKY,
    "loss_vcl": GREEN,
    "loss_fcl": PURPLE,
    "loss_st_ed": ORANGE,
}
TASK_COLOURS = {"VCMR": ORANGE, "SVMR": BLUE, "VR": GREEN}
TYPE_NAMES = {"v": "video", "t": "subtitles", "vt": "video + subtitles"}
WIDTH, CURVES_HEIGHT, ROW_HEIGHT, NOTE_HEIGHT = 14.0, 4.0, 2.8, 1.3  # inches
DPI = 110

Examples = Mapping[str, tuple[Timeline | None, Timeline | None]]


def draw_run(
    path: str | os.PathLike[str], title: str, curves: Mapping[str, Curve], best_epoch: int, examples: Examples
) -> None:
    """Write the picture of a run as PNG: curves above, timelines below.

    Args:
        path: the file, replaced whole.
        title: headline.
        curves: from `read_curves`.
        best_epoch: epoch of the model that was kept.
        examples: from `example_timelines`.
    """
    timelines_height = NOTE_HEIGHT + ROW_HEIGHT * len(examples)
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(WIDTH, CURVES_HEIGHT + timelines_height))
        grid = figure.add_gridspec(2, 1, height_ratios=[CURVES_HEIGHT, timelines_height])
        above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
        above.suptitle(title, fontsize=14, weight="bold")
        draw_curves(above, curves, best_epoch)
        draw_timelines(below, examples)
        with whole_file(path) as part:
            figure.savefig(part, format="png", dpi=DPI)
        plt.close(figure)


def draw_curves(figure: SubFigure, curves: Mapping[str, Curve], best_epoch: int) -> None:
    """Losses (training and evaluation) and recalls at 1 and 10, over epochs."""
    losses, at_1, at_10 = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.055, right=0.985, top=0.83, bottom=0.26, wspace=0.2)
    for name, colour in LOSS_COLOURS.items():
        label = name.removeprefix("loss_")
        width = 2.2 if name == "loss_overall" else 1.4
        _draw_curve(losses, curves.get(f"Train/{name}"), colour, "-", label, width)
        _draw_curve(losses, curves.get(f"Eval_Loss/{name}"), colour, ":", None, width)
    losses.set(title="Losses, weights applied (solid: train, dotted: val)", ylabel="loss (log scale)")
    losses.set_yscale("symlog", linthresh=1e-3)  # FrameCL may fall below 0
    for ax, k in ((at_1, 1), (at_10, 10)):
        for task, colour in TASK_COLOURS.items():
            if task == "VR":
                _draw_curve(ax, curves.get(f"Eval/VR/r{k}"), colour, "-", "VR")
                continue
            for iou_thd, line in (("0.5", "-"), ("0.7", "--")):
                curve = curves.get(f"Eval/{task}-{iou_thd}/{iou_thd}-r{k}")
                _draw_curve(ax, curve, colour, line, f"{task}, IoU {iou_thd}")
        ax.set(title=f"Recall at {k} on val", ylabel="% of queries")
        ax.set_ylim(bottom=0)
    for ax in (losses, at_1, at_10):
        ax.axvline(best_epoch + 1, color=INK, linewidth=0.8, alpha=0.5, label="model kept")
        ax.set_xlabel("epochs trained")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.25)
        ax.legend(
            ncols=4 if ax is losses else 3,
            fontsize=9,
            frameon=False,
            columnspacing=1.2,
            handlelength=1.8,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.17),
        )


def _draw_curve(ax: Axes, curve: Curve | None, colour: str, line: str, label: str | None, width: float = 1.8) -> None:
    if curve is None or not any(curve.values):  # a loss whose weight is 0
        return
    epochs = [epoch + 1 for epoch in curve.epochs]
    ax.plot(epochs, curve.values, line, color=colour, label=label, linewidth=width, marker="o", markersize=2.5)


def draw_timelines(figure: SubFigure, examples: Examples) -> None:
    """For each query type two timelines: the first query that is right at rank 1, and the first that is not."""
    height = NOTE_HEIGHT + ROW_HEIGHT * len(examples)
    grid = figure.add_gridspec(
        len(examples), 2, left=0.055, right=0.985, top=1 - 0.95 / height, bottom=1.1 / height, wspace=0.12, hspace=0.6
    )
    known_first = [*(kind for kind in TYPE_NAMES if kind in examples), *(examples.keys() - TYPE_NAMES.keys())]
    for row, kind in enumerate(known_first):
        for column, (timeline, outcome) in enumerate(zip(examples[kind], ("right", "wrong"), strict=True)):
            if timeline is None:
                ax = figure.add_subplot(grid[row, column])
                ax.axis("off")
                ax.text(0.5, 0.5, f"no query of type {kind} is {outcome} at rank 1", ha="center", color=INK)
            else:
                _draw_timeline(figure, grid[row, column], timeline, with_legend=row == 0 and column == 0)
    note = (
        "Chosen by rule, not by eye: for each query type, the first query of val in file order whose best moment in "
        "the whole corpus (VCMR, after NMS) is right at IoU 0.5 (left), and the first whose best moment is wrong "
        "(right). Shown is the query's own video, with the best moments in it (SVMR, after NMS)."
    )
    figure.text(0.055, 0.08 / height, textwrap.fill(note, 190), fontsize=9, color=INK, va="bottom")


def _draw_timeline(figure: SubFigure, cell: SubplotSpec, timeline: Timeline, with_legend: bool) -> None:
    query = timeline.query
    inner = cell.subgridspec(2, 1, height_ratios=[3, 2], hspace=0.06)
    curves = figure.add_subplot(inner[0])
    bars = figure.add_subplot(inner[1], sharex=curves)

    for seconds, p, colour, line, label in (
        (timeline.starts, timeline.p_st, BLUE, "-", "P(start)"),
        (timeline.ends, timeline.p_ed, ORANGE, "--", "P(end)"),
    ):
        curves.plot(seconds, p, line, color=colour, linewidth=1.6, label=label)
    for ax in (curves, bars):
        for number, moment in enumerate(query.annotated):
            once = "annotated moment" if ax is curves and number == 0 else None
            ax.axvspan(*moment, color=GREEN, alpha=0.18 / len(query.annotated) ** 0.5, linewidth=0, label=once)
    n_moments = len(timeline.moments)
    for rank, ((_, st, ed, _), right) in enumerate(zip(timeline.moments, timeline.right, strict=True), start=1):
        bars.barh(rank, ed - st, left=st, height=0.72, color=GREEN if right else WRONG, edgecolor=INK, linewidth=0.5)

    kind = f" ({TYPE_NAMES.get(query.type, query.type)})" if query.type else ""
    curves.set_title(
        f"{textwrap.fill(f'“{query.desc}”{kind}', 88)}\n{timeline.verdict}", fontsize=9.5, loc="left", linespacing=1.3
    )
    curves.set_ylabel("probability")
    curves.set_ylim(bottom=0)
    curves.tick_params(labelbottom=False)
    curves.set_xlim(0, max(timeline.duration, timeline.ends[-1]))
    bars.set(ylim=(n_moments + 0.6, 0.4), yticks=range(1, n_moments + 1), ylabel="rank")
    bars.tick_params(axis="y", labelsize=8)
    bars.set_xlabel(f"seconds of {query.vid_name}", fontsize=9)
    if with_legend:
        handles, labels = curves.get_legend_handles_labels()
        swatches = [plt.Rectangle((0, 0), 1, 1, facecolor=c, edgecolor=INK, linewidth=0.5) for c in (GREEN, WRONG)]
        figure.legend(
            [*handles, *swatches],
            [*labels, "predicted moment, right (IoU ≥ 0.5)", "predicted moment, wrong"],
            ncols=5,
            frameon=False,
            loc="upper center",
            fontsize=9.5,
        )
