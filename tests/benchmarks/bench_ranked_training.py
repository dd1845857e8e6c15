"""Training on pairs at TVR-Ranking's size: what loading them takes, and an epoch, from some of its steps.

    python tests/benchmarks/bench_ranked_training.py --corpus FOLDER [--steps 50] [--way "--trim_padding"]

What is drawn is written into FOLDER first, unless it is there: 69,317 queries with 20 moments each, 1.39 million pairs
in train_top20.json's form, and features in TVR-Ranking's widths (5 GB, and as much again once training has packed
them).
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.config import parse_train_options
from method_tvr.train import Trainer
from tests.benchmarks.common import benchmark_parser, measure_unit
from tests.benchmarks.generated_tvr import CLIP_LENGTH, DURATIONS, N_VIDEOS, PERCENTILES, TEXT_SIZE, TOKENS, write_drawn
from tests.benchmarks.peak_memory import PeakMemory
from tests.benchmarks.staged_inference import as_argv
from utils.basic_utils import command_line, progress, write_json
from utils.model_utils import choose_device

N_QUERIES, MOMENTS = 69_317, 20
VIDEO_SIZE = 1024  # I3D alone
FILES = {
    "train_path": "train_top20.json",
    "video_duration_idx_path": "video_corpus.json",
    "vid_feat_path": "i3d.h5",
    "sub_bert_path": "sub.h5",
    "desc_bert_path": "query_bert.h5",
}
CAPTION = "Nora opens the drawer in the kitchen and hands the letter to her brother."  # its length counts, in the file


def write_corpus(folder: Path, n_queries: int, n_videos: int, rng: np.random.Generator) -> None:
    """Pairs, durations and features of a corpus; the pairs last, so that a corpus with them is whole."""
    durations = np.interp(rng.uniform(0, 100, n_videos), PERCENTILES, DURATIONS).round(2).tolist()
    videos = {f"show_s01e01_seg02_clip_{i:05d}": duration for i, duration in enumerate(durations)}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(videos, folder / FILES["video_duration_idx_path"])
    n_clips = {name: math.ceil(duration / CLIP_LENGTH) for name, duration in videos.items()}
    n_tokens = {str(i): int(n) for i, n in enumerate(rng.integers(*TOKENS, n_queries))}
    write_drawn(folder / FILES["vid_feat_path"], n_clips, VIDEO_SIZE, rng)
    write_drawn(folder / FILES["sub_bert_path"], n_clips, TEXT_SIZE, rng)
    write_drawn(folder / FILES["desc_bert_path"], n_tokens, TEXT_SIZE, rng)
    names = list(videos)
    entries = [
        {"query_id": i, "query": CAPTION, "relevant_moment": [_pair(i, j, names, videos, rng) for j in range(MOMENTS)]}
        for i in progress(range(n_queries), "pairs")
    ]
    write_json(entries, folder / FILES["train_path"])


def _pair(i: int, j: int, names: Sequence[str], videos: dict[str, float], rng: np.random.Generator) -> dict[str, Any]:
    name = names[int(rng.integers(len(names)))]
    duration = videos[name]
    length = min(duration, 1.5 + rng.exponential(7.5))
    start = rng.uniform(0, duration - length)
    return {
        "pair_id": i * MOMENTS + j,
        "video_name": name,
        "timestamp": [round(start, 2), min(round(start + length, 2), duration)],
        "duration": duration,
        "caption": CAPTION,
        "similarity": round(rng.uniform(0.3, 1), 6),
    }


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("what").add_argument
    add("--corpus", required=True, type=Path, help="folder of what is drawn")
    add("--queries", type=int, default=N_QUERIES, help="queries that are drawn, with 20 moments each")
    add("--videos", type=int, default=sum(N_VIDEOS.values()), help="videos that are drawn")
    add("--steps", type=int, default=50, help="steps that are timed, of a batch each")
    add("--bsz", type=int, default=512, help="pairs in a batch")
    add("--way", default="--cache_dtype float16", help="options of training, in one word")
    args = parser.parse_args(argv)
    if not (args.corpus / FILES["train_path"]).is_file():
        write_corpus(args.corpus, args.queries, args.videos, np.random.default_rng(args.seed))
    with tempfile.TemporaryDirectory() as results:
        measure(args, results)


def measure(args: argparse.Namespace, results: str) -> None:
    """Load the corpus, train for some steps, and print what it took."""
    fixed = {"dset_name": "tvr_ranking", "exp_id": "ranked", "ctx_mode": "video_sub", "save_every": 0}
    paths = {option: args.corpus / name for option, name in FILES.items()}
    argv = as_argv({**fixed, **paths, "bsz": args.bsz, "device": args.device})
    opt = parse_train_options([*argv, *args.way.split()])
    opt.eval_path, opt.results_dir = None, str(Path(results) / "run")
    device = choose_device(opt.device, opt.tf32)
    unit, loading, training = measure_unit(device), PeakMemory(), PeakMemory()
    began = time.perf_counter()
    with loading.watched():
        trainer = Trainer(opt, device=device)
    print(
        f"loading {len(trainer.train_set.queries):,} pairs: {time.perf_counter() - began:.1f} s, {loading}", flush=True
    )
    whole, steps = trainer.steps_per_epoch, min(args.steps, trainer.steps_per_epoch)
    trainer._save = lambda: None  # type: ignore[method-assign]
    every = max(1, len(trainer.train_set.queries) // (steps * args.bsz))  # pairs of all of the file
    trainer.train_set.queries = trainer.train_set.queries[::every][: steps * args.bsz]
    began = time.perf_counter()
    with training.watched():
        trainer._train_epoch()
    seconds = (time.perf_counter() - began) / steps
    trainer.close()
    unit = (unit + measure_unit(device)) / 2
    print(f"{steps} steps of {args.bsz}: {seconds:.2f} s, {seconds / unit:.0f} units each; {training}")
    print(f"an epoch of {whole:,} steps: {seconds * whole / 3600:.2f} hours; a unit is {unit:.3f} s")


if __name__ == "__main__":
    main()
