"""Is the difference between two systems more than the luck of which queries were asked? Paired bootstrap over queries.

B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993: percentile intervals, ch. 13; tests, ch. 16.
T. Berg-Kirkpatrick, D. Burkett and D. Klein, An Empirical Investigation of Statistical Significance in NLP, EMNLP 2012:
the paired test, with the observed difference taken off the resampled ones to stand for the null hypothesis.
S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

N_RESAMPLES, SEED = 10_000, 2018
LEVEL = 0.95  # of intervals; and 1 - LEVEL is what p is compared with
_BLOCK_VALUES = 1 << 22  # counts that are in memory at a time


@dataclass(frozen=True)
class Difference:
    """A - B in percent points, with its `LEVEL` percentile interval.

    `p` is the probability, were A and B equally good, of a difference at least as far from 0; two-sided, never 0.
    """

    difference: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    a: npt.ArrayLike, b: npt.ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = SEED
) -> Difference:
    """Compare two systems that answered the same queries.

    Queries are drawn again with replacement, as many as there are, and each brings the results of both systems. A
    resample's difference depends only on how often each value of a - b was drawn; these numbers are multinomial, and
    are drawn themselves instead of queries: for hits, three numbers a resample.

    p counts the resamples whose difference is as far from the observed one as that is from 0 (Berg-Kirkpatrick et al.,
    both sides), the observed sample being counted as one of them. Where only a handful of queries differ, the
    bootstrap is too sure of itself.

    Args:
        a, b: (Nq,) results in the same order of queries: hits, or real numbers where 1 stands for 100 %.
        n_resamples: more of them give smoother intervals and smaller possible p.
        seed: equal input and seed give equal results.

    Raises:
        ValueError: the systems did not answer the same number of queries, at least one, or a result is not finite.
    """
    results = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if results[0].ndim != 1 or results[0].shape != results[1].shape or not results[0].size:
        raise ValueError(f"not one result of each system for each query: {results[0].shape} and {results[1].shape}")
    each = results[0] - results[1]
    if not np.isfinite(each).all():
        raise ValueError("a result is NaN or infinite")
    total = each.sum()
    if total < 0:  # drawn as B - A, so that both ways round have the same luck
        mirrored = paired_bootstrap(b, a, n_resamples, seed)
        return Difference(-mirrored.difference, -mirrored.high, -mirrored.low, mirrored.p)
    drawn = _resampled_totals(each, n_resamples, np.random.default_rng(seed))
    rounding = 1e-12 * np.abs(each).sum()  # sums of the same numbers in another order
    as_far = np.count_nonzero(np.abs(drawn - total) >= abs(total) - rounding)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    points = [float(value) * 100 / each.size for value in (total, low, high)]
    return Difference(points[0], points[1], points[2], (1 + as_far) / (1 + n_resamples))


def _resampled_totals(
    each: npt.NDArray[np.float64], n_resamples: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(n_resamples,): the sum of as many draws with replacement from `each` (Nq,) as it has entries."""
    values, counts = np.unique(each, return_counts=True)
    shares = counts / each.size
    block = max(1, _BLOCK_VALUES // values.size)
    totals = np.empty(n_resamples)
    for start in range(0, n_resamples, block):
        stop = min(start + block, n_resamples)
        totals[start:stop] = rng.multinomial(each.size, shares, size=stop - start) @ values
    return totals


def holm(p: Sequence[float]) -> list[float]:
    """p values of several comparisons, corrected for there being several, however they depend on each other."""
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p, dtype=np.float64)[order] * steps), 1.0)
    return [float(value) for value in corrected]


def is_significant(corrected_p: float) -> bool:
    """Whether a difference is more than luck at the level of the intervals."""
    return corrected_p < 1 - LEVEL
