"""Inference on a whole split as its command does it, measured stage by stage, and its metrics checked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from easydict import EasyDict

from method_tvr import inference
from method_tvr.config import parse_inference_options
from method_tvr.inputs import Inputs
from method_tvr.model import ReLoCLNet
from method_tvr.options.rules import evaluation_rule, settings_of
from method_tvr.options.saved import load_options, save_options
from method_tvr.search.predictions import RankedRows
from method_tvr.train import model_config
from method_tvr.trained import trained_model
from method_tvr.training.checkpoint import load_checkpoint, save_checkpoint
from standalone_eval.eval import eval_retrieval
from tests.benchmarks.common import AnswersDiffer, Report, Timing, measure_unit
from tests.benchmarks.floors import context_macs, query_macs, retrieval_macs
from tests.benchmarks.peak_memory import PeakMemory
from tests.benchmarks.stages import StageClock, Stages
from utils.basic_utils import read_json, read_jsonl
from utils.feature_files.feature_file import FeatureFile
from utils.model_utils import named_generator

SAMPLED = 500  # queries whose tokens are counted
STAGES: Stages = {
    "open features, read annotations": ((Inputs, "open_features"), (Inputs, "eval_split")),
    "load the model": ((trained_model, "load_model"),),
    "load and encode videos": ((trained_model, "encode_corpus"),),
    "answer queries": ((inference, "answer_tasks"),),
    "load and encode queries": ((inference, "predict"),),
    "NMS": ((RankedRows, "after_nms"),),
    "write files": ((inference, "write_predictions"), (inference, "write_json")),
    "metrics": ((inference, "evaluate_rows"),),
}


def as_argv(options: Mapping[str, Any]) -> list[str]:
    """Options as they would be typed."""
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def make_fresh_model(folder: Path, opt: EasyDict) -> None:
    """A results folder of a fresh model, as training with the options leaves it."""
    inputs = replace(settings_of(Inputs, opt), feature_cache="disk")
    with inputs.open_features(torch.device("cpu")) as features:  # for their sizes
        model = ReLoCLNet(model_config(opt, features), named_generator(opt.seed, "initialisation"))
    save_options(opt, folder)
    save_checkpoint(folder / "model.ckpt", model, epoch=-1)


def borrow_model(folder: Path, model_dir: str) -> None:
    """A results folder of a trained model, so that what inference writes does not go into its own."""
    save_options(EasyDict(load_options(model_dir)), folder)
    (folder / "model.ckpt").symlink_to(Path(model_dir).resolve() / "model.ckpt")


def floors(opt: EasyDict) -> dict[str, float]:
    """{stage: multiply-adds}, for the stages that arithmetic decides."""
    config = load_checkpoint(Path(opt.model_dir) / "model.ckpt").config
    videos = read_json(opt.video_duration_idx_path)[opt.eval_split_name]
    with FeatureFile(opt.vid_feat_path or opt.sub_bert_path) as context:
        clips = np.array([min(context.form(name)[0], opt.max_ctx_l) for name in videos])
    desc_ids = [str(row["desc_id"]) for row in read_jsonl(opt.eval_path)]
    tokens = token_counts(opt.desc_bert_path, desc_ids, opt.max_desc_l, SAMPLED)
    computed = clips if opt.trim_padding else np.full(len(clips), opt.max_ctx_l)
    per_query = retrieval_macs(config.hidden_size, len(config.modalities), clips, opt.max_vcmr_video)
    return {
        "load and encode videos": context_macs(config, computed),
        "load and encode queries": query_macs(config, tokens) * len(desc_ids) / len(tokens),
        "answer queries": per_query * len(desc_ids),
    }


def token_counts(path: str, desc_ids: Sequence[str], max_desc_l: int, n: int) -> np.ndarray:
    """Tokens that the model sees of about `n` queries, taken evenly from all."""
    with FeatureFile(path) as file:
        return np.array([min(file.form(key)[0], max_desc_l) for key in desc_ids[:: max(1, len(desc_ids) // n)]])


def measure_inference(report: Report, device: torch.device, argv: Sequence[str]) -> None:
    """Run inference once: a line for each stage, and one for all of it.

    Args:
        report: takes the lines.
        device: where it runs.
        argv: options of inference.

    Raises:
        AnswersDiffer: metrics are not those of the files written.
    """
    opt = parse_inference_options(argv)
    clock, memory = StageClock(device, STAGES), PeakMemory()
    before, begin = measure_unit(device), time.perf_counter()
    with clock.watching(), memory.watched():
        inference.run_inference(opt)
    whole = Timing(time.perf_counter() - begin, before, measure_unit(device))
    n_queries, floor_macs = len(read_jsonl(opt.eval_path)), floors(opt)
    clock.report(report, whole, n_queries, "queries", floor_macs, rest="all else")
    report.add("all of it", whole, n_queries, "queries", sum(floor_macs.values()), str(memory))
    check_metrics(Path(opt.model_dir), opt)


def check_metrics(model_dir: Path, opt: EasyDict) -> None:
    """Evaluate the files that were written, with and without NMS, as a user of `standalone_eval` does.

    Raises:
        AnswersDiffer: the metrics beside a file are not its own.
    """
    ground_truth, rule = read_jsonl(opt.eval_path), evaluation_rule(opt)
    settings: dict[str, Any] = {"several_from": rule.several_from, "least_right": rule.least_right}
    for path in sorted(model_dir.glob("*_metrics.json")):
        predictions = path.with_name(path.name.replace("_metrics", ""))
        expected = eval_retrieval(read_json(predictions), ground_truth, rule.iou_thds, rule.ks, **settings)
        if read_json(path) != expected:
            raise AnswersDiffer(f"{path}: metrics are not those of {predictions.name}")
