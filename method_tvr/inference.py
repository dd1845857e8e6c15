"""A trained model and a split -> prediction files and metrics."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.config import INFERENCE, OPTIONS, typed
from utils.basic_utils import PROJECT_ROOT, parse_first

if __name__ == "__main__":
    if {"--query", "--query_file"} & {word.partition("=")[0] for word in sys.argv}:  # sentences of the user's own
        program = PROJECT_ROOT / "method_tvr" / "ask" / "asking.py"
        os.execv(sys.executable, [sys.executable, str(program), *sys.argv[1:]])
    parse_first(typed, OPTIONS, INFERENCE)

import numpy as np
import torch
from easydict import EasyDict

from method_tvr.config import EVALUATION_MEMORY, SEARCH_MEMORY, parse_inference_options
from method_tvr.dataset.annotations import Query, Video, about_exclusive_moments, annotated_spans
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.dataset.loading import BatchLoader, copied_ahead
from method_tvr.dataset.split_facts import tell
from method_tvr.inputs import EvalSplit
from method_tvr.model import LossSettings, ReLoCLNet
from method_tvr.options.rules import dataset_of, evaluation_rule, settings_of
from method_tvr.options.values import OFF, TASKS
from method_tvr.search.answering import Answerer, VideoSource, open_answerer
from method_tvr.search.corpus_store import CorpusStore
from method_tvr.search.encoding import encode_queries
from method_tvr.search.predictions import MAX_PREDICTIONS, RankedRows, given_videos, write_predictions
from method_tvr.search.records import EncodedQueries, SearchSettings, Shortlist
from method_tvr.start_end_dataset import StartEndDataset, StartEndEvalDataset, prepare_batch_inputs
from method_tvr.trained.trained_model import (
    Encoding,
    TrainedModel,
    encoded_before,
    encoded_now,
    open_model,
    search_settings,
)
from method_tvr.training.launch import launch, processes_to_launch, started
from method_tvr.training.loss_meter import LossMeter
from standalone_eval.eval import metrics_table
from standalone_eval.metrics import Rule, hits_at_k, recalls, recalls_by_type
from standalone_eval.ranking.ndcg import NDCG, ndcg_of_queries
from utils.basic_utils import InputError, command_line, progress, write_json
from utils.model_utils import named_when_out_of_memory
from utils.ranks import ALONE, Ranks

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Evaluation:
    """A split with all that answering its queries and judging the answers takes."""

    split: EvalSplit
    features: FeatureStore  # of its queries and videos
    device: torch.device  # where models compute
    ranks: Ranks  # the processes that do it together
    source_of: Callable[[ReLoCLNet], VideoSource]  # encodes videos with a model, or finds them encoded
    times: ClipTimes
    search: SearchSettings
    query_bsz: int  # queries encoded at a time
    trim_padding: bool  # see `ReLoCLNet.encode_videos`
    rule: Rule  # what counts as right, and the recalls that are reported
    by_type: bool  # report recalls by type of query too, where all have one
    nms_thd: float  # write predictions after temporal NMS at this IoU as well; `OFF`
    max_before_nms: int  # moments that NMS looks at
    given_videos: str | None = None  # prediction file with the videos that moments are looked for in


def evaluation_of(
    opt: EasyDict,
    split: EvalSplit,
    features: FeatureStore,
    device: torch.device,
    ranks: Ranks = ALONE,
    source_of: Callable[[ReLoCLNet], VideoSource] | None = None,
    told: bool = False,
) -> Evaluation:
    """How options say that a split is evaluated; see `Evaluation`.

    By default videos are encoded when they are searched, long ones averaged down; and a warning says, unless it was
    `told` before, how many queries have moments that cannot agree, though the rule asks for it.
    """
    rule = evaluation_rule(opt)
    warn = not told and ranks.is_main and split.has_ground_truth
    if warn and (warning := about_exclusive_moments(split.queries, rule)):
        print(f"warning: {opt.eval_path}: {warning}", file=sys.stderr)
    encoding = settings_of(Encoding, opt)
    return Evaluation(
        split,
        features,
        device,
        ranks,
        source_of or (lambda model: encoded_now(model, features, encoding, device)),
        ClipTimes(opt.clip_length, opt.label_rule),
        search_settings(opt),
        opt.eval_query_bsz,
        opt.trim_padding,
        rule,
        dataset_of(opt).query_types,
        opt.nms_thd,
        opt.max_before_nms if opt.nms_from_all else MAX_PREDICTIONS,
        opt.get("external_inference_vr_res_path"),
    )


def predict(model: ReLoCLNet, evaluation: Evaluation, tasks: Sequence[str]) -> dict[str, RankedRows]:
    """Answer all queries of a split, of whose videos and queries each process encodes its share.

    Args:
        model: in evaluation mode, on the evaluation's device.
        tasks: of VCMR, SVMR and VR. SVMR alone encodes only the videos that queries are about.

    Returns:
        {task: RankedRows}, up to `max_before_nms` rows a query, in the order of `tasks`; the same for all processes.
    """
    one, queries, videos = evaluation, evaluation.split.queries, evaluation.split.videos
    if set(tasks) == {"SVMR"}:
        asked = {query.vid_name for query in queries}
        videos = [video for video in videos if video.vid_name in asked]
    answerer = open_answerer(model, videos, one.source_of(model), one.times, one.search, one.ranks)
    own = StartEndEvalDataset(queries[one.ranks.slice_of(len(queries))], [], one.features, "query")
    batches = progress(BatchLoader(own, one.query_bsz, one.trim_padding), "encoding queries")
    encoded = [encode_queries(model, prepare_batch_inputs(batch, one.device)).to(CPU) for _, batch in batches]
    everyones = [part for share in one.ranks.all_gather(encoded) for part in share]
    path = one.given_videos
    given = None if path is None else given_videos(path, queries, videos, one.search, one.device)
    return answer_tasks(answerer, EncodedQueries.concatenate(everyones).to(one.device), queries, tasks, given)


def answer_tasks(
    answerer: Answerer,
    queries: EncodedQueries,
    asked: Sequence[Query],
    tasks: Sequence[str],
    given: Shortlist | None = None,
) -> dict[str, RankedRows]:
    """Answer queries of a split, encoded and as annotated; see `predict`, and for `given` `Searcher.search`."""
    parts: dict[str, list[RankedRows]] = {task: [] for task in tasks}
    if "VCMR" in parts or "VR" in parts:
        for found in answerer.search(queries, given=given):
            for task, rows in zip(("VCMR", "VR"), found, strict=True):
                if task in parts:
                    parts[task].append(rows)
    if "SVMR" in parts:
        parts["SVMR"].append(answerer.search_in(queries, [str(query.vid_name) for query in asked]))
    return {task: RankedRows.concatenate(rows) for task, rows in parts.items()}


@torch.no_grad()
def mean_losses(
    model: ReLoCLNet,
    dataset: StartEndDataset,
    batch_size: int,
    trim_padding: bool,
    settings: LossSettings,
    negatives: torch.Generator,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """{loss term: its mean over the batches of a split}, of a model in evaluation mode.

    `settings` are the loss weights in force, and `negatives` what negatives are drawn with.
    """
    to_longest = trim_padding or model.config.pads_to_batch
    meter, loader = LossMeter(device), BatchLoader(dataset, batch_size, to_longest, ranks=ranks)
    batches = copied_ahead(loader, device)
    for _, batch in progress(batches, "losses on the evaluation split", total=len(loader)):
        _, losses = model(dataset.inputs(batch, device), settings, negatives, trim_padding, ranks=ranks)
        meter.add(losses)
    return meter.means()


def evaluate_rows(rows_by_task: dict[str, RankedRows], evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Recalls of predictions still in memory: those that `standalone_eval` computes from the written file.

    They are {task: {"{iou_thd}-r{k}": percentage}}, and for datasets with query types {"{task}_by_type": …}.
    """
    split = evaluation.split
    idx_of = {video.vid_name: video.idx for video in split.videos}
    video_idx = np.array([idx_of[query.vid_name] for query in split.queries if query.vid_name], dtype=np.float64)
    spans = annotated_spans(split.queries)
    types = [query.type for query in split.queries if query.type is not None]
    metrics, by_type = {}, {}
    for task, rows in rows_by_task.items():
        hits = hits_at_k(task, rows.best().padded(), video_idx, spans, evaluation.rule)
        metrics[task] = recalls(hits)
        if evaluation.by_type and len(types) == len(split.queries):
            by_type[f"{task}_by_type"] = recalls_by_type(hits, types)
    return metrics | by_type


def evaluate_split(
    model: ReLoCLNet, evaluation: Evaluation, tasks: Sequence[str], path: Path
) -> dict[str, dict[str, Any]]:
    """Predict, write the prediction file and, with ground truth, its metrics; both again after NMS if asked for.

    Args:
        model, evaluation, tasks: see `predict`.
        path: prediction file; the others are named after it: `…_metrics.json`, `…_nms_thd_{thd}.json` and so on.

    Returns:
        Metrics without NMS; empty when the split has no ground truth, and on other processes than the main one.
    """
    rows, nms_thd = predict(model, evaluation, tasks), evaluation.nms_thd
    if not evaluation.ranks.is_main:
        return {}
    metrics = _write(rows, evaluation, path)
    if nms_thd != OFF:
        after = {task: rows[task].after_nms(nms_thd, evaluation.max_before_nms) for task in tasks if task != "VR"}
        if after:
            _write(after, evaluation, path.with_name(f"{path.stem}_nms_thd_{nms_thd:g}.json"))
    return metrics


def _write(rows: dict[str, RankedRows], evaluation: Evaluation, path: Path) -> dict[str, dict[str, Any]]:
    split = evaluation.split
    write_predictions(path, split.videos, split.queries, {task: ranked.best() for task, ranked in rows.items()})
    if split.has_ground_truth:
        metrics = evaluate_rows(rows, evaluation)
    elif split.graded is not None and "VCMR" in rows:
        ndcg = ndcg_of_queries(split.graded, rows["VCMR"].best().padded())
        metrics = {NDCG: {name: float(of_queries.mean()) for name, of_queries in ndcg.items()}}
    else:
        return {}
    write_json(metrics, path.with_name(f"{path.stem}_metrics.json"), indent=True)
    return metrics


def run_inference(
    opt: EasyDict, ranks: Ranks = ALONE, device: torch.device | None = None, told: bool = False
) -> dict[str, dict[str, Any]]:
    """Inference with options of `parse_inference_options`, as the command line does it; see `evaluate_split`.

    `device` is where this process computes, by default where the options say. `told`: what is wrong with the split has
    been said before.
    """
    trained = open_model(opt, ranks, device)
    store = None if opt.encoded_corpus is None else trained.open_store(opt.encoded_corpus)
    with trained.open_features(with_context=store is None) as features:
        split = trained.inputs.eval_split(features)
        if store is not None:
            require_videos(trained, store, split.videos, split.name)
        found = trained.facts(split.videos, features if store is None else store, split.queries)
        if ranks.is_main and not told:
            tell(found)
        tasks = _tasks(opt.tasks, split, opt.eval_path)
        name = f"inference_{opt.dset_name}_{opt.eval_split_name}_{opt.eval_id}_predictions_{'_'.join(tasks)}.json"
        path = trained.model_dir / name
        source = trained.source(features) if store is None else encoded_before(store, trained.device)
        evaluation = evaluation_of(opt, split, features, trained.device, ranks, lambda _: source, told)
        metrics = evaluate_split(trained.model, evaluation, tasks, path)
    print(f"{len(split.queries)} queries over {len(split.videos)} videos: {path}")
    if metrics:
        print(metrics_table(metrics))
    return metrics


def require_videos(trained: TrainedModel, store: CorpusStore, videos: Sequence[Video], split_name: str) -> None:
    """See `TrainedModel.require_encoded` for the videos of a split; say when an encoded corpus has others."""
    trained.require_encoded(store, videos)
    others = len(store) - len(videos)
    if others:
        print(f"note: {store.folder}: {others} of its videos are not in {split_name}: not searched", file=sys.stderr)


def _tasks(asked: Sequence[str] | None, split: EvalSplit, path: str) -> list[str]:
    """The tasks that were asked for, by default all that the queries of a file allow."""
    if "SVMR" in (asked or ()) and not split.has_ground_truth:
        raise InputError(
            f"{path}: SVMR looks for the moment in a given video, but the queries of {split.name} name none: "
            "leave SVMR out of --tasks"
        )
    return list(asked or (task for task in TASKS if task != "SVMR" or split.has_ground_truth))


def run_together(opt: EasyDict, run: Callable[[EasyDict, Ranks, torch.device], object]) -> None:
    """Run inference, or what is like it, as one process or as several."""
    enough = named_when_out_of_memory(opt, EVALUATION_MEMORY if opt.encoded_corpus is None else SEARCH_MEMORY)
    n = processes_to_launch(opt.device_ids)
    if n > 1:
        launch(sys.argv, n)
    with started(opt.device, opt.device_ids, opt.tf32) as (ranks, device), enough:
        run(opt, ranks, device)


@command_line
def main() -> None:
    opt = parse_inference_options()
    if opt.query is not None or opt.query_file is not None:
        raise InputError("--query, --query_file: are answered by inference.sh: bash method_tvr/scripts/inference.sh …")
    run_together(opt, run_inference)


if __name__ == "__main__":
    main()
