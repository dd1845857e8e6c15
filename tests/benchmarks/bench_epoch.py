"""Epochs of training at TVR's size: milliseconds a step, and how busy the device is, for several ways to train.

    python tests/benchmarks/generated_tvr.py --out FOLDER --share 0.15
    python tests/benchmarks/bench_epoch.py --corpus FOLDER --device 0 [--ways "--trim_padding --amp bf16" …]

Two epochs warm up, after which features are where they stay and graphs are recorded; the next is timed as a whole,
loading included, and a few steps after it are profiled. A TVR epoch has 682 steps; where the corpus has fewer queries,
its time is extrapolated.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from method_tvr.config import parse_train_options
from method_tvr.train import Trainer
from tests.benchmarks.common import benchmark_parser, measure_unit, synchronize
from tests.benchmarks.generated_tvr import N_VIDEOS, QUERIES_PER_VIDEO, paths_in
from tests.benchmarks.staged_inference import as_argv
from utils.basic_utils import command_line
from utils.model_utils import choose_device

WAYS = (
    "",
    "--trim_padding --amp bf16",
    "--tf32",
    "--trim_padding",
    "--trim_padding --amp bf16 --tf32",
    "--cuda_graph off",
    "--trim_padding --amp bf16 --cuda_graph off",
    "--trim_padding --amp bf16 --feature_cache ram",
)
PROFILED_STEPS = 20
TVR_QUERIES = N_VIDEOS["train"] * QUERIES_PER_VIDEO


def measure(way: str, corpus: Path, device_number: int, results: str, show_kernels: int) -> str:
    """One row of the table."""
    fixed = {"dset_name": "tvr", "exp_id": "epoch", "device": device_number, "save_every": 0, "n_epoch": 100}
    argv = [*as_argv({**fixed, **paths_in(corpus)}), "--no_norm_vfeat", *way.split()]
    opt = parse_train_options(argv)
    opt.eval_path, opt.results_dir = None, str(Path(results) / (way.replace(" ", "_") or "defaults"))
    device = choose_device(opt.device, opt.tf32)
    trainer = Trainer(opt, device=device)
    trainer._save = lambda: None  # type: ignore[method-assign]
    seconds = [_epoch(trainer, device) for _ in range(3)]
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    ms = 1000 * seconds[2] / trainer.steps_per_epoch
    busy = _busy_ms(trainer, show_kernels) if device.type == "cuda" else math.nan
    trainer.close()
    epoch = ms * math.ceil(TVR_QUERIES / opt.bsz) / 1000
    where = "device" if getattr(trainer.features, "device", None) is not None else "host"
    figures = (
        f"{ms:.2f}",
        f"{busy:.2f}",
        f"{100 * busy / ms:.0f} %",
        f"{epoch:.1f}",
        f"{seconds[0]:.1f}",
        f"{peak:.1f}",
    )
    return f"| {' | '.join([way or 'defaults', where, *figures])} |"


def _epoch(trainer: Trainer, device: torch.device) -> float:
    """Seconds of an epoch; the trainer is at the beginning of the next one afterwards."""
    synchronize(device)
    start = time.perf_counter()
    trainer._train_epoch()
    synchronize(device)
    seconds = time.perf_counter() - start
    trainer.place.step, trainer.place.phase = 0, "training"
    return seconds


def _busy_ms(trainer: Trainer, show_kernels: int) -> float:
    """Milliseconds of a step in which kernels run."""
    whole = trainer.train_set.queries
    trainer.train_set.queries = whole[: PROFILED_STEPS * trainer.settings.bsz]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        trainer._train_epoch()
        torch.cuda.synchronize()
    trainer.train_set.queries = whole
    events = profile.key_averages()
    if show_kernels:
        print(events.table(sort_by="self_cuda_time_total", row_limit=show_kernels, max_name_column_width=100))
    return sum(event.self_device_time_total for event in events) / 1000 / PROFILED_STEPS


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("what").add_argument
    add("--corpus", required=True, type=Path, help="folder that generated_tvr.py wrote")
    add("--ways", nargs="+", default=list(WAYS), help="options of training, those of a way in one word")
    add("--kernels", type=int, default=0, help="print as many of a way's kernels")
    args = parser.parse_args(argv)
    device = choose_device(args.device)
    print(f"unit {1000 * measure_unit(device):.3f} ms")
    print("| options | features | ms a step | kernels, ms | busy | TVR epoch, s | first epoch here, s | peak, GiB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as results:
        for way in args.ways:
            print(measure(way, args.corpus, args.device, results, args.kernels), flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)


if __name__ == "__main__":
    main()
