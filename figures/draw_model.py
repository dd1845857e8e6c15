"""Draws figures/model.png, the picture of the model in README.md: `python figures/draw_model.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

WIDTH, HEIGHT = 14.0, 5.75  # inches; one unit of the drawing is one inch
BOTTOM = 0.25  # where the picture begins
DPI = 130  # twice the width at which README.md is usually seen

# From the palettes of Okabe and Ito and of Tol: told apart with any kind of colour vision.
VIDEO, SUBTITLE, QUERY, TRAINING, SCORE, INK = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#555555", "#222222"

Point = tuple[float, float]


def tint(colour: str, share: float = 0.14) -> tuple[float, ...]:
    """`colour` mixed with white; `share` is how much of the colour is left."""
    return tuple(1 - share * (1 - part) for part in to_rgb(colour))


def words(ax: Axes, at: Point, text: str, size: float, colour: str = INK, bold: bool = False) -> None:
    """Centred text."""
    weight = "bold" if bold else "normal"
    ax.text(*at, text, fontsize=size, color=colour, weight=weight, ha="center", va="center", linespacing=1.1, zorder=4)


def box(
    ax: Axes,
    centre: Point,
    size: Point,
    text: str,
    colour: str,
    note: str = "",
    dashed: bool = False,
    pill: bool = False,
) -> None:
    """A rounded box with a title and, smaller and below it, a note."""
    (x, y), (width, height) = centre, size
    style = f"round,pad=0,rounding_size={min(width, height) / 2 if pill else 0.1}"
    patch = FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=style)
    patch.set(facecolor=tint(colour), edgecolor=colour, linewidth=1.6, linestyle="--" if dashed else "-", zorder=3)
    ax.add_patch(patch)
    if note:
        lines = note.count("\n") + 1
        words(ax, (x, y + 0.11 * lines), text, 13, bold=True)
        words(ax, (x, y - 0.08 - 0.04 * lines), note, 11.5)
    else:
        words(ax, centre, text, 12.5)


def group(ax: Axes, corner: Point, size: Point, title: str, colour: str, dashed: bool = False) -> None:
    """A large pale frame with its title inside, at the top."""
    (x, y), (width, height) = corner, size
    patch = FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.15")
    line = "--" if dashed else "-"
    patch.set(facecolor=tint(colour, 0.05), edgecolor=colour, linewidth=1.2, linestyle=line, zorder=1)
    ax.add_patch(patch)
    words(ax, (x + width / 2, y + height - 0.2), title, 12.5, colour, bold=True)


def wire(ax: Axes, points: Sequence[Point], colour: str, head: bool = True, dashed: bool = False) -> None:
    """A line through `points`, with an arrow head at its end."""
    style = (0, (3, 2)) if dashed else "-"
    ax.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.7, solid_joinstyle="round", zorder=2)
    if head:
        arrow = {
            "arrowstyle": "-|>",
            "color": colour,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 13,
            "linewidth": 0.1,
        }
        (x0, y0), (x1, y1) = points[-2:]
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        start = (x1 - (x1 - x0) / length * 0.1, y1 - (y1 - y0) / length * 0.1)
        ax.annotate("", xy=(x1, y1), xytext=start, arrowprops=arrow, zorder=2)


def dot(ax: Axes, at: Point, colour: str) -> None:
    """A junction of wires."""
    ax.plot(*at, "o", color=colour, markersize=5.5, zorder=4)


def draw_context_branch(ax: Axes, y: float, other_y: float, colour: str, title: str) -> None:
    """One modality from its features to h3; `other_y` is the row of the modality it attends to."""
    box(ax, (0.98, y), (1.76, 0.95), title, colour, "clip features,\nrelative time")
    parts = "project,\nposition", "encoder 1", "cross\nattention", "encoder 2", "encoder 3"
    for x, text in zip((2.66, 3.94, 5.53, 6.83, 8.4), parts, strict=True):
        box(ax, (x, y), (1.0, 0.7), text, colour)
    for start, end in [(1.86, 2.16), (3.16, 3.44), (4.44, 5.03), (6.03, 6.33), (7.33, 7.9)]:
        wire(ax, [(start, y), (end, y)], colour)
    slope = 0.2 if other_y < y else -0.2
    wire(ax, [(4.44, other_y + slope), (5.03, y - slope)], SUBTITLE if colour == VIDEO else VIDEO)
    wire(ax, [(8.9, y), (9.2, y)], colour, head=False)


def draw_context(ax: Axes) -> None:
    """Video and subtitles, their cross attention, and where h2 and h3 are taken."""
    top, low = 5.2, 3.8
    middle = (top + low) / 2
    draw_context_branch(ax, top, low, VIDEO, "Video")
    draw_context_branch(ax, low, top, SUBTITLE, "Subtitles")
    wire(ax, [(7.6, top), (7.6, 2.95)], TRAINING, dashed=True)
    wire(ax, [(9.2, top), (9.2, low)], SCORE, head=False)
    wire(ax, [(9.2, middle), (9.6, middle)], SCORE)
    dot(ax, (9.2, middle), SCORE)
    for at, colour, label in [((7.6, top), TRAINING, "$h_2$"), ((9.2, top), SCORE, "$h_3$")]:
        dot(ax, at, colour)
        dot(ax, (at[0], low), colour)
        words(ax, (at[0], at[1] + 0.22), label, 15, colour)


def draw_query(ax: Axes) -> None:
    """The query, from token features to one vector for each modality, and where those go."""
    y = 1.0
    box(ax, (0.98, y), (1.76, 0.95), "Query", QUERY, "token features")
    box(ax, (2.66, y), (1.0, 0.7), "project,\nposition", QUERY)
    box(ax, (3.94, y), (1.0, 0.7), "encoder\n× 2", QUERY)
    box(ax, (5.28, y), (1.1, 0.7), "modular\nattention", QUERY)
    for start, end in [(1.86, 2.16), (3.16, 3.44), (4.44, 4.73)]:
        wire(ax, [(start, y), (end, y)], QUERY)
    for offset, text, colour in [(0.3, "video query", VIDEO), (-0.3, "subtitle query", SUBTITLE)]:
        box(ax, (7.05, y + offset), (1.5, 0.44), text, colour, pill=True)
        wire(ax, [(5.83, y), (6.05, y), (6.05, y + offset), (6.3, y + offset)], QUERY)
        wire(ax, [(7.8, y + offset), (8.1, y + offset), (8.1, y)], QUERY, head=False)
    wire(ax, [(8.1, y), (8.1, 1.7)], QUERY)
    wire(ax, [(8.1, y), (10.0, y), (10.0, 2.95)], QUERY)
    dot(ax, (8.1, y), QUERY)


def draw_heads(ax: Axes) -> None:
    """What is computed from h2, h3 and the queries: contrastive losses, scores, their losses and the moment score."""
    group(ax, (5.65, 1.7), (3.65, 1.25), "contrastive learning", TRAINING, dashed=True)
    box(ax, (6.55, 2.16), (1.62, 0.68), "VideoCL", TRAINING, "query – video", dashed=True)
    box(ax, (8.4, 2.16), (1.62, 0.68), "FrameCL", TRAINING, "query – clips", dashed=True)
    group(ax, (9.6, 2.95), (2.55, 2.95), "scores", SCORE)
    box(ax, (10.87, 4.93), (2.25, 1.05), "video score", SCORE, "cosine, max over clips,\nmean of modalities")
    box(ax, (10.87, 3.62), (2.25, 1.05), "start and end", SCORE, "dot product per clip,\nmean, convolution")
    for y, text in [(4.93, "ranking loss"), (3.62, "span loss")]:
        box(ax, (13.18, y), (1.4, 0.5), text, TRAINING, dashed=True, pill=True)
        wire(ax, [(12.0, y), (12.48, y)], TRAINING, dashed=True)
    formula = r"$P_{start} \cdot P_{end} \cdot \exp(\alpha \cdot$video score$)$"
    box(ax, (12.15, 1.5), (3.4, 1.0), "moment score", SCORE, formula)
    wire(ax, [(11.5, 2.95), (11.5, 2.0)], SCORE)
    words(ax, (12.87, 0.5), "dashed: in training only", 12, TRAINING)


def draw(path: Path) -> None:
    """Draw the model and write it to `path` as PNG."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(BOTTOM, BOTTOM + HEIGHT))
    ax.axis("off")
    draw_context(ax)
    draw_query(ax)
    draw_heads(ax)
    figure.savefig(path, metadata={"Software": None}, pil_kwargs={"optimize": True})


def main() -> None:
    """Read the one option and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("model.png"), help="the PNG to write")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
