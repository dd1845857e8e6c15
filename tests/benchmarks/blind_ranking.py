"""NDCG of blind lists on ranked moments: what chance alone gives. `python tests/benchmarks/blind_ranking.py`.

A list is `N_PREDICTIONS` different draws of a video of the corpus and of a span in it, each equally likely among those
that predictions are made of: 2 to 15 clips of 1.5 s. Printed are the mean over many lists, and the deviation of one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from method_tvr.dset_configs import DATASETS
from method_tvr.report.chance import allowed_spans
from standalone_eval.findings import Findings
from standalone_eval.ranking.ndcg import RankedTruth, ndcg_of_queries
from standalone_eval.ranking.truth import read_ranked_truth
from utils.basic_utils import read_json

N_PREDICTIONS = 100


def blind_rows(n_clips: np.ndarray, n_queries: int, clip_length: float, rng: np.random.Generator) -> np.ndarray:
    """(Nq, P, 3) [video, st, ed], drawn without repetition within a query."""
    dataset = DATASETS["tvr_ranking"]
    spans = {n: allowed_spans(n, dataset.min_pred_l, dataset.max_pred_l) * clip_length for n in set(n_clips.tolist())}
    searched = np.flatnonzero([len(spans[n]) > 0 for n in n_clips.tolist()])
    n_rows = min(N_PREDICTIONS, sum(len(spans[n]) for n in n_clips.tolist()))
    rows = np.empty((n_queries, n_rows, 3))
    for query in range(n_queries):
        drawn: dict[tuple[int, int], None] = {}
        while len(drawn) < n_rows:
            video = int(rng.choice(searched))
            drawn[video, int(rng.integers(len(spans[int(n_clips[video])])))] = None
        rows[query] = [(video, *spans[int(n_clips[video])][span]) for video, span in drawn]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, default=Path("data/mini_ranking/val.json"), help="graded moments")
    parser.add_argument("--corpus", type=Path, default=Path("data/mini_ranking/video_corpus.json"), help="durations")
    parser.add_argument("--lists", type=int, default=100, help="blind lists for each query")
    args = parser.parse_args(argv)
    durations, clip_length = read_json(args.corpus), float(DATASETS["tvr_ranking"].clip_length)
    numbers = {name: number for number, name in enumerate(durations)}
    findings = Findings()
    truth = read_ranked_truth(read_json(args.truth), numbers, findings)
    if truth is None:
        raise SystemExit("\n".join(findings.lines()))
    n_clips = np.minimum(np.ceil(np.array(list(durations.values())) / clip_length).astype(int), 128)
    print_means(truth, n_clips, clip_length, args.lists)


def print_means(truth: RankedTruth, n_clips: np.ndarray, clip_length: float, n_lists: int) -> None:
    """A line for each figure."""
    rng = np.random.default_rng(2018)
    found: dict[str, list[float]] = {}
    for _ in range(n_lists):
        rows = blind_rows(n_clips, len(truth.query_ids), clip_length, rng)
        for name, values in ndcg_of_queries(truth, rows).items():
            found.setdefault(name, []).append(float(values.mean()))
    for name, means in found.items():
        print(f"{name:8} {np.mean(means):.5f} ± {np.std(means):.5f}")


if __name__ == "__main__":
    main()
