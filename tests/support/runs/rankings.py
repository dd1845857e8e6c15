"""When two prediction files say the same."""

from collections.abc import Sequence

import numpy as np
import orjson

SAME_SCORE, TIE = 1e-4, 1e-5
Row = Sequence[float]


def assert_same_ranking(found: list[Row], expected: list[Row]) -> None:
    """Scores agree rank by rank; rows of nearly one score may swap, also across the cut at 100."""
    assert len(found) == len(expected)
    scores = np.array([row[3] for row in found])
    np.testing.assert_allclose(scores, [row[3] for row in expected], rtol=SAME_SCORE)
    rank_of = {tuple(row[:3]): rank for rank, row in enumerate(found)}
    assert len(rank_of) == len(found)
    for rank, row in enumerate(expected):
        other = rank_of.get(tuple(row[:3]))
        if other is None:  # then it fell just behind the last one
            assert len(found) == 100, (rank, row)
            other = len(found) - 1
        assert other == rank or abs(scores[other] - scores[rank]) <= TIE * scores[rank], (rank, row)


def assert_same_file(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    assert found["video2idx"] == expected["video2idx"]
    for task in set(expected) - {"video2idx"}:
        for one, other in zip(found[task], expected[task], strict=True):
            assert (one["desc_id"], one["desc"]) == (other["desc_id"], other["desc"])
            assert_same_ranking(one["predictions"], other["predictions"])


def load(path) -> dict:
    return orjson.loads(path.read_bytes())
