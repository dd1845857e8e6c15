"""ReLoCLNet and XML side by side: a training step, encoding of videos, and one query, at TVR's lengths.

python tests/benchmarks/bench_models.py [--videos 2179]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from method_tvr.models import CONFIGS, NAME, config_of
from method_tvr.options.models import UNTRAINED
from method_tvr.search.encoding import encode_corpus, encode_queries
from method_tvr.search.records import SearchSettings
from method_tvr.search.retrieval import Searcher
from tests.benchmarks.bench_encoding import ContextBatches
from tests.benchmarks.bench_training_step import VARIANTS, FastTraining, new_model
from tests.benchmarks.common import Report, Stopwatch, benchmark_parser, start
from tests.benchmarks.synthetic import clip_counts, training_batch
from utils.basic_utils import command_line


def measure(model_name: str, args: argparse.Namespace, report: Report, stopwatch: Stopwatch) -> None:
    """The lines of one model."""
    device = stopwatch.device
    visual, sub, query = args.input_sizes
    sizes = {"visual_input_size": visual, "sub_input_size": sub, "query_input_size": query}
    config = config_of({NAME: model_name, **sizes, "hidden_size": args.hidden_size, "max_ctx_l": args.max_ctx_l})
    batch = training_batch(config, args.batch, args.seed)
    batch = {name: tensor if name == "ctx_lengths" else tensor.to(device) for name, tensor in batch.items()}
    for name in ("default", "--trim_padding"):
        fast = FastTraining(new_model(config, batch), batch, VARIANTS[name])
        timing, _ = stopwatch.time(lambda fast=fast: fast.step(config))  # type: ignore[misc]
        report.add(f"{model_name}, training step, {name}", timing, args.batch, "queries")

    model = new_model(config, batch).eval()
    n_clips = clip_counts(args.videos, args.max_ctx_l, np.random.default_rng(args.seed))
    videos = ContextBatches(config, n_clips, args.batch, args.seed)
    timing, corpus = stopwatch.time(
        lambda: encode_corpus(model, videos, device, trim_padding=True), repeats=1, warm_up=False
    )
    memory = f"{corpus.rows.nbytes / 2**30:.2f} GiB"
    report.add(
        f"{model_name}, encoding {args.videos:,} videos, --trim_padding", timing, args.videos, "videos", note=memory
    )
    queries = encode_queries(model, {name: batch[name] for name in ("query_feat", "query_mask")})
    searcher = Searcher(corpus, model.span_predictors, SearchSettings())
    timing, _ = stopwatch.time(lambda: list(searcher.search(queries)))
    report.add(f"{model_name}, one query over {args.videos:,} videos", timing.per(args.batch), 1, "queries")


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument_group("sizes").add_argument
    add("--videos", type=int, default=2179, help="videos that are encoded and searched")
    add("--batch", type=int, default=128, help="queries of a step, and videos encoded at a time")
    add("--max_ctx_l", type=int, default=128, help="clips that videos are padded to")
    add("--input_sizes", type=int, nargs=3, default=[514, 386, 384], help="video and subtitles (with tef), query")
    add("--hidden_size", type=int, default=384, help="D")
    args = parser.parse_args(argv)
    report, stopwatch = start("models", f"models side by side, batch {args.batch}", args)
    torch.manual_seed(args.seed)
    for name in (name for name in CONFIGS if name not in UNTRAINED):
        measure(name, args, report, stopwatch)
    report.finish(args.json)


if __name__ == "__main__":
    main()
