"""Charts of a report, as SVG to be put into an HTML page, whose colours and fonts they take."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, TypeVar
from xml.etree import ElementTree as ET

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

SHARES = "% of queries"
WIDTH, HEIGHT = 4.4, 2.9  # inches: about as wide as a phone's screen, so that letters keep their size
LONGEST_NAME = 16  # of a group, below its bars
# Stand for variables of the page's style sheet, which has one value of each for light and one for dark.
N_STYLES = 8
SERIES_COLOURS = [f"#5e1e0{number}" for number in range(N_STYLES)]
NAMESPACE = "{http://www.w3.org/2000/svg}"
INK, GRID = "#10101f", "#20202f"
_VARIABLES = {INK: "currentColor", GRID: "var(--grid)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES_COLOURS)
}
# Lines and bars differ by more than colour.
DASHES = ["-", "--", "-.", ":", (0, (1, 1)), (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (8, 3))]
MARKERS = "os^DvPX*"
HATCHES = ["", "////", "\\\\\\\\", "xxxx", "----", "||||", "++++", "//"]  # lines alone: a pattern of dots takes 30 kB
RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # real text, which can be searched for and read aloud
    "svg.hashsalt": "report",  # equal input gives equal charts
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # for the sizes of things; the page's font is written
    "font.size": 9,
    "text.parse_math": False,  # a name with two dollars in it is no formula
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
}

Found = TypeVar("Found")
V = TypeVar("V")


@dataclass(frozen=True)
class Series:
    """What is drawn in one colour: heights in %.

    `style` numbers its colour, dashes, marker and hatching: what it stands for has the same in all charts. `intervals`
    are 95 % intervals (low, high) of the values, where these are drawn.
    """

    label: str
    style: int
    values: Sequence[float]
    intervals: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Panel:
    """A chart, as an `svg` element, and its numbers: those of `series` at each of `names`, which are of a kind."""

    title: str
    svg: str
    kind: str
    names: Sequence[str]
    series: Sequence[Series]


def charts_of(
    name: str,
    outcomes: Sequence[Found | None],
    letters: Sequence[str],
    variants: Mapping[str, V],
    values: Callable[[Found, V], Sequence[float]],
) -> Iterator[tuple[str, list[Series]]]:
    """Titles and series: of one file all variants in one chart, of several files a chart for each variant.

    `outcomes` are those of each file; None: it has none, and is in no chart.
    """
    if len(outcomes) == 1:
        (only,) = outcomes
        if only is not None:
            yield name, [Series(label, i, values(only, variant)) for i, (label, variant) in enumerate(variants.items())]
        return
    having_it = [(number, one) for number, one in enumerate(outcomes) if one is not None]
    for label, variant in variants.items():
        yield f"{name}, {label}", [Series(letters[number], number, values(one, variant)) for number, one in having_it]


def key_of(kind: str, title: str) -> str:
    """What names the parts of a chart."""
    return f"{kind}-" + re.sub(r"\W+", "-", title)


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the page's font draws the letters, not the one that measures them
        yield


@_style()
def line_chart(
    key: str, x: Sequence[float], series: Sequence[Series], x_label: str, ticks: Sequence[float], y_label: str = SHARES
) -> str:
    """Recalls, or what `y_label` says, over something.

    Args:
        key: begins the names of the chart's parts, which must differ from those of other charts of the page.
        x, series: where the values are, and lines with as many values each.
        ticks: x values that are named and marked. A logarithmic axis where they span more than a factor of ten.
    """
    axes = Figure(figsize=(WIDTH, HEIGHT), layout="constrained").add_subplot()
    marked = [number for number, value in enumerate(x) if value in ticks]
    for one in series:
        style = one.style % N_STYLES
        axes.plot(
            x,
            one.values,
            linestyle=DASHES[style],
            marker=MARKERS[style],
            markersize=4,
            markevery=marked,
            linewidth=1.6,
            color=SERIES_COLOURS[style],
            label=one.label,
        )
    if max(ticks) > 10 * min(ticks):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(x_label)
    axes.set_ylim(bottom=0)
    return _finished(axes, len(series), key, y_label)


@_style()
def bar_chart(
    key: str, names: Sequence[str], counts: Sequence[int], series: Sequence[Series], y_label: str = SHARES
) -> str:
    """Recalls in groups of queries with their intervals, a bar of each series side by side; else as `line_chart`."""
    axes = Figure(figsize=(WIDTH, HEIGHT), layout="constrained").add_subplot()
    width = 0.8 / len(series)
    for number, one in enumerate(series):
        style = one.style % N_STYLES
        places = [group + (number - (len(series) - 1) / 2) * width for group in range(len(names))]
        axes.bar(
            places,
            one.values,
            width * 0.92,
            facecolor=SERIES_COLOURS[style],
            edgecolor=INK,
            linewidth=0.5,
            hatch=HATCHES[style],
            label=one.label,
        )
        for place, value, (low, high) in zip(places, one.values, one.intervals, strict=True):
            axes.plot([place, place], [low, high], color=INK, linewidth=1)
            if len(series) * len(names) <= 12:  # more would not find room
                axes.text(place, high, f"{value:.1f}", ha="center", va="bottom", fontsize=7)
    labels = [
        f"{shorten(name, LONGEST_NAME, placeholder='…')}\nn = {n:,}" for name, n in zip(names, counts, strict=True)
    ]
    axes.set_xticks(range(len(names)), labels, fontsize=7, rotation=90 if len(names) > 6 else 0)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    return _finished(axes, len(series), key, y_label)


def _finished(axes: Axes, n_series: int, key: str, y_label: str) -> str:
    """The figure as an `svg` element without what only a file of its own needs; nothing in it refers to anything else.

    Parts that are referred to are named after `key`, and colours are the page's.
    """
    axes.set_ylabel(y_label)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.legend(
        frameon=False,
        ncols=min(n_series, 4),
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        fontsize=8.5,
        handlelength=2.2,
        columnspacing=1.0,
        handletextpad=0.5,
    )
    buffer = io.BytesIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    assert isinstance(axes.figure, Figure)
    axes.figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    root = ET.fromstring(buffer.getvalue())
    values = " ".join(value for element in root.iter() for value in element.attrib.values())
    referred = set(re.findall(r"#(\w+)", values))
    for element in root.iter():
        for style in element.findall(f"{NAMESPACE}style"):
            element.remove(style)  # would apply to the whole page
        element.tag = element.tag.removeprefix(NAMESPACE)
        element.attrib = {
            name.rpartition("}")[2]: _in_page(name, value, key)
            for name, value in element.attrib.items()
            if (name != "id" or value in referred) and not value.startswith("rotate(-0 ")
        }
    for name in ("width", "height", "version"):
        del root.attrib[name]
    root.attrib |= {"aria-hidden": "true", "focusable": "false"}  # the figure around it says in words what it shows
    return ET.tostring(root, encoding="unicode")


def _in_page(name: str, value: str, key: str) -> str:
    """An attribute's value as it is in the page."""
    if name == "id":
        return f"{key}-{value}"
    if name == "d":
        return " ".join(value.split())
    if name.endswith("href"):
        return f"#{key}-{value[1:]}"
    value = value.replace("url(#", f"url(#{key}-").replace("font-family: 'DejaVu Sans', sans-serif; ", "")
    for colour, variable in _VARIABLES.items():
        value = value.replace(colour, variable)
    return value
