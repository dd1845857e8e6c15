"""A trained model and a split -> prediction files and metrics."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from easydict import EasyDict

from method_tvr.ask.asking import Asker, print_answers, read_sentences, write_answers
from method_tvr.ask.text_models import open_text_model
from method_tvr.config import dataset_of, evaluation_rule, find_path, parse_inference_options
from method_tvr.dataset.annotations import Query, Video, annotated_spans
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_records import check_clip_length, check_trained_on, note_not_compared
from method_tvr.dataset.feature_store import TEF_SIZE, FeatureStore
from method_tvr.dataset.loading import BatchLoader
from method_tvr.dataset.splits import EvalSplit, ensure_dataset, listed_videos, load_eval_split, open_features
from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.options.declared import EVALUATION_MEMORY, OFF, SEARCH_MEMORY, TASKS
from method_tvr.search.answering import Answerer, open_answerer
from method_tvr.search.corpus_store import CorpusStore, Recipe
from method_tvr.search.encoding import encode_queries
from method_tvr.search.predictions import MAX_PREDICTIONS, RankedRows, write_predictions
from method_tvr.search.retrieval import EncodedQueries
from method_tvr.search.windows import Windows, chosen_windows
from method_tvr.start_end_dataset import StartEndEvalDataset, prepare_batch_inputs
from method_tvr.training.checkpoint import Checkpoint, load_checkpoint
from method_tvr.training.launch import launch, processes_to_launch, started
from standalone_eval.eval import metrics_table
from standalone_eval.metrics import hits_at_k, recalls, recalls_by_type
from utils.basic_utils import InputError, command_line, progress, write_json
from utils.model_utils import choose_device, named_when_out_of_memory
from utils.ranks import ALONE, Ranks

CPU = torch.device("cpu")


def predict(
    model: ReLoCLNet,
    split: EvalSplit,
    features: FeatureStore,
    opt: EasyDict,
    tasks: Sequence[str],
    device: torch.device,
    store: CorpusStore | None = None,
    windows: Windows | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, RankedRows]:
    """Answer all queries of a split, of whose videos and queries each process encodes its share.

    Args:
        model: in evaluation mode, on `device`.
        split, features: queries, videos and where their features come from.
        opt: search and loading options.
        tasks: of VCMR, SVMR and VR. SVMR alone encodes only the videos that queries are about.
        store: has the videos encoded already; their features are not looked at then.
        windows: how long videos are cut; None averages them down.
        ranks: the processes that search together; all return the same.

    Returns:
        {task: RankedRows}, up to `max_before_nms` rows a query, in the order of `tasks`.
    """
    videos = split.videos
    if set(tasks) == {"SVMR"}:
        asked = {query.vid_name for query in split.queries}
        videos = [video for video in videos if video.vid_name in asked]
    answerer = open_answerer(model, videos, features, opt, device, store, windows, ranks)
    own = StartEndEvalDataset(split.queries[ranks.slice_of(len(split.queries))], videos, features, "query")
    batches = progress(BatchLoader(own, opt.eval_query_bsz, opt.trim_padding), "encoding queries")
    encoded = [encode_queries(model, prepare_batch_inputs(batch, device)).to(CPU) for _, batch in batches]
    everyones = [queries for share in ranks.all_gather(encoded) for queries in share]
    return answer_tasks(answerer, EncodedQueries.concatenate(everyones).to(device), split.queries, tasks)


def answer_tasks(
    answerer: Answerer, queries: EncodedQueries, asked: Sequence[Query], tasks: Sequence[str]
) -> dict[str, RankedRows]:
    """Answer queries of a split, encoded and as annotated; see `predict`."""
    parts: dict[str, list[RankedRows]] = {task: [] for task in tasks}
    if "VCMR" in parts or "VR" in parts:
        for moments, videos in answerer.search(queries):
            if "VCMR" in parts:
                parts["VCMR"].append(moments)
            if "VR" in parts:
                parts["VR"].append(videos)
    if "SVMR" in parts:
        parts["SVMR"].append(answerer.search_in(queries, [str(query.vid_name) for query in asked]))
    return {task: RankedRows.concatenate(rows) for task, rows in parts.items()}


def evaluate_rows(rows_by_task: dict[str, RankedRows], split: EvalSplit, opt: EasyDict) -> dict[str, dict[str, Any]]:
    """Recalls of predictions still in memory: those that `standalone_eval` computes from the written file.

    Returns:
        {task: {"{iou_thd}-r{k}": percentage}}, and for datasets with query types {"{task}_by_type": …}.
    """
    dataset = dataset_of(opt)
    rule = evaluation_rule(opt)
    idx_of = {video.vid_name: video.idx for video in split.videos}
    video_idx = np.array([idx_of[query.vid_name] for query in split.queries if query.vid_name], dtype=np.float64)
    spans = annotated_spans(split.queries)
    types = [query.type for query in split.queries if query.type is not None]
    metrics, by_type = {}, {}
    for task, rows in rows_by_task.items():
        hits = hits_at_k(task, rows.best().padded(), video_idx, spans, rule)
        metrics[task] = recalls(hits)
        if dataset.query_types and len(types) == len(split.queries):
            by_type[f"{task}_by_type"] = recalls_by_type(hits, types)
    return metrics | by_type


def evaluate_split(
    model: ReLoCLNet,
    split: EvalSplit,
    features: FeatureStore,
    opt: EasyDict,
    tasks: Sequence[str],
    device: torch.device,
    path: Path,
    store: CorpusStore | None = None,
    windows: Windows | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, dict[str, Any]]:
    """Predict, write the prediction file and, with ground truth, its metrics; both again after NMS if asked for.

    Args:
        model, split, features, opt, tasks, device, store, windows, ranks: see `predict`; the main process writes the
            files.
        path: prediction file; the others are named after it: `…_metrics.json`, `…_nms_thd_{thd}.json` and so on.

    Returns:
        Metrics without NMS; empty when the split has no ground truth, and on other processes than the main one.
    """
    rows = predict(model, split, features, opt, tasks, device, store, windows, ranks)
    if not ranks.is_main:
        return {}
    metrics = _write(rows, split, opt, path)
    if opt.nms_thd != OFF:
        max_before_nms = opt.max_before_nms if opt.nms_from_all else MAX_PREDICTIONS
        after = {task: rows[task].after_nms(opt.nms_thd, max_before_nms) for task in tasks if task != "VR"}
        if after:
            _write(after, split, opt, path.with_name(f"{path.stem}_nms_thd_{opt.nms_thd:g}.json"))
    return metrics


def _write(rows: dict[str, RankedRows], split: EvalSplit, opt: EasyDict, path: Path) -> dict[str, dict[str, Any]]:
    write_predictions(path, split.videos, split.queries, {task: ranked.best() for task, ranked in rows.items()})
    if not split.has_ground_truth:
        return {}
    metrics = evaluate_rows(rows, split, opt)
    write_json(metrics, path.with_name(f"{path.stem}_metrics.json"), indent=True)
    return metrics


def load_model_of(opt: EasyDict) -> Checkpoint:
    """The model in `opt.model_dir`, which must be one for the options' `ctx_mode`.

    Raises:
        InputError: it cannot be read, or sees something else.
    """
    checkpoint = load_checkpoint(Path(opt.model_dir) / "model.ckpt")
    checkpoint.note_if_unknown()
    trained_with = checkpoint.config.ctx_mode
    if set(trained_with.split("_")) != set(opt.ctx_mode.split("_")):
        raise InputError(
            f"--ctx_mode {opt.ctx_mode}: the model in {opt.model_dir} was trained with {trained_with}: give that, or "
            "leave the option out"
        )
    return checkpoint


def check_model_fits(checkpoint: Checkpoint, features: FeatureStore, model_dir: str, times: ClipTimes) -> None:
    """Refuse features of other sizes or another making than the model was trained on, and more than it can take.

    Args:
        checkpoint: of the model.
        features: of the run.
        model_dir: where the model lies, for messages.
        times: what the options say of clips.

    Raises:
        InputError: naming the feature file or the option.
    """
    config = checkpoint.config
    tef = TEF_SIZE if features.use_tef else 0
    trained_on = {"query": config.query_input_size, **{m: config.input_sizes[m] - tef for m in config.modalities}}
    for kind, size in features.sizes.items():
        if size != trained_on[kind]:
            raise InputError(
                f"{features.paths[kind]}: features are {size} wide, but the model in {model_dir} was "
                f"trained on {trained_on[kind]}: give the features it was trained on"
            )
    check_positions(config, features.max_ctx_l, features.max_desc_l, model_dir)
    check_trained_on(checkpoint.features, features, model_dir)
    note_not_compared(checkpoint, features, model_dir)
    check_clip_length(features, times)


def check_positions(config: ModelConfig, max_ctx_l: int, max_desc_l: int, model_dir: str) -> None:
    """Refuse more clips or tokens than the model has positions for.

    Raises:
        InputError: naming the option.
    """
    for name, asked in {"max_ctx_l": max_ctx_l, "max_desc_l": max_desc_l}.items():
        most = getattr(config, name)
        if asked > most:
            raise InputError(f"--{name} {asked}: the model in {model_dir} was trained with {most}: give at most that")


def open_store(opt: EasyDict, checkpoint: Checkpoint) -> CorpusStore:
    """The encoded corpus that the options name, which must be what encoding with them would give.

    Raises:
        InputError: it is another model's, was made with other options, or is damaged.
    """
    store = CorpusStore(find_path(opt.encoded_corpus))
    store.recipe.check_same(Recipe.of(checkpoint, opt, store.recipe.dtype), store.folder)
    return store


def open_query_features(opt: EasyDict, device: torch.device = CPU) -> FeatureStore:
    """Features of queries alone, for videos that are encoded already. Each is needed once, and read from its file."""
    return FeatureStore(
        {},
        find_path(opt.desc_bert_path),
        normalize={"query": not opt.no_norm_tfeat},
        max_ctx_l=opt.max_ctx_l,
        max_desc_l=opt.max_desc_l,
        use_tef=False,
        sizes={"query": opt.q_feat_size},
        num_workers=opt.num_workers,
        pin_memory=device.type == "cuda" and not opt.no_pin_memory,
    )


def run_inference(opt: EasyDict, ranks: Ranks = ALONE, device: torch.device | None = None) -> dict[str, dict[str, Any]]:
    """Inference as the command line does it.

    Args:
        opt: from `parse_inference_options`.
        ranks: the processes that do it together.
        device: where this one computes, by default where the options say.

    Returns:
        Metrics as `evaluate_split` returns them.
    """
    checkpoint = _load_checkpoint(opt, ranks)
    device = choose_device(opt.device, opt.tf32) if device is None else device
    store, windows = _how_encoded(opt, checkpoint)
    with (
        open_features(opt, device, average=windows is None) if store is None else open_query_features(opt, device)
    ) as features:
        features.note_unknown_files()
        check_model_fits(checkpoint, features, opt.model_dir, ClipTimes.of(opt))
        split = load_eval_split(opt, features)
        if store is not None:
            _check_store(store, split.videos, split.name)
        tasks = _tasks(opt, split)
        model = checkpoint.build_model(device)
        name = f"inference_{opt.dset_name}_{opt.eval_split_name}_{opt.eval_id}_predictions_{'_'.join(tasks)}.json"
        path = Path(opt.model_dir) / name
        metrics = evaluate_split(model, split, features, opt, tasks, device, path, store, windows, ranks)
    print(f"{len(split.queries)} queries over {len(split.videos)} videos: {path}")
    if metrics:
        print(metrics_table(metrics))
    return metrics


def run_asking(opt: EasyDict, ranks: Ranks = ALONE, device: torch.device | None = None) -> Asker:
    """Answer new sentences over the videos of a split, as the command line does it.

    Args:
        opt: from `parse_inference_options`.
        ranks: the processes that do it together; the main one encodes the sentences.
        device: where this one computes, by default where the options say.

    Returns:
        What answers more of them.
    """
    sentences = read_sentences(opt.query, opt.query_file)
    opt.max_before_nms = max(opt.max_before_nms, opt.top_k)
    checkpoint = _load_checkpoint(opt, ranks)
    check_positions(checkpoint.config, opt.max_ctx_l, opt.max_desc_l, opt.model_dir)
    device = choose_device(opt.device, opt.tf32) if device is None else device
    text_model = open_text_model(opt, checkpoint, device) if ranks.is_main else None
    videos = listed_videos(opt)
    store, windows = _how_encoded(opt, checkpoint)
    with ExitStack() as opened:
        features = None
        if store is None:
            features = open_features(opt, device, with_queries=False, average=windows is None)
            opened.enter_context(features)
            features.note_unknown_files()
            check_model_fits(checkpoint, features, opt.model_dir, ClipTimes.of(opt))
            features.require([], (video.vid_name for video in videos), find_path(opt.video_duration_idx_path))
        else:
            _check_store(store, videos, opt.eval_split_name)
        model = checkpoint.build_model(device)
        answerer = open_answerer(model, videos, features, opt, device, store, windows, ranks)
    asker = Asker(model, answerer, videos, text_model, opt, ranks)
    answers = asker.ask(sentences, opt.top_k)
    if ranks.is_main:
        path = Path(opt.model_dir) / f"inference_{opt.dset_name}_{opt.eval_split_name}_{opt.eval_id}_answers.json"
        write_answers(path, answers, opt.eval_split_name, text_model)
        print_answers(answers)
        print(f"{len(sentences)} sentences over {len(videos)} videos: {path}")
    return asker


def _load_checkpoint(opt: EasyDict, ranks: Ranks) -> Checkpoint:
    checkpoint = load_model_of(opt)
    if ranks.is_main:
        ensure_dataset(opt)
    ranks.barrier()
    return checkpoint


def _how_encoded(opt: EasyDict, checkpoint: Checkpoint) -> tuple[CorpusStore | None, Windows | None]:
    """Where videos are encoded already, if they are, and how long ones are cut, if they are."""
    if opt.encoded_corpus is None:
        return None, chosen_windows(opt, checkpoint.config.conv_kernel_size)
    store = open_store(opt, checkpoint)
    return store, store.recipe.windows


def _check_store(store: CorpusStore, videos: Sequence[Video], split_name: str) -> None:
    """Refuse an encoded corpus that lacks some of the split's videos, and say when it has others."""
    store.require(videos)
    others = len(store) - len(videos)
    if others:
        print(f"note: {store.folder}: {others} of its videos are not in {split_name}: not searched", file=sys.stderr)


def _tasks(opt: EasyDict, split: EvalSplit) -> list[str]:
    if split.has_ground_truth:
        return list(opt.tasks or TASKS)
    if "SVMR" in (opt.tasks or ()):
        raise InputError(
            f"{opt.eval_path}: SVMR looks for the moment in a given video, but the queries of {split.name} name none: "
            "leave SVMR out of --tasks"
        )
    return list(opt.tasks or [task for task in TASKS if task != "SVMR"])


@command_line
def main() -> None:
    """Command line of inference."""
    opt = parse_inference_options()
    enough = named_when_out_of_memory(opt, EVALUATION_MEMORY if opt.encoded_corpus is None else SEARCH_MEMORY)
    n = processes_to_launch(opt.device_ids)
    if n > 1:
        launch(sys.argv, n)
    with started(opt.device, opt.device_ids, opt.tf32) as (ranks, device), enough:
        if opt.query is not None or opt.query_file is not None:
            run_asking(opt, ranks, device)
        else:
            run_inference(opt, ranks, device)


if __name__ == "__main__":
    main()
