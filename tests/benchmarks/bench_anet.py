"""ActivityNet Captions at full size: one epoch of training, or inference on val, with the options of its recipe.

    python tests/benchmarks/generated_anet.py --out FOLDER
    python tests/benchmarks/bench_anet.py training  --corpus FOLDER [any option of training, such as --trim_padding]
    python tests/benchmarks/bench_anet.py inference --corpus FOLDER [any option of inference]

Each is a process of its own, and so is its peak memory. The first to run packs the features. `--data_ratio 0.05` trains
on a part of the queries; a small corpus (`--share` of the generator) makes everything small.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from easydict import EasyDict

from method_tvr.config import parse_train_options
from method_tvr.model import ReLoCLNet
from method_tvr.optimization import BertAdam
from method_tvr.train import Trainer
from tests.benchmarks.common import Report, Stopwatch, Timing, benchmark_parser, measure_unit, start
from tests.benchmarks.floors import training_step_macs
from tests.benchmarks.generated_anet import paths_in
from tests.benchmarks.peak_memory import PeakMemory
from tests.benchmarks.staged_inference import (
    as_argv,
    borrow_model,
    make_fresh_model,
    measure_inference,
    token_counts,
)
from tests.benchmarks.stages import StageClock, Stages
from utils.basic_utils import command_line

TRAINING_STAGES: Stages = {
    "forward": ((ReLoCLNet, "forward"),),
    "backward": ((torch.Tensor, "backward"),),
    "optimiser": ((BertAdam, "step"),),
    "logs and the run's state": ((Trainer, "_save"), (Trainer, "_save_best")),
}


def training_options(args: Namespace, folder: str, more: Sequence[str]) -> EasyDict:
    """Options of a run of one epoch that is not evaluated."""
    paths = paths_in(Path(args.corpus))
    del paths["eval_path"]
    typed = {"dset_name": "anet_cap", "exp_id": "benchmark", "n_epoch": 1, "hidden_size": args.hidden_size, **paths}
    opt = parse_train_options([*as_argv({**typed, "device": args.device}), *more])
    opt.results_dir = str(Path(args.results or folder) / "run")
    return opt


def measure_training(report: Report, stopwatch: Stopwatch, args: Namespace, folder: str, more: Sequence[str]) -> None:
    """Lines of one epoch: opening the features, the stages of its steps, and all of it.

    Args:
        report: takes the lines.
        stopwatch: knows the device.
        args: of this benchmark.
        folder: where the run's results go unless the options say otherwise.
        more: options of training.
    """
    device, opt = stopwatch.device, training_options(args, folder, more)
    opening, memory = PeakMemory(), PeakMemory()
    before, begin = measure_unit(device), time.perf_counter()
    with opening.watched():
        trainer = Trainer(opt)
    opened = Timing(time.perf_counter() - begin, before, measure_unit(device))
    n = len(trainer.train_set)
    report.add("open features, read annotations", opened, n, "queries", note=str(opening))

    clock = StageClock(device, TRAINING_STAGES)
    begin = time.perf_counter()
    with clock.watching(), memory.watched():
        trainer.run()
    epoch = Timing(time.perf_counter() - begin, opened.unit_after, measure_unit(device))
    clock.report(report, epoch, n, "queries", {}, rest="waiting for batches, and all else")
    report.add("one epoch", epoch, n, "queries", epoch_macs(trainer), f"{trainer.steps_per_epoch} steps; {memory}")
    trainer.close()


def epoch_macs(trainer: Trainer) -> float:
    """Multiply-adds of the epoch, from the lengths of about one batch taken evenly from all its queries."""
    inputs, queries, config = trainer.inputs, trainer.train_set.queries, trainer.model.config
    some = queries[:: max(1, len(queries) // inputs.bsz)][: inputs.bsz]
    clips = np.array(trainer.features.clip_counts([str(query.vid_name) for query in some])).clip(max=inputs.max_ctx_l)
    tokens = token_counts(inputs.desc_bert_path, [str(query.desc_id) for query in some], inputs.max_desc_l, len(some))
    if not trainer.settings.trim_padding:
        clips, tokens = np.full(len(some), inputs.max_ctx_l), np.full(len(some), tokens.max())
    return training_step_macs(config, clips, tokens) * len(queries) / len(some)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark; options that are not its own go to training or inference."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("what").add_argument
    add("work", choices=("training", "inference"), help="what is measured")
    add("--corpus", required=True, metavar="FOLDER", help="what generated_anet.py wrote")
    add("--hidden_size", type=int, default=384, help="D of a fresh model")
    add("--results", metavar="DIR", help="keep the run of training in DIR/run (default: it is removed)")
    add("--model_dir", help="results folder of a trained model for inference (default: a fresh model)")
    add("--nms_thd", type=float, default=0.5, help="threshold of temporal NMS")
    args, more = parser.parse_known_args(argv)

    what = {"training": "one epoch of training", "inference": "inference on val, VCMR, SVMR and VR"}[args.work]
    report, stopwatch = start(f"anet_{args.work}", f"ActivityNet Captions' size: {what}", args)
    report.settings[args.work] = more
    with tempfile.TemporaryDirectory() as folder:
        if args.work == "training":
            measure_training(report, stopwatch, args, folder, more)
        else:
            if args.model_dir:
                borrow_model(Path(folder), args.model_dir)
            else:
                make_fresh_model(Path(folder), training_options(args, folder, []))
            typed = {"model_dir": folder, "device": args.device, "nms_thd": args.nms_thd, "eval_split_name": "val"}
            measure_inference(report, stopwatch.device, [*as_argv({**typed, **paths_in(Path(args.corpus))}), *more])
    report.finish(args.json)


if __name__ == "__main__":
    main()
