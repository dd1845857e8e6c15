"""A report as one HTML file that needs nothing else: no server, no network, and no JavaScript to be read.

Its charts come with their numbers: which there are, and what is drawn in each, is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from method_tvr.report.charts import Panel, Series, bar_chart, charts_of, key_of, line_chart
from method_tvr.report.data import CURVE_IOU_THDS, ReportData
from method_tvr.report.gallery import galleries
from method_tvr.report.groups import Grouping, groupings, wilson_interval
from method_tvr.report.rendering import render as fill
from method_tvr.report.rendering import style_and_script
from standalone_eval.compare import compare_outcomes
from standalone_eval.outcomes import Outcomes
from standalone_eval.significance import N_RESAMPLES
from standalone_eval.submission import MOMENT_TASKS

TASK_TITLES = {
    "VCMR": "the moment in the whole corpus",
    "SVMR": "the moment in the given video",
    "VR": "the video",
}
CURVE_KS = (1, 5, 10, 100)
ALL_KS = range(1, 101)
GROUP_KS = (1, 10)
V = TypeVar("V")


def render(data: ReportData, made: datetime) -> str:
    """The page, made at a time."""
    others = data.files[1:]
    comparisons = compare_outcomes(data.first.outcomes, [file.outcomes for file in others], data.rule)
    return fill(
        "report.html.j2",
        data=data,
        made=made,
        n_videos=len({query.vid_name for query in data.queries}),
        task_titles=TASK_TITLES,
        recalls={task: outcomes.recalls(data.rule) for task, outcomes in data.first.outcomes.items()},
        compared=list(zip(others, comparisons, strict=True)),
        n_comparisons=sum(map(len, comparisons)),
        n_resamples=N_RESAMPLES,
        curves={"over-iou": list(panels_over_iou(data)), "over-k": list(panels_over_k(data))},
        groups=[(each, list(panels_of_groups(data, each))) for each in groupings(data.queries, data.durations)],
        galleries=galleries(data),
        **style_and_script(),
    )


def panels_over_iou(data: ReportData) -> Iterator[Panel]:
    """Recall over the IoU threshold: a chart for each task and, where files are compared, each k."""
    ks = {f"R@{k}": k for k in CURVE_KS}
    for task in (task for task in data.first.outcomes if task in MOMENT_TASKS):
        for title, lines in _charts(data, task, task, ks, lambda one, k: _recalls(one, [k], CURVE_IOU_THDS)):
            svg = line_chart(key_of("iou", title), CURVE_IOU_THDS, lines, "IoU threshold", CURVE_IOU_THDS)
            yield Panel(f"{title} over IoU", svg, "IoU", [f"{iou_thd:g}" for iou_thd in CURVE_IOU_THDS], lines)


def panels_over_k(data: ReportData) -> Iterator[Panel]:
    """Recall over k: a chart for each task and, where files are compared, each of the rule's IoU thresholds."""
    for task in data.first.outcomes:
        iou_thds: dict[str, float | None] = {"right video": None}
        if task in MOMENT_TASKS:
            iou_thds = {f"IoU {iou_thd:g}": iou_thd for iou_thd in data.rule.iou_thds}
        for title, lines in _charts(data, task, task, iou_thds, lambda one, thd: _recalls(one, ALL_KS, [thd])):
            svg = line_chart(key_of("k", title), ALL_KS, lines, "k", CURVE_KS)
            at_ticks = [Series(line.label, line.style, [line.values[k - 1] for k in CURVE_KS]) for line in lines]
            yield Panel(f"{title} over k", svg, "k", [str(k) for k in CURVE_KS], at_ticks)


def panels_of_groups(data: ReportData, grouping: Grouping) -> Iterator[Panel]:
    """Recalls in groups of queries: a chart for each task and, where files are compared, each k."""
    ks = {f"R@{k}": k for k in GROUP_KS}

    def shares(outcomes: Outcomes, k: int) -> Sequence[float]:
        return grouping.shares(outcomes.hits(k, data.main_iou_thd))

    def with_intervals(one: Series) -> Series:
        return replace(one, intervals=list(map(wilson_interval, one.values, grouping.counts)))

    for task in data.first.outcomes:
        name = f"{task}, IoU {data.main_iou_thd:g}" if task in MOMENT_TASKS else task
        for title, plain in _charts(data, task, name, ks, shares):
            bars = list(map(with_intervals, plain))
            svg = bar_chart(key_of(grouping.key, title), grouping.names, grouping.counts, bars)
            names = [f"{group} (n = {n:,})" for group, n in zip(grouping.names, grouping.counts, strict=True)]
            yield Panel(title, svg, "group", names, bars)


def _charts(
    data: ReportData, task: str, name: str, variants: Mapping[str, V], values: Callable[[Outcomes, V], Sequence[float]]
) -> Iterator[tuple[str, list[Series]]]:
    """`charts_of` the files that have a task."""
    outcomes = [file.outcomes.get(task) for file in data.files]
    return charts_of(name, outcomes, [file.letter for file in data.files], variants, values)


def _recalls(outcomes: Outcomes, ks: Sequence[int], iou_thds: Sequence[float | None]) -> Sequence[float]:
    """% at every k and IoU threshold."""
    return [100 * float(outcomes.hits(k, iou_thd).mean()) for k in ks for iou_thd in iou_thds]
