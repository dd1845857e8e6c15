"""Writing, reading, NMS and evaluation of a full prediction file; and query by query in plain Python.

python tests/benchmarks/bench_evaluation.py [--queries 10895]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.dataset.annotations import Query, Video
from method_tvr.search.predictions import MAX_PREDICTIONS, RankedRows, write_predictions
from standalone_eval.eval import eval_retrieval
from tests.benchmarks import plain_evaluation
from tests.benchmarks.common import AnswersDiffer, Report, Stopwatch, benchmark_parser, start
from utils.basic_utils import command_line, read_json

TASKS = ("VCMR", "SVMR", "VR")
CLIP_LENGTH, MAX_CLIPS = 1.5, 60
TYPES, TYPE_SHARES = ("v", "t", "vt"), (0.74, 0.09, 0.17)


def draw_corpus(n_videos: int, n_queries: int, rng: np.random.Generator) -> tuple[list[Video], list[Query]]:
    """Videos, and queries with a moment of one of them."""
    videos = [Video(f"video_{i:06d}", MAX_CLIPS * CLIP_LENGTH, 1000 + i) for i in range(n_videos)]
    st = rng.integers(0, MAX_CLIPS - 6, n_queries) * 1.0
    ed = st + rng.integers(2, 20, n_queries)
    queries = [
        Query(
            desc_id=i,
            desc=f"Somebody does something for the {i}th time.",
            line=i + 1,
            vid_name=videos[int(rng.integers(n_videos))].vid_name,
            ts=(float(st[i]), float(ed[i])),
            type=str(rng.choice(TYPES, p=TYPE_SHARES)),
        )
        for i in range(n_queries)
    ]
    return videos, queries


def draw_rows(
    task: str, videos: Sequence[Video], queries: Sequence[Query], n_rows: int, rng: np.random.Generator
) -> RankedRows:
    """Predictions of one task: in VCMR a tenth of the rows lie in the right video, in SVMR all."""
    shape = (len(queries), n_rows)
    idx_of = {video.vid_name: video.idx for video in videos}
    own = np.array([idx_of[query.vid_name] for query in queries if query.vid_name])
    elsewhere = 1000 + rng.integers(len(videos), size=shape)
    is_own = rng.random(shape) < {"VCMR": 0.1, "SVMR": 1.1, "VR": 0.01}[task]
    video_idx = np.where(is_own, own[:, None], elsewhere)
    st = rng.integers(0, MAX_CLIPS - 15, shape) * CLIP_LENGTH
    ed = st + rng.integers(2, 16, shape) * CLIP_LENGTH
    if task == "VR":
        st = ed = np.zeros(shape)
    score = -np.sort(-rng.random(shape, dtype=np.float32), axis=1)
    return RankedRows(video_idx, st, ed, score, np.full(len(queries), n_rows))


def as_submission(
    videos: Sequence[Video], queries: Sequence[Query], rows_by_task: dict[str, RankedRows]
) -> dict[str, Any]:
    """What a prediction file of these queries holds."""
    lists: dict[str, Any] = {"video2idx": {video.vid_name: video.idx for video in videos}}
    for task, rows in rows_by_task.items():
        lists[task] = [
            {"desc_id": query.desc_id, "desc": query.desc, "predictions": [list(row) for row in rows.of_query(i)]}
            for i, query in enumerate(queries)
        ]
    return lists


def ground_truth_of(queries: Sequence[Query]) -> list[dict[str, Any]]:
    """The lines of their annotation file."""
    return [{"desc_id": q.desc_id, "vid_name": q.vid_name, "ts": list(q.ts or ()), "type": q.type} for q in queries]


def check_equal(what: str, found: Any, expected: Any) -> None:
    """Raise `AnswersDiffer` unless both are the same."""
    if found != expected:
        raise AnswersDiffer(f"{what} are not those of the plain way")


def measure_plain(
    report: Report,
    stopwatch: Stopwatch,
    videos: Sequence[Video],
    queries: Sequence[Query],
    rows_by_task: dict[str, RankedRows],
    nms_thd: float,
    folder: Path,
) -> None:
    """The plain ways on these (few) queries, each compared with ours."""
    n = len(queries)
    submission, ground_truth = as_submission(videos, queries, rows_by_task), ground_truth_of(queries)
    plain_path, path = folder / "plain.json", folder / "ours.json"

    def time(work: str, function: Any) -> Any:
        timing, result = stopwatch.time(function, repeats=1, warm_up=False)
        report.add(f"{work}, plain, {n:,} queries", timing, n, "queries", note="equal")
        return result

    time("write", lambda: plain_evaluation.write(plain_path, submission))
    write_predictions(path, videos, queries, rows_by_task)
    check_equal("written files", read_json(path), plain_evaluation.read(plain_path))
    check_equal("read files", read_json(path), time("read", lambda: plain_evaluation.read(path)))

    kept = time("NMS", lambda: {
        task: [plain_evaluation.suppress(entry["predictions"], nms_thd) for entry in submission[task]]
        for task in ("VCMR", "SVMR")
    })  # fmt: skip
    for task, lists in kept.items():
        ours = rows_by_task[task].after_nms(nms_thd)
        check_equal(f"{task} rows after NMS", [[list(row) for row in ours.of_query(i)] for i in range(n)], lists)

    metrics = time("evaluate", lambda: plain_evaluation.evaluate(submission, ground_truth))
    found = eval_retrieval(submission, ground_truth)
    check_equal("metrics", {task: found[task] for task in TASKS}, metrics)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=3)
    add = parser.add_argument_group("sizes").add_argument
    add("--queries", type=int, default=10_895, help="queries of the prediction file")
    add("--videos", type=int, default=2179, help="videos of the split")
    add("--rows", type=int, default=MAX_PREDICTIONS, help="predictions a query and task")
    add("--nms_thd", type=float, default=0.5, help="threshold of temporal NMS")
    add("--plain_queries", type=int, default=500, help="queries that are gone through in plain Python as well")
    args = parser.parse_args(argv)

    what = f"{args.queries:,} queries x {len(TASKS)} tasks x {args.rows} predictions"
    report, stopwatch = start("evaluation", what, args)
    rng = np.random.default_rng(args.seed)
    videos, queries = draw_corpus(args.videos, args.queries, rng)
    rows_by_task = {task: draw_rows(task, videos, queries, args.rows, rng) for task in TASKS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.json"
        few = slice(0, min(args.plain_queries, args.queries))
        few_rows = {
            task: RankedRows(rows.video_idx[few], rows.st[few], rows.ed[few], rows.score[few], rows.count[few])
            for task, rows in rows_by_task.items()
        }
        measure_plain(report, stopwatch, videos, queries[few], few_rows, args.nms_thd, Path(folder))

        timing, _ = stopwatch.time(lambda: write_predictions(path, videos, queries, rows_by_task), warm_up=False)
        megabytes = path.stat().st_size / 1e6
        report.add("write", timing, args.queries, "queries", note=f"{megabytes:.0f} MB")
        timing, _ = stopwatch.time(
            lambda: {task: rows_by_task[task].after_nms(args.nms_thd) for task in ("VCMR", "SVMR")}, warm_up=False
        )
        report.add("NMS", timing, args.queries, "queries", note="VCMR and SVMR")
        timing, _ = stopwatch.time(lambda: read_json(path), repeats=1, warm_up=False)
        report.add("read", timing, args.queries, "queries", note=f"{megabytes:.0f} MB")
        submission, ground_truth = read_json(path), ground_truth_of(queries)
        timing, _ = stopwatch.time(lambda: eval_retrieval(submission, ground_truth), warm_up=False)
        report.add("evaluate", timing, args.queries, "queries", note="from the loaded file")
    report.finish(args.json)


if __name__ == "__main__":
    main()
