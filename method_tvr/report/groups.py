"""Queries in groups: by type, by the length of their moments, and by where in the video these lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from method_tvr.dataset.annotations import Query

N_BINS = 5
MAX_TYPES = 12  # shown one by one


@dataclass(frozen=True)
class Grouping:
    """Queries divided into groups, in the order in which these are shown; `key` is a short name for links.

    `group_of` (Nq,) int64 is the number of each query's group; -1: of none.
    """

    key: str
    title: str
    note: str
    names: Sequence[str]
    group_of: npt.NDArray[np.int64]

    @property
    def counts(self) -> list[int]:
        """Queries in each group, at least one."""
        return np.bincount(self.group_of[self.group_of >= 0], minlength=len(self.names)).tolist()

    def shares(self, hits: npt.NDArray[np.bool_] | npt.NDArray[np.float64]) -> list[float]:
        """Hits (Nq,) in each group, in % of its queries; or the mean in % of what each query has of 1."""
        grouped = self.group_of >= 0
        right = np.bincount(self.group_of[grouped], weights=hits[grouped], minlength=len(self.names))
        return (100 * right / np.array(self.counts)).tolist()


def groupings(queries: Sequence[Query], durations: Mapping[str, float]) -> list[Grouping]:
    """All groupings that make sense for queries with moments, and {vid_name: seconds} where these are known."""
    found = [by_type(queries), by_length(queries), by_position(queries, durations)]
    return [grouping for grouping in found if grouping is not None]


def by_type(queries: Sequence[Query]) -> Grouping | None:
    """Queries by their types, the most frequent first; None if they have none."""
    if any(query.type is None for query in queries):
        return None
    common = [name for name, _ in Counter(str(query.type) for query in queries).most_common()]
    names = common if len(common) <= MAX_TYPES else common[: MAX_TYPES - 1]
    place = {name: number for number, name in enumerate(names)}
    group_of = np.array([place.get(str(query.type), len(names)) for query in queries])
    if len(names) < len(common):
        names = [*names, f"{len(common) - len(names)} others"]
    return Grouping("type", "By query type", "As the annotations have them.", names, group_of)


def _moments(queries: Sequence[Query]) -> npt.NDArray[np.float64]:
    """(Nq, 2) seconds of each query's moment; of several the one that agrees most with the others."""
    return np.array([query.ts for query in queries], dtype=np.float64)


def by_length(queries: Sequence[Query]) -> Grouping:
    """Queries by the length of their moments, in groups of about the same size."""
    st, ed = _moments(queries).T
    lengths = ed - st
    note = "Groups of about the same size; a length on the border belongs to the longer ones."
    return by_size("length", "By length of the moment", note, lengths, " s")


def by_size(key: str, title: str, note: str, sizes: npt.NDArray[np.float64], unit: str = "") -> Grouping:
    """Queries by a number that each has, (Nq,), in groups of about the same size."""
    quantiles = np.quantile(sizes, np.arange(1, N_BINS) / N_BINS)
    edges = sorted({float(f"{edge:.2g}") for edge in quantiles})  # round numbers; equal ones are one
    names = [f"under {edges[0]:g}{unit}", *(f"{low:g} to {high:g}{unit}" for low, high in pairwise(edges))]
    names.append(f"{edges[-1]:g}{unit} and more")
    return _without_empty(key, title, note, names, np.digitize(sizes, edges))


def by_position(queries: Sequence[Query], durations: Mapping[str, float]) -> Grouping | None:
    """Queries by where in its video the middle of their moment lies; None if no duration is known."""
    seconds = np.array([durations.get(str(query.vid_name), np.nan) for query in queries])
    known = ~np.isnan(seconds)
    if not known.any():
        return None
    middle = _moments(queries).mean(axis=1)
    bins = np.full(len(queries), -1)
    bins[known] = np.clip(middle[known] / seconds[known] * N_BINS, 0, N_BINS - 1).astype(int)
    step = 100 // N_BINS
    names = [f"{start} to {start + step} %" for start in range(0, 100, step)]
    names[0], names[-1] = f"first {step} %", f"last {step} %"
    note = "Where in its video the middle of the moment lies."
    if not known.all():
        note += f" Without {np.count_nonzero(~known):,} queries whose video's duration is not known."
    return _without_empty("position", "By position of the moment", note, names, bins)


def _without_empty(key: str, title: str, note: str, names: list[str], group_of: npt.NDArray[np.int64]) -> Grouping:
    kept = [number for number in range(len(names)) if (group_of == number).any()]
    renumbered = np.full(len(names) + 1, -1)  # the last is what -1 finds
    renumbered[kept] = np.arange(len(kept))
    return Grouping(key, title, note, [names[number] for number in kept], renumbered[group_of])


def mean_intervals(grouping: Grouping, values: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    """95 % intervals of the means in % of what each query has of 1, (Nq,), in each group: 1.96 standard errors."""
    found = []
    for number, (mean, n) in enumerate(zip(grouping.shares(values), grouping.counts, strict=True)):
        error = 1.96 * 100 * float(values[grouping.group_of == number].std(ddof=min(1, n - 1))) / np.sqrt(n)
        found.append((max(mean - error, 0.0), min(mean + error, 100.0)))
    return found


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share in %, of n queries (E. B. Wilson, JASA 22, 1927)."""
    z, p = 1.96, share / 100
    centre = p + z * z / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return 100 * max(float(low), 0.0), 100 * min(float(high), 1.0)
