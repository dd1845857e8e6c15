"""Pictures of a run: its loss and recall curves, read back from TensorBoard's files, and timelines of queries."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from method_tvr.report.examples import Example, Examples
from method_tvr.report.timeline import RIGHT, WRONG
from standalone_eval.ranking.ndcg import NDCG
from utils.basic_utils import InputError, whole_file
from utils.storage.folders import files_below

# Okabe and Ito's palette: told apart with any kind of colour vision.
BLUE, ORANGE, GREEN, SKY, PURPLE, INK = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#222222"
SPAN_COLOURS = {RIGHT: GREEN, WRONG: "#B0B0B0"}
BOUNDARY_STYLES = {"start": (BLUE, "-"), "end": (ORANGE, "--")}
LOSS_COLOURS = {
    "loss_overall": INK,
    "loss_neg_ctx": BLUE,
    "loss_neg_q": SKY,
    "loss_vcl": GREEN,
    "loss_fcl": PURPLE,
    "loss_st_ed": ORANGE,
}
TASK_COLOURS = {"VCMR": ORANGE, "SVMR": BLUE, "VR": GREEN, NDCG: ORANGE}
TYPE_NAMES = {"v": "video", "t": "subtitles", "vt": "video + subtitles"}
WIDTH, CURVES_HEIGHT, ROW_HEIGHT, NOTE_HEIGHT = 14.0, 4.0, 2.8, 1.3  # inches
DPI = 110
TOP_LEVEL_RUN = "."  # the folder itself; each curve of an `add_scalars` has a folder of its own
# by IoU threshold: lines that are told apart, the same in all pictures
IOU_STYLES: Mapping[float, Any] = {0.3: ":", 0.5: "-", 0.7: "--"}
OTHER_STYLES: Sequence[Any] = ("-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (8, 3)), (0, (1, 4)))


@dataclass(frozen=True)
class Curve:
    """One scalar over epochs; epoch -1 is before training."""

    epochs: list[int]
    values: list[float]


def read_curves(log_dir: Path) -> dict[str, Curve]:
    """All scalars that training logged into the `tensorboard_log` of a results folder.

    Returns:
        {tag: Curve}: `Train/loss_overall`, `Eval_Loss/loss_overall`, …; of curves that share a tag, as recalls do,
        the curve's name follows it: `Eval/VCMR-0.5/0.5-r1`, `Eval/VR/r1`, ….

    Raises:
        InputError: there is nothing to read.
    """
    events = EventMultiplexer()  # of files, not of the folder, in which it would wait for pipes and walk in circles
    for path in files_below(log_dir, _is_event_file, "give the results folder of a training run"):
        events.AddRun(str(path), str(path.relative_to(log_dir)))
    events.Reload()
    curves: dict[str, Curve] = {}
    for file, content in sorted(events.Runs().items()):  # of one folder in the order of time, which is in their names
        run = str(Path(file).parent)
        for tag in content["scalars"]:
            shared_by = "" if run == TOP_LEVEL_RUN else run.removeprefix(tag.replace("/", "_") + "_")
            scalars = events.Scalars(file, tag)
            curve = curves.setdefault(f"{tag}/{shared_by}" if shared_by else tag, Curve([], []))
            curve.epochs.extend([scalar.step for scalar in scalars])
            curve.values.extend([scalar.value for scalar in scalars])
    if not curves:
        raise InputError(f"{log_dir}: has no TensorBoard curves: give the results folder of a training run")
    return curves


def _is_event_file(name: str) -> bool:
    return "tfevents" in name


def draw_run(
    path: Path, title: str, curves: Mapping[str, Curve], best_epoch: int, examples: Examples, iou_thd: float
) -> None:
    """Write the picture of a run as PNG: curves above, timelines below.

    Args:
        path: the file, replaced whole.
        curves: from `read_curves`, with `best_epoch`, that of the model that was kept.
        examples: from `choose_examples`, with `iou_thd`, the IoU from which a moment is right in them.
    """
    timelines_height = NOTE_HEIGHT + ROW_HEIGHT * len(examples)
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(WIDTH, CURVES_HEIGHT + timelines_height))
        grid = figure.add_gridspec(2, 1, height_ratios=[CURVES_HEIGHT, timelines_height])
        above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
        above.suptitle(title, fontsize=14, weight="bold")
        draw_curves(above, curves, best_epoch)
        draw_timelines(below, examples, iou_thd)
        with whole_file(path) as part:
            figure.savefig(part, format="png", dpi=DPI)


def draw_curves(figure: SubFigure, curves: Mapping[str, Curve], best_epoch: int) -> None:
    """Losses and recalls at 1 and 10, or NDCG at 10 and 20, over epochs; at each IoU logged."""
    losses, left, right = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.055, right=0.985, top=0.83, bottom=0.26, wspace=0.2)
    for name, colour in LOSS_COLOURS.items():
        width = 2.2 if name == "loss_overall" else 1.4
        _draw_curve(losses, curves.get(f"Train/{name}"), colour, "-", name.removeprefix("loss_"), width)
        _draw_curve(losses, curves.get(f"Eval_Loss/{name}"), colour, ":", None, width)
    losses.set(title="Losses, weights applied (solid: train, dotted: val)", ylabel="loss (log scale)")
    losses.set_yscale("symlog", linthresh=1e-3)  # FrameCL may fall below 0
    ranked = any(tag.startswith(f"Eval/{NDCG}-") for tag in curves)
    for ax, k in ((left, 10), (right, 20)) if ranked else ((left, 1), (right, 10)):
        for task in (NDCG,) if ranked else ("VCMR", "SVMR"):
            for iou_thd, line in iou_styles(curves).items():
                curve = curves.get(f"Eval/{task}-{iou_thd}/{iou_thd}-{'n' if ranked else 'r'}{k}")
                _draw_curve(ax, curve, TASK_COLOURS[task], line, f"{task}, IoU {iou_thd}")
        _draw_curve(ax, curves.get(f"Eval/VR/r{k}"), TASK_COLOURS["VR"], "-", "VR")
        title, unit = (f"{NDCG}@{k}", NDCG) if ranked else (f"Recall at {k}", "% of queries")
        ax.set(title=f"{title} on val", ylabel=unit)
        ax.set_ylim(bottom=0)
    for ax in (losses, left, right):
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


def iou_styles(tags: Iterable[str]) -> dict[str, Any]:
    """{IoU threshold as curves' tags have it: how its lines are drawn}, from the lowest threshold on."""
    logged = {
        tag.split("/")[1].partition("-")[2]
        for tag in tags
        if tag.startswith(tuple(f"Eval/{task}-" for task in TASK_COLOURS))
    }
    others = itertools.cycle(OTHER_STYLES)
    return {iou_thd: IOU_STYLES.get(float(iou_thd)) or next(others) for iou_thd in sorted(logged, key=float)}


def _draw_curve(ax: Axes, curve: Curve | None, colour: str, line: str, label: str | None, width: float = 1.8) -> None:
    if curve is None or not any(curve.values):  # a loss whose weight is 0
        return
    epochs = [epoch + 1 for epoch in curve.epochs]
    ax.plot(epochs, curve.values, line, color=colour, label=label, linewidth=width, marker="o", markersize=2.5)


def draw_timelines(figure: SubFigure, examples: Examples, iou_thd: float) -> None:
    """For each query type two timelines: the first query that is right at rank 1, and the first that is not."""
    height = NOTE_HEIGHT + ROW_HEIGHT * len(examples)
    grid = figure.add_gridspec(
        len(examples), 2, left=0.055, right=0.985, top=1 - 0.95 / height, bottom=1.1 / height, wspace=0.12, hspace=0.6
    )
    known_first = [*(kind for kind in TYPE_NAMES if kind in examples), *(examples.keys() - TYPE_NAMES.keys())]
    for row, kind in enumerate(known_first):
        for column, (example, outcome) in enumerate(zip(examples[kind], (RIGHT, WRONG), strict=True)):
            if example is not None:
                curves = _draw_example(figure, grid[row, column], example)
                if row == 0 and column == 0:
                    _draw_legend(figure, curves, iou_thd)
                continue
            ax = figure.add_subplot(grid[row, column])
            ax.axis("off")
            ax.text(0.5, 0.5, f"no query of type {kind} is {outcome} at rank 1", ha="center", color=INK)
    note = (
        "Chosen by rule, not by eye: for each query type, the first query of val in file order whose best moment in "
        f"the whole corpus (VCMR, after NMS) is right at IoU {iou_thd} (left), and the first whose best moment is "
        "wrong (right). Shown is the query's own video, with the best moments in it (SVMR, after NMS)."
    )
    figure.text(0.055, 0.08 / height, textwrap.fill(note, 190), fontsize=9, color=INK, va="bottom")


def _draw_example(figure: SubFigure, cell: SubplotSpec, example: Example) -> Axes:
    """Draw a query's timeline, its moments below its curves; returns the latter's axes, which name what they show."""
    query, timeline = example.query, example.timeline
    inner = cell.subgridspec(2, 1, height_ratios=[3, 2], hspace=0.06)
    curves = figure.add_subplot(inner[0])
    bars = figure.add_subplot(inner[1], sharex=curves)

    for curve in timeline.curves:
        colour, line = BOUNDARY_STYLES[curve.name]
        curves.plot(curve.seconds, curve.p, line, color=colour, linewidth=1.6, label=f"P({curve.name})")
    for ax in (curves, bars):
        for number, moment in enumerate(timeline.annotated):
            once = "annotated moment" if ax is curves and number == 0 else None
            ax.axvspan(*moment, color=GREEN, alpha=0.18 / len(timeline.annotated) ** 0.5, linewidth=0, label=once)
    ranked = [lane for lane in timeline.lanes if lane.kind in SPAN_COLOURS]
    for rank, lane in enumerate(ranked, start=1):
        colour = SPAN_COLOURS[lane.kind]
        for st, ed in lane.spans:
            bars.barh(rank, ed - st, left=st, height=0.72, color=colour, edgecolor=INK, linewidth=0.5)

    kind = f" ({TYPE_NAMES.get(query.type, query.type)})" if query.type else ""
    curves.set_title(
        f"{textwrap.fill(f'“{query.desc}”{kind}', 88)}\n{example.outcome}", fontsize=9.5, loc="left", linespacing=1.3
    )
    curves.set_ylabel("probability")
    curves.set_ylim(bottom=0)
    curves.tick_params(labelbottom=False)
    curves.set_xlim(0, max(timeline.duration, *(curve.seconds[-1] for curve in timeline.curves)))
    bars.set(ylim=(len(ranked) + 0.6, 0.4), yticks=range(1, len(ranked) + 1), ylabel="rank")
    bars.tick_params(axis="y", labelsize=8)
    bars.set_xlabel(f"seconds of {query.vid_name}", fontsize=9)
    return curves


def _draw_legend(figure: SubFigure, curves: Axes, iou_thd: float) -> None:
    handles, labels = curves.get_legend_handles_labels()
    swatches = [Rectangle((0, 0), 1, 1, facecolor=c, edgecolor=INK, linewidth=0.5) for c in SPAN_COLOURS.values()]
    figure.legend(
        [*handles, *swatches],
        [*labels, f"predicted moment, right (IoU ≥ {iou_thd})", "predicted moment, wrong"],
        ncols=5,
        frameon=False,
        loc="upper center",
        fontsize=9.5,
    )
