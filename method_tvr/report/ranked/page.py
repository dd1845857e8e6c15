"""The report on ranked moments: NDCG, over IoU and over k, in groups of queries, and what some queries were given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from method_tvr.report.charts import Panel, Series, bar_chart, charts_of, key_of, line_chart
from method_tvr.report.data import CURVE_IOU_THDS
from method_tvr.report.gallery import Gallery
from method_tvr.report.groups import Grouping, by_size, mean_intervals
from method_tvr.report.ranked.data import RankedData
from method_tvr.report.ranked.outcomes import GradedMoment, RankedOutcomes
from method_tvr.report.rendering import render as fill
from method_tvr.report.rendering import style_and_script
from standalone_eval.compare import compare_rankings
from standalone_eval.ranking.evaluation import about_queries
from standalone_eval.ranking.ndcg import IOU_THDS, KS, SHOWN_IOU, SHOWN_K
from standalone_eval.significance import N_RESAMPLES

CURVE_KS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 100)
TICKS = (1, 10, 20, 40, 100)
N_ENTRIES, N_SHOWN = 12, 5
Y_LABEL = "NDCG, %"


@dataclass(frozen=True)
class Entry:
    """One query: NDCG of each file by its letter, in %, its best moments, and the first predictions.

    `found` and `ideal` are the grades at the first `SHOWN_K` ranks, of the predictions and of the best possible order.
    """

    query_id: int
    sentence: str
    ndcg: dict[str, float]
    n_relevant: int
    graded: Sequence[GradedMoment]
    predicted: Sequence[GradedMoment]
    found: Sequence[float]
    ideal: Sequence[float]


def render_ranked(data: RankedData, made: datetime) -> str:
    """The page, made at a time."""
    first, others = data.first.outcomes, data.files[1:]
    comparisons = compare_rankings(first.results, [file.outcomes.results for file in others])
    return fill(
        "ranked_report.html.j2",
        data=data,
        made=made,
        n_moments=int(np.isfinite(first.answers.truth.video).sum()),
        iou_thds=IOU_THDS,
        ks=KS,
        main=(SHOWN_IOU, SHOWN_K),
        means={name: 100 * value for name, value in first.results.means().items()},
        notes=about_queries(first.results),
        compared=list(zip(others, comparisons, strict=True)),
        n_comparisons=sum(map(len, comparisons)),
        n_resamples=N_RESAMPLES,
        curves={"over-k": list(panels_over_k(data)), "over-iou": list(panels_over_iou(data))},
        groups=[(each, list(panels_of_groups(data, each))) for each in groupings(data)],
        galleries=galleries(data),
        **style_and_script(),
    )


def panels_over_k(data: RankedData) -> Iterator[Panel]:
    """NDCG over k: a chart, or one for each IoU threshold where files are compared."""
    thds = {f"IoU over {iou_thd:g}": [f"{iou_thd}-n{k}" for k in CURVE_KS] for iou_thd in IOU_THDS}
    for title, lines in _charts(data, thds, IOU_THDS, CURVE_KS):
        svg = line_chart(key_of("k", title), CURVE_KS, lines, "k", TICKS, Y_LABEL)
        yield Panel(f"{title} over k", svg, "k", [str(k) for k in CURVE_KS], lines)


def panels_over_iou(data: RankedData) -> Iterator[Panel]:
    """NDCG over the IoU threshold: a chart, or one for each k where files are compared."""
    ks = {f"NDCG@{k}": [f"{iou_thd}-n{k}" for iou_thd in CURVE_IOU_THDS] for k in KS}
    for title, lines in _charts(data, ks, CURVE_IOU_THDS, KS):
        svg = line_chart(key_of("iou", title), CURVE_IOU_THDS, lines, "IoU threshold", CURVE_IOU_THDS, Y_LABEL)
        yield Panel(f"{title} over IoU", svg, "IoU", [f"{iou_thd:g}" for iou_thd in CURVE_IOU_THDS], lines)


def _charts(
    data: RankedData, variants: Mapping[str, Sequence[str]], iou_thds: Sequence[float], ks: Sequence[int]
) -> Iterator[tuple[str, list[Series]]]:
    """`charts_of` the figures that each variant names, all of which each file has at once."""
    means, letters = [file.outcomes.ndcg(iou_thds, ks) for file in data.files], [file.letter for file in data.files]
    return charts_of("NDCG", means, letters, variants, lambda of_file, names: [of_file[name] for name in names])


def groupings(data: RankedData) -> list[Grouping]:
    """The queries that all files answer, by how many moments are relevant to them, and by words of their sentences."""
    outcomes = data.first.outcomes
    relevant = (outcomes.answers.truth.relevance[data.common] > 0).sum(axis=1).astype(np.float64)
    words = np.array([len(outcomes.sentences[number].split()) for number in data.common], dtype=np.float64)
    note = "Groups of about the same size; a number on the border belongs to the larger ones."
    return [
        by_size("relevant", "By relevant moments of the query", note, relevant),
        by_size("words", "By words of the query", note, words),
    ]


def panels_of_groups(data: RankedData, grouping: Grouping) -> Iterator[Panel]:
    """Mean NDCG in groups of queries, a bar for each file."""
    name = f"NDCG@{SHOWN_K}, IoU over {SHOWN_IOU:g}"
    query_ids = [data.first.outcomes.query_ids[number] for number in data.common]
    bars = []
    for number, file in enumerate(data.files):
        values = file.outcomes.of_queries(query_ids)
        bars.append(Series(file.letter, number, grouping.shares(values), mean_intervals(grouping, values)))
    svg = bar_chart(key_of(grouping.key, name), grouping.names, grouping.counts, bars, Y_LABEL)
    names = [f"{group} (n = {n:,})" for group, n in zip(grouping.names, grouping.counts, strict=True)]
    yield Panel(name, svg, "group", names, bars)


def by_outcome(outcomes: RankedOutcomes) -> dict[str, npt.NDArray[np.bool_]]:
    """{outcome: (Nq,) bool}: the better and the worse half of queries with something relevant found, and the rest."""
    main = outcomes.main
    nothing = main == 0
    middle = np.median(main[~nothing]) if not nothing.all() else 0.0
    better = ~nothing & (main > middle)
    return {"better": better, "worse": ~nothing & ~better, "nothing": nothing}


def galleries(data: RankedData) -> list[Gallery[Entry]]:
    """Some queries of each outcome in the first file."""
    texts = {
        "better": ("Better half", "of the queries for which something relevant was found"),
        "worse": ("Worse half", "of these"),
        "nothing": ("Nothing found", f"no relevant moment among the first {SHOWN_K}"),
    }
    outcomes, found = data.first.outcomes, []
    for key, mask in by_outcome(outcomes).items():
        numbers = np.flatnonzero(mask)
        shown = numbers[np.linspace(0, len(numbers) - 1, min(N_ENTRIES, len(numbers))).round().astype(int)]
        entries = [_entry(data, int(number)) for number in shown]
        found.append(Gallery(key, *texts[key], len(numbers), 100 * len(numbers) / len(mask), entries))
    return found


def _entry(data: RankedData, number: int) -> Entry:
    outcomes = data.first.outcomes
    query_id = outcomes.query_ids[number]
    ndcg = {file.letter: 100 * float(file.outcomes.of_queries([query_id])[0]) for file in data.files}
    graded, predicted = outcomes.graded(number), outcomes.predicted(number, SHOWN_K)
    ideal = [moment.grade for moment in graded[:SHOWN_K]]
    n_relevant = sum(moment.grade > 0 for moment in graded)
    found = [moment.grade for moment in predicted]
    sentence = outcomes.sentences[number]
    return Entry(query_id, sentence, ndcg, n_relevant, graded[:N_SHOWN], predicted[:N_SHOWN], found, ideal)
