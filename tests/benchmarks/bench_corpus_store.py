"""Answering queries (VCMR, SVMR and VR) from encoded corpora on disk of growing size: time per query, and memory.

python tests/benchmarks/bench_corpus_store.py [1000 10000 100000 …] [--folder DIR]

The corpora are drawn and written part by part, searched, and removed: 100,000 videos take 8.5 GB.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from method_tvr.ask.encode_corpus import STORED_DTYPES
from method_tvr.dataset.annotations import Video
from method_tvr.model_components import conv_predictors
from method_tvr.search.corpus_store import CorpusRecipe, CorpusStore
from method_tvr.search.corpus_writer import adding_to
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.search.stored_corpus import StoredCorpus
from tests.benchmarks.bench_retrieval import KERNEL, MODALITIES, Answers, answer_all, encoded_queries, identified
from tests.benchmarks.common import Report, Stopwatch, benchmark_parser, made_folder, start
from tests.benchmarks.floors import retrieval_macs
from tests.benchmarks.peak_memory import PeakMemory
from tests.benchmarks.ranking import check_same_ranking
from tests.benchmarks.synthetic import EncodedData, clip_counts
from utils.basic_utils import command_line, progress

SIZES = (1000, 10_000, 100_000)
CLIP_LENGTH = 1.5  # seconds
DRAWN_AT_A_TIME = 256  # videos


def vid_name(number: int) -> str:
    """What a video is called."""
    return f"video_{number:07d}"


def write_corpus(folder: Path, n_videos: int, args: argparse.Namespace) -> EncodedData:
    """Draw encoded videos into a corpus on disk; returns queries that resemble a clip of their own video."""
    rng, generator = np.random.default_rng(args.seed), torch.Generator().manual_seed(args.seed)
    shape = (len(MODALITIES), args.hidden_size)
    n_clips = clip_counts(n_videos, args.max_ctx_l, rng)
    own = rng.integers(n_videos, size=args.queries)
    clip = (rng.random(args.queries) * n_clips[own]).astype(np.int64)
    query = 2.0 * torch.randn((args.queries, *shape), generator=generator)
    asked: dict[int, list[int]] = defaultdict(list)
    for number, video in enumerate(own.tolist()):
        asked[video].append(number)

    dtype = STORED_DTYPES[args.retrieval_dtype]
    recipe = CorpusRecipe(
        "0" * 64, MODALITIES, args.hidden_size, dtype, "video_sub_tef", CLIP_LENGTH, args.max_ctx_l, False, True, False
    )
    with adding_to(folder, recipe) as writer:
        for first in progress(range(0, n_videos, DRAWN_AT_A_TIME), f"drawing {n_videos:,} videos"):
            some = range(first, min(first + DRAWN_AT_A_TIME, n_videos))
            n_rows = np.minimum(n_clips[some.start : some.stop] + KERNEL // 2, args.max_ctx_l).tolist()
            drawn = torch.randn((sum(n_rows), *shape), generator=generator).split(n_rows)
            for number, rows in zip(some, drawn, strict=True):
                for i in asked[number]:
                    query[i] += rows[clip[i]]
                writer.add(
                    Video(vid_name(number), CLIP_LENGTH * int(n_clips[number]), number), int(n_clips[number]), rows
                )
    kernels = torch.rand((2, KERNEL), generator=generator)
    return EncodedData([], n_clips, own, query, query * (8.0 / args.hidden_size), kernels[0], kernels[1])


def check_answers(found: Sequence[Answers], expected: Sequence[Answers], longest: int) -> float:
    """Compare answers block by block; returns the share of rows at the very same rank.

    Raises:
        AnswersDiffer: an answer is another one.
    """
    shares = []
    for (vcmr, svmr, vr), (other_vcmr, other_svmr, other_vr) in zip(found, expected, strict=True):
        shares.append(check_same_ranking("VR", vr.entry, vr.score, other_vr.entry, other_vr.score))
        for task, ours, other in (("VCMR", vcmr, other_vcmr), ("SVMR", svmr, other_svmr)):
            rows = [identified(longest, moments.entry, moments.st, moments.ed) for moments in (ours, other)]
            shares.append(check_same_ranking(task, rows[0], ours.score, rows[1], other.score))
    return float(np.mean(shares))


def measure_size(n_videos: int, args: argparse.Namespace, report: Report, stopwatch: Stopwatch) -> None:
    """The lines of one corpus size."""
    device = stopwatch.device
    settings = SearchSettings(query_block=args.retrieval_bsz)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        writing, memory = PeakMemory(), PeakMemory()
        with writing.watched():
            data = write_corpus(Path(folder), n_videos, args)
        on_disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e9
        queries, own = encoded_queries(data, device), torch.from_numpy(data.own).to(device)
        kernels = data.st_kernel.to(device), data.ed_kernel.to(device)
        floor = retrieval_macs(args.hidden_size, len(MODALITIES), data.n_clips, settings.max_vcmr_video)

        def answers_from_disk() -> list[Answers]:
            with memory.watched():
                return answer_all(Searcher(corpus, conv_predictors(*kernels), settings), queries, own)

        corpus = StoredCorpus(CorpusStore(folder), list(map(vid_name, range(n_videos))), device)
        timing, found = stopwatch.time(answers_from_disk, repeats=1, warm_up=False)
        note = f"{int(data.n_clips.sum()):,} clips, {on_disk:.2f} GB, written with {writing}"
        report.add(f"{n_videos:,} videos, first time", timing.per(args.queries), 1, "queries", floor, note)
        timing, found = stopwatch.time(answers_from_disk, warm_up=False)
        note = str(memory)
        if n_videos <= args.max_compared_videos:
            rows = [corpus.rows_of(entry).clone() for entry in range(n_videos)]
            in_memory = Searcher(EncodedCorpus(rows, data.n_clips.tolist()), conv_predictors(*kernels), settings)
            share = check_answers(found, answer_all(in_memory, queries, own), args.max_ctx_l)
            note += f"; answers equal, {100 * share:.2f}% of rows at the same rank"
        report.add(f"{n_videos:,} videos", timing.per(args.queries), 1, "queries", floor, note)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("sizes").add_argument
    add("n_videos", type=int, nargs="*", default=list(SIZES), help="corpus sizes")
    add("--folder", type=made_folder, help="where corpora are for a while (default: the system's folder for such)")
    add("--queries", type=int, default=256, help="queries answered")
    add("--retrieval_bsz", type=int, default=SearchSettings.query_block, help="queries answered at a time")
    add("--retrieval_dtype", choices=[*STORED_DTYPES], default="fp16", help="what rows are kept in")
    add("--hidden_size", type=int, default=384, help="D")
    add("--max_ctx_l", type=int, default=128, help="most clips of a video")
    add("--max_compared_videos", type=int, default=1000, help="largest corpus that is searched in memory as well")
    args = parser.parse_args(argv)

    report, stopwatch = start("corpus_store", "VCMR, SVMR and VR of one query, from an encoded corpus on disk", args)
    for n_videos in args.n_videos:
        measure_size(n_videos, args, report, stopwatch)
    report.finish(args.json)


if __name__ == "__main__":
    main()
