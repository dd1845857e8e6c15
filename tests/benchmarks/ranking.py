"""When two rankings are the same: float32 may swap rows of nearly one score."""

from __future__ import annotations

import numpy as np

from tests.benchmarks.common import AnswersDiffer

SAME_SCORE, TIE = 1e-4, 1e-5  # relative


def check_same_ranking(
    what: str, found: np.ndarray, found_score: np.ndarray, expected: np.ndarray, expected_score: np.ndarray
) -> float:
    """Compare rankings of many queries.

    Scores must agree rank by rank. A row may stand at another rank, or beyond the last one, when the scores between
    differ by no more than a tie's rounding.

    Args:
        what: is ranked, for the message.
        found, expected: (Nq, K) int64 row identities, negative past a query's last row.
        found_score, expected_score: (Nq, K).

    Returns:
        Share of rows that stand at the same rank.

    Raises:
        AnswersDiffer: naming the first query and rank that differ.
    """
    if found.shape != expected.shape or ((found < 0) != (expected < 0)).any():
        raise AnswersDiffer(f"{what}: {found.shape} rows, expected {expected.shape}, or of other counts per query")
    exists = expected >= 0
    apart = exists & ~np.isclose(found_score, expected_score, rtol=SAME_SCORE, atol=0)
    moved = exists & (found != expected)
    for query in np.flatnonzero(moved.any(axis=1)):
        ranked = found[query].tolist()
        for rank in np.flatnonzero(moved[query]):
            row = expected[query, rank]
            other = ranked.index(row) if row in ranked else exists[query].sum() - 1  # fell just behind the last one
            scores = found_score[query]
            apart[query, rank] |= abs(scores[other] - scores[rank]) > TIE * abs(scores[rank])
    if apart.any():
        query, rank = np.argwhere(apart)[0]
        raise AnswersDiffer(
            f"{what}: query {query}, rank {rank}: row {found[query, rank]} of score {found_score[query, rank]}, "
            f"expected {expected[query, rank]} of {expected_score[query, rank]} ({apart.sum()} rows in all)"
        )
    return float(1 - moved.sum() / max(1, exists.sum()))
