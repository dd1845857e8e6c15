"""A small prediction file with graded moments, whose sentences and names mean harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.report_files import DURATION, HOSTILE_SENTENCE, HOSTILE_VIDEO, N_QUERIES, N_VIDEOS, write_json

N_MOMENTS, N_ROWS = 12, 30


def make_graded(seed: int = 0) -> list[dict[str, Any]]:
    """Queries with graded moments by query; to the last one nothing is relevant."""
    rng = np.random.default_rng(seed)
    names = video_names()
    rows = []
    for number in range(N_QUERIES):
        starts = rng.integers(0, 30, N_MOMENTS) * 1.5
        moments = [
            {
                "video_name": str(rng.choice(names)),
                "timestamp": [float(st), float(st + 1.5 * rng.integers(1, 9))],
                "relevance": 0 if number == N_QUERIES - 1 else int(rng.integers(0, 5)),
            }
            for st in starts
        ]
        query = HOSTILE_SENTENCE if number % 2 else f"Sentence {number}."
        rows.append({"query_id": 100 + number, "query": query, "relevant_moment": moments})
    return rows


def video_names() -> list[str]:
    """Of the corpus; the first means harm."""
    return [HOSTILE_VIDEO, *(f"show_{number}" for number in range(1, N_VIDEOS))]


def make_answers(graded: list[dict[str, Any]], seed: int, leave_out: int = 0) -> dict[str, Any]:
    """Predictions of which some are graded moments, some almost; of the first `leave_out` queries there are none."""
    rng = np.random.default_rng(seed)
    video2idx = {name: 900 + number for number, name in enumerate(video_names())}
    entries = []
    for query in graded[leave_out:]:
        rows = []
        for rank in range(N_ROWS):
            moment = query["relevant_moment"][int(rng.integers(N_MOMENTS))]
            st, ed = (float(np.clip(t + rng.choice([0, 0, 1.5, 9]), 0, DURATION)) for t in moment["timestamp"])
            rows.append([video2idx[moment["video_name"]], *sorted((st, ed)), 1000 / (rank + 1)])
        entries.append({"desc_id": query["query_id"], "desc": query["query"], "predictions": rows})
    return {"video2idx": video2idx, "VCMR": entries}


def write_ranked_files(folder: Path) -> tuple[Path, Path, Path]:
    """Two prediction files, of which the second leaves out two queries, and their graded moments."""
    graded = make_graded()
    return (
        write_json(folder / "predictions.json", make_answers(graded, 1)),
        write_json(folder / "other.json", make_answers(graded, 2, leave_out=2)),
        write_json(folder / "val.json", graded),
    )
