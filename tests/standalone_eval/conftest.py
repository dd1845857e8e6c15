import json
from pathlib import Path
from typing import Any

import pytest

VIDEO2IDX = {"show_a": 7, "show_b": 8, "show_c": 9}


@pytest.fixture
def ground_truth() -> list[dict[str, Any]]:
    """Three queries of two types."""
    return [
        {"desc_id": 1, "desc": "one", "vid_name": "show_a", "duration": 60.0, "ts": [3.0, 9.0], "type": "v"},
        {"desc_id": 2, "desc": "two", "vid_name": "show_b", "duration": 60.0, "ts": [12.0, 15.0], "type": "t"},
        {"desc_id": 3, "desc": "three", "vid_name": "show_c", "duration": 60.0, "ts": [0.0, 30.0], "type": "v"},
    ]


@pytest.fixture
def submission(ground_truth) -> dict[str, Any]:
    """A submission without a defect: each query's first row is right, its second is not."""
    predictions: dict[str, Any] = {"video2idx": dict(VIDEO2IDX), "VCMR": [], "SVMR": [], "VR": []}
    for query in ground_truth:
        video_idx, (start, end) = VIDEO2IDX[query["vid_name"]], query["ts"]
        rows = {
            "VCMR": [[video_idx, start, end, 0.9], [video_idx, 40.5, 42.0, 0.8]],
            "SVMR": [[video_idx, start, end, 0.9], [video_idx, 40.5, 42.0, 0.8]],
            "VR": [[video_idx, 0, 0, 0.9]],
        }
        for task, task_rows in rows.items():
            predictions[task].append({"desc_id": query["desc_id"], "desc": query["desc"], "predictions": task_rows})
    return predictions


@pytest.fixture
def write(tmp_path):
    """Write an object as JSON, or a list of rows as jsonl where the name ends so, and return the path."""

    def write(data: Any, name: str) -> Path:
        text = "\n".join(map(json.dumps, data)) if name.endswith(".jsonl") else json.dumps(data)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
