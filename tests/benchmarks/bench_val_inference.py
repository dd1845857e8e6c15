"""Inference on a whole split, stage by stage: videos and queries encoded, three tasks, NMS, files and metrics.

    python utils/mini_tvr.py --annotations data --out FEATURES --splits val --vid_feat_size 3072 --text_feat_size 768
    python tests/benchmarks/bench_val_inference.py --annotations data --features FEATURES [any option of inference]

With TVR's own annotations and features made for them, this is its real scale. The model is a fresh one unless
`--model_dir` names a trained one. Peak memory is that of this process, and of the
largest of its workers.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from easydict import EasyDict

from method_tvr import answering, inference
from method_tvr.checkpoint import load_checkpoint, save_checkpoint
from method_tvr.config import load_options, parse_inference_options, parse_train_options, save_options
from method_tvr.feature_store import TEF_SIZE
from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.predictions import RankedRows
from standalone_eval.eval import eval_retrieval
from tests.benchmarks.common import (
    AnswersDiffer,
    Report,
    Timing,
    benchmark_parser,
    measure_unit,
    start,
    synchronize,
)
from tests.benchmarks.floors import context_macs, query_macs, retrieval_macs
from utils.basic_utils import command_line, read_json, read_jsonl
from utils.feature_file import FeatureFile
from utils.mini_features import n_clips
from utils.mini_files import durations_path, query_feature_path, release_path, sub_feature_path, video_feature_path

SPLIT = "val"
# stage: the functions it is made of, where inference looks them up; what they call counts for the stage it is of
STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "open features, read annotations": ((inference, "open_features"), (inference, "load_eval_split")),
    "load the model": ((inference, "load_checkpoint"),),
    "load and encode videos": ((answering, "encode_corpus"),),
    "answer queries": ((inference, "answer_tasks"),),
    "load and encode queries": ((inference, "predict"),),
    "NMS": ((RankedRows, "after_nms"),),
    "write files": ((inference, "write_predictions"), (inference, "write_json")),
    "metrics": ((inference, "evaluate_rows"),),
}


@dataclass
class StageClock:
    """Seconds that each stage takes for itself, without the stages it calls.

    Attributes:
        device: waited for when a stage ends.
        seconds: {stage: seconds}.
    """

    device: Any
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _inner: list[float] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the functions of `STAGES` for the length of the block."""
        with ExitStack() as patches:
            for stage, functions in STAGES.items():
                for owner, name in functions:
                    timed = self._timed(stage, getattr(owner, name))
                    patches.enter_context(mock.patch.object(owner, name, timed))
            yield

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            begin = time.perf_counter()
            try:
                result = function(*args, **kwargs)
                synchronize(self.device)
                return result
            finally:
                elapsed = time.perf_counter() - begin
                self.seconds[stage] += elapsed - self._inner.pop()
                if self._inner:
                    self._inner[-1] += elapsed

        return timed


def feature_options(args: Namespace) -> dict[str, Path]:
    """Options that name the corpus."""
    annotations, features, prefix = Path(args.annotations), Path(args.features), args.prefix
    return {
        "eval_path": release_path(annotations, prefix, SPLIT),
        "video_duration_idx_path": durations_path(annotations, prefix),
        "vid_feat_path": video_feature_path(features, prefix, "resnet_i3d"),
        "sub_bert_path": sub_feature_path(features, prefix),
        "desc_bert_path": query_feature_path(features, prefix),
    }


def as_argv(options: dict[str, Any]) -> list[str]:
    """Options as they would be typed."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def make_model_dir(folder: Path, args: Namespace) -> Path:
    """A results folder of a fresh model, as training leaves it."""
    paths = feature_options(args)
    opt = parse_train_options(
        as_argv({"dset_name": "tvr", "exp_id": "benchmark", "hidden_size": args.hidden_size, **paths})
    )
    sizes = {
        "visual_input_size": FeatureFile(paths["vid_feat_path"]).width() + TEF_SIZE,
        "sub_input_size": FeatureFile(paths["sub_bert_path"]).width() + TEF_SIZE,
        "query_input_size": FeatureFile(paths["desc_bert_path"]).width(),
    }
    save_options(opt, folder)
    save_checkpoint(folder / "model.ckpt", ReLoCLNet(ModelConfig.from_dict({**opt, **sizes})), epoch=-1)
    return folder


def floors(opt: EasyDict, model_dir: Path) -> dict[str, float]:
    """{stage: multiply-adds}, for the stages that arithmetic decides."""
    config = load_checkpoint(model_dir / "model.ckpt").config
    videos = read_json(opt.video_duration_idx_path)[SPLIT]
    clips = np.array([min(n_clips(duration), config.max_ctx_l) for duration, _ in videos.values()])
    query_feat = FeatureFile(opt.desc_bert_path)
    desc_ids = [str(row["desc_id"]) for row in read_jsonl(opt.eval_path)]
    sample = desc_ids[:: max(1, len(desc_ids) // 500)]
    tokens = [min(len(query_feat.read(desc_id)), config.max_desc_l) for desc_id in sample]
    computed = clips if opt.trim_padding else np.full(len(clips), config.max_ctx_l)
    per_query = retrieval_macs(config.hidden_size, len(config.modalities), clips, opt.max_vcmr_video)
    return {
        "load and encode videos": context_macs(config, computed),
        "load and encode queries": query_macs(config, tokens) * len(desc_ids) / len(tokens),
        "answer queries": per_query * len(desc_ids),
    }


def report_stages(
    report: Report, clock: StageClock, whole: Timing, n_queries: int, floor_macs: dict[str, float]
) -> None:
    """A line for each stage, one for what is left, and one for all of it."""
    stages = clock.seconds | {"all else": whole.seconds - sum(clock.seconds.values())}
    for stage, seconds in stages.items():
        timing = Timing(seconds, whole.unit_before, whole.unit_after)
        report.add(stage, timing, n_queries, "queries", floor_macs.get(stage))
    report.add("all of it", whole, n_queries, "queries", sum(floor_macs.values()))


def check_metrics(model_dir: Path, opt: EasyDict) -> None:
    """Evaluate the files that were written, with and without NMS, as a user of `standalone_eval` does.

    Raises:
        AnswersDiffer: the metrics beside a file are not its own.
    """
    ground_truth = read_jsonl(opt.eval_path)
    for path in sorted(model_dir.glob("*_metrics.json")):
        predictions = path.with_name(path.name.replace("_metrics", ""))
        found, expected = read_json(path), eval_retrieval(read_json(predictions), ground_truth)
        if found != expected:
            raise AnswersDiffer(f"{path}: metrics are not those of {predictions.name}")


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark; options that are not its own go to inference."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("what").add_argument
    add("--annotations", required=True, help="folder of the annotations and of video2dur_idx")
    add("--features", required=True, help="folder of the feature release")
    add("--prefix", default="tvr", help="how the files' names begin")
    add("--model_dir", help="results folder of a trained model (default: a fresh model)")
    add("--hidden_size", type=int, default=384, help="D of a fresh model")
    add("--nms_thd", type=float, default=0.5, help="threshold of temporal NMS")
    args, more = parser.parse_known_args(argv)

    report, stopwatch = start("val_inference", f"inference on {SPLIT}, VCMR, SVMR and VR", args)
    report.settings["inference"] = more
    with tempfile.TemporaryDirectory() as folder:
        model_dir = Path(folder)
        if args.model_dir:
            save_options(EasyDict(load_options(args.model_dir)), model_dir)
            (model_dir / "model.ckpt").symlink_to(Path(args.model_dir).resolve() / "model.ckpt")
        else:
            make_model_dir(model_dir, args)
        typed = {"model_dir": folder, "device": args.device, "nms_thd": args.nms_thd, "eval_split_name": SPLIT}
        opt = parse_inference_options([*as_argv({**typed, **feature_options(args)}), *more])

        clock = StageClock(stopwatch.device)
        before, begin = measure_unit(stopwatch.device), time.perf_counter()
        with clock.watching():
            inference.run_inference(opt)
        seconds = time.perf_counter() - begin
        whole = Timing(seconds, before, measure_unit(stopwatch.device))
        n_queries = len(read_jsonl(opt.eval_path))
        report_stages(report, clock, whole, n_queries, floors(opt, model_dir))
        check_metrics(model_dir, opt)
    report.finish(args.json)


if __name__ == "__main__":
    main()
