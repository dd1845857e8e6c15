"""Answering queries (VCMR, SVMR and VR) over corpora of growing size, time per query; and a dense search of small ones.

    python tests/benchmarks/bench_retrieval.py [500 2179 8000 …] [--max_memory_gb 8]
    python tests/benchmarks/bench_retrieval.py 21793 --one_query --device 0

With `--one_query` it measures how long one user waits instead: one query alone, over random rows kept in float16.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from method_tvr.model_components import conv_predictors
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import EncodedQueries, Moments, RankedVideos, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.trained.trained_model import RETRIEVAL_DTYPES
from tests.benchmarks.common import Report, Stopwatch, Timing, benchmark_parser, peak_memory_gb, start
from tests.benchmarks.dense_retrieval import DenseMoments, DenseSearch
from tests.benchmarks.floors import retrieval_macs
from tests.benchmarks.ranking import check_same_ranking
from tests.benchmarks.synthetic import EncodedData, clip_counts, encoded_data
from utils.basic_utils import command_line

MODALITIES = ("video", "sub")
SIZES = (500, 1000, 2179, 5000, 10_000, 20_000, 50_000, 100_000)
KERNEL = 5
MEAN_ROWS = 55  # of a TVR video, with those past its end
ONE_QUERY_REPEATS = 30  # of which the median counts
DENSE_BLOCK = 10  # queries searched densely at a time: sorting the spans of each takes some 30 MB
Answers = tuple[Moments, Moments, RankedVideos]
DenseAnswers = tuple[DenseMoments, DenseMoments, tuple[torch.Tensor, torch.Tensor]]


def estimated_gb(n_videos: int, hidden_size: int) -> float:
    """Memory that a corpus takes while it is made: its rows as drawn, and packed."""
    return 2 * n_videos * MEAN_ROWS * len(MODALITIES) * hidden_size * 4 / 2**30


def encoded_queries(data: EncodedData, device: torch.device) -> EncodedQueries:
    """The queries as a corpus is searched with them."""
    by_modality = [
        dict(zip(MODALITIES, x.to(device).unbind(dim=1), strict=True)) for x in (data.query, data.span_query)
    ]
    return EncodedQueries.build(by_modality[0], by_modality[1], MODALITIES)


def answer_all(searcher: Searcher, queries: EncodedQueries, own: torch.Tensor) -> list[Answers]:
    """VCMR, SVMR and VR of all queries, block by block."""
    blocks = searcher.query_blocks(len(queries))
    return [
        (vcmr, searcher.search_moments(queries[block], own[block].unsqueeze(1)), vr)
        for block, (vcmr, vr) in zip(blocks, searcher.search(queries), strict=True)
    ]


def check_answers(found: Answers, expected: DenseAnswers, longest: int) -> float:
    """Compare the answers to one block of queries; returns the share of rows that stand at the very same rank.

    Raises:
        AnswersDiffer: an answer is another one.
    """
    vcmr, svmr, vr = found
    dense_vcmr, dense_svmr, (entries, weights) = expected
    shares = [check_same_ranking("VR", vr.entry, vr.score, entries.cpu().numpy(), weights.cpu().numpy())]
    for task, ours, dense in (("VCMR", vcmr, dense_vcmr), ("SVMR", svmr, dense_svmr)):
        identity, score = identified(longest, ours.entry, ours.st, ours.ed), ours.score
        arrays = [tensor.cpu().numpy() for tensor in (dense.entry, dense.st, dense.ed, dense.score)]
        beyond = ((0, 0), (0, arrays[3].shape[1] - score.shape[1]))  # rows that no possible span is left for
        identity, score = (np.pad(array, beyond, constant_values=-1) for array in (identity, score))
        shares.append(check_same_ranking(task, identity, score, identified(longest, *arrays[:3]), arrays[3]))
    return float(np.mean(shares))


def identified(longest: int, entry: np.ndarray, st: np.ndarray, ed: np.ndarray) -> np.ndarray:
    """One number per moment, -1 for none."""
    return np.where(entry < 0, -1, (entry * (longest + 1) + st) * (longest + 1) + ed)


def measure_dense(
    data: EncodedData, n_queries: int, args: argparse.Namespace, settings: SearchSettings, stopwatch: Stopwatch
) -> tuple[Timing, list[tuple[slice, DenseAnswers]]]:
    """The dense search of the first queries: its time per query, and its answers block by block."""
    device = stopwatch.device
    dense = DenseSearch(data, args.max_ctx_l, settings, device)
    query, span_query, own = (x.to(device) for x in (data.query, data.span_query, torch.from_numpy(data.own)))
    size = min(DENSE_BLOCK, settings.query_block)  # so that a block is one of the fast search's too
    blocks = [slice(i, min(i + size, n_queries)) for i in range(0, n_queries, size)]
    timing, answers = stopwatch.time(
        lambda: [dense.search(query[block], span_query[block], own[block]) for block in blocks],
        repeats=1,
        warm_up=False,
    )
    return timing.per(n_queries), list(zip(blocks, answers, strict=True))


def measure_size(n_videos: int, args: argparse.Namespace, report: Report, stopwatch: Stopwatch) -> None:
    """The lines of one corpus size."""
    device = stopwatch.device
    data = encoded_data(n_videos, args.queries, args.hidden_size, len(MODALITIES), KERNEL, args.max_ctx_l, args.seed)
    settings = SearchSettings(query_block=args.retrieval_bsz)
    floor = retrieval_macs(args.hidden_size, len(MODALITIES), data.n_clips, settings.max_vcmr_video)
    expected: list[tuple[slice, DenseAnswers]] = []
    if n_videos <= args.max_dense_videos and args.retrieval_dtype == "fp32":
        n_dense = min(args.queries, args.dense_queries)
        timing, expected = measure_dense(data, n_dense, args, settings, stopwatch)
        report.add(f"{n_videos:,} videos, dense", timing, 1, "queries", floor)

    queries, own = encoded_queries(data, device), torch.from_numpy(data.own).to(device)
    dtype = RETRIEVAL_DTYPES[args.retrieval_dtype]
    corpus = EncodedCorpus([rows.to(device) for rows in data.rows], data.n_clips.tolist(), dtype)
    data.rows.clear()
    searcher = Searcher(corpus, conv_predictors(data.st_kernel.to(device), data.ed_kernel.to(device)), settings)
    timing, _ = stopwatch.time(lambda: answer_all(searcher, queries, own))
    note = f"peak {peak_memory_gb(device):.1f} GiB"
    shares = []
    for block, answers in expected:
        found = answer_all(searcher, queries[block], own[block])[0]
        shares.append(check_answers(found, answers, args.max_ctx_l))
    if shares:
        note = f"answers equal, {100 * np.mean(shares):.2f}% of rows at the same rank"
    report.add(f"{n_videos:,} videos", timing.per(args.queries), 1, "queries", floor, note)


def measure_one_query(n_videos: int, args: argparse.Namespace, report: Report, stopwatch: Stopwatch) -> None:
    """The lines of one query alone: rows multiplied as they are kept, and converted, as a stored corpus' are."""
    device, rng = stopwatch.device, np.random.default_rng(args.seed)
    generator = torch.Generator(device).manual_seed(args.seed)
    n_clips = clip_counts(n_videos, args.max_ctx_l, rng)
    n_rows = np.minimum(n_clips + KERNEL // 2, args.max_ctx_l)
    shape = len(MODALITIES), args.hidden_size
    settings = SearchSettings(query_block=args.retrieval_bsz)
    floor = retrieval_macs(args.hidden_size, len(MODALITIES), n_clips, settings.max_vcmr_video)
    video, span = torch.randn((2, 1, *shape), generator=generator, device=device)
    query = EncodedQueries(torch.nn.functional.normalize(video, dim=-1), span * (8.0 / args.hidden_size))
    kernels = torch.rand((2, KERNEL), generator=generator, device=device)
    for dtype in (torch.float16, torch.float32):
        rows = (torch.randn((n, *shape), generator=generator, device=device) for n in n_rows.tolist())
        corpus = EncodedCorpus(rows, n_clips, dtype, n_rows, torch.float16)
        searcher = Searcher(corpus, conv_predictors(*kernels), settings)
        timing, _ = stopwatch.time(partial(searcher.search, query), repeats=ONE_QUERY_REPEATS)
        note = (
            f"{1e3 * timing.seconds:.2f} ms, {n_clips.sum():,} clips, {corpus.rows.nbytes / 2**30:.2f} GiB in float16"
        )
        report.add(f"{n_videos:,} videos, one query alone, {str(dtype)[6:]}", timing, 1, "queries", floor, note)


def default_memory_gb(device: torch.device) -> float:
    """Half of the memory of the device, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**31
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**31


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=3)
    add = parser.add_argument_group("sizes").add_argument
    add("n_videos", type=int, nargs="*", default=list(SIZES), help="corpus sizes")
    add("--queries", type=int, default=400, help="queries answered")
    add("--retrieval_bsz", type=int, default=SearchSettings.query_block, help="queries answered at a time")
    add("--retrieval_dtype", choices=[*RETRIEVAL_DTYPES], default="fp32", help="other than fp32: nothing is compared")
    add("--hidden_size", type=int, default=384, help="D")
    add("--max_ctx_l", type=int, default=128, help="most clips of a video")
    add("--max_memory_gb", type=float, help="larger corpora are left out (default: half of the memory)")
    add("--max_dense_videos", type=int, default=2179, help="largest corpus that is searched densely as well")
    add("--dense_queries", type=int, default=50, help="queries of the dense search")
    add("--one_query", action="store_true", help="measure one query alone instead")
    args = parser.parse_args(argv)

    measure = measure_one_query if args.one_query else measure_size
    report, stopwatch = start("retrieval", "VCMR, SVMR and VR of one query, top 100 videos and 200 moments", args)
    limit = args.max_memory_gb or default_memory_gb(stopwatch.device)
    for n_videos in args.n_videos:
        needed = estimated_gb(n_videos, args.hidden_size)
        if needed > limit:
            print(f"{n_videos:,} videos: left out, they need about {needed:.1f} GiB (--max_memory_gb {limit:.1f})")
            continue
        measure(n_videos, args, report, stopwatch)
    report.finish(args.json)


if __name__ == "__main__":
    main()
