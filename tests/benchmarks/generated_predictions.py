"""A prediction file and its annotations of any number of queries, drawn and written some queries at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson

from method_tvr.dataset.annotations import Query, Video
from tests.benchmarks.bench_evaluation import draw_corpus, draw_rows, ground_truth_of

BLOCK = 4000  # queries that are drawn at a time


def write_large(
    folder: Path, n_queries: int, n_videos: int, tasks: Sequence[str], n_rows: int, seed: int
) -> tuple[Path, Path]:
    """Write predictions of these tasks, `n_rows` a query, and annotations with types; returns both paths."""
    predictions, truth = folder / "predictions.json", folder / "truth.jsonl"
    with open(truth, "wb") as out:
        for _, queries in _blocks(n_queries, n_videos, seed):
            rows = zip(ground_truth_of(queries), queries, strict=True)
            out.writelines(orjson.dumps(row | {"desc": query.desc, "duration": 90.0}) + b"\n" for row, query in rows)
    with open(predictions, "wb") as out:
        videos, _ = draw_corpus(n_videos, 0, np.random.default_rng(seed))
        out.write(b'{"video2idx":' + orjson.dumps({video.vid_name: video.idx for video in videos}))
        for task in tasks:
            out.write(b',"%s":[' % task.encode())
            separator = b""
            for number, (_, queries) in enumerate(_blocks(n_queries, n_videos, seed)):
                rows = draw_rows(task, videos, queries, n_rows, np.random.default_rng((seed, number)))
                for i, query in enumerate(queries):
                    line = {"desc_id": query.desc_id, "desc": query.desc, "predictions": rows.of_query(i)}
                    out.write(separator + orjson.dumps(line))
                    separator = b",\n"
            out.write(b"]")
        out.write(b"}")
    return predictions, truth


def _blocks(n_queries: int, n_videos: int, seed: int) -> Iterator[tuple[list[Video], list[Query]]]:
    """The queries, some at a time, the same ones whenever they are asked for."""
    for number, first in enumerate(range(0, n_queries, BLOCK)):
        rng = np.random.default_rng((seed, number))
        videos, queries = draw_corpus(n_videos, min(BLOCK, n_queries - first), rng)
        yield videos, [replace(query, desc_id=first + query.desc_id) for query in queries]
