"""What options say together: defaults that depend on others, and values that do not go together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from easydict import EasyDict

from method_tvr.dataset.clip_times import AUTO, AVERAGE, CUT, WINDOWS
from method_tvr.dset_configs import DATASETS, MODALITIES, DatasetConfig
from method_tvr.options.found import EXPORTS
from method_tvr.options.models import LABEL_RULES, LONG_VIDEOS, UNTRAINED, XML
from method_tvr.options.row import INFERENCE, SEARCH, SERVE, Option
from method_tvr.options.saved import FILES
from method_tvr.options.values import CERTIFIED, CTX_MODES, FAISS, KINDS, PROVING_KINDS, USUAL_KIND
from standalone_eval.metrics import LEAST_RIGHT, Rule
from standalone_eval.ranking.ndcg import NDCG
from utils.basic_utils import InputError

Settings = TypeVar("Settings")

DATASET_PROPERTIES = ("clip_length", "label_rule", "min_pred_l", "max_pred_l", "final_nms_thd", "several")
XML_ALONE = ("no_merge_two_stream", "no_cross_att", "no_modular")  # switches of XML that ReLoCLNet does not have
CONTEXT_PATHS = {"video": "vid_feat_path", "sub": "sub_bert_path"}


def dataset_of(opt: EasyDict) -> DatasetConfig:
    """The dataset's entry."""
    return DATASETS[opt.dset_name]


def ensure_dataset(opt: EasyDict) -> None:
    """Generate the dataset on first use, if it can be and the options name a file of it."""
    dataset_of(opt).ensure(opt[name] for name in FILES if opt[name])


def finish(opt: EasyDict, typed: Collection[str], keep_without_eval: bool = False) -> None:
    """Fill in what depends on the dataset and on other options, where these are None.

    `keep_without_eval` leaves out the dataset's own evaluation annotations.
    """
    _name_device(opt, typed)
    dataset = dataset_of(opt)
    opt.eval_split_name = dataset.split_name(opt.eval_split_name)
    if opt.vid_feat_type is None and dataset.video_files:
        opt.vid_feat_type = next(iter(dataset.video_files))
    parts = opt.ctx_mode.split("_")
    defaults: dict[str, Any] = {name: getattr(dataset, name) for name in DATASET_PROPERTIES}
    defaults |= {name: list(getattr(dataset, name)) for name in ("iou_thds", "recall_ks")}
    defaults["label_rule"] = LABEL_RULES.get((opt.model, dataset.label_rule), dataset.label_rule)
    defaults |= dataset.default_paths(opt.eval_split_name, opt.vid_feat_type, with_sub="sub" in parts)
    if keep_without_eval:
        defaults.pop("eval_path", None)
    for name, value in defaults.items():
        if opt.get(name) is None:
            opt[name] = value
    if opt.long_videos is None:
        opt.long_videos = AVERAGE if opt.clip_length == AUTO else LONG_VIDEOS[opt.model]
    for modality, name in CONTEXT_PATHS.items():
        if modality not in parts:
            opt[name] = None  # not read, whatever was typed
    if opt.stop_task == NDCG and "eval_tasks_at_training" not in typed:  # queries of graded moments name no video
        opt.eval_tasks_at_training = [task for task in opt.eval_tasks_at_training if task != "SVMR"]
    if opt.debug:
        opt.num_workers = 0
        opt.no_core_driver = True
    if opt.no_core_driver:
        opt.feature_cache = "disk"


def _name_device(opt: EasyDict, typed: Collection[str]) -> None:
    """Let one device in `--device_ids` be the one of `--device`, which may ask for the CPU still."""
    if "device_ids" not in typed or len(opt.device_ids) > 1 or opt.device < 0:
        return
    (number,) = opt.device_ids
    if "device" in typed and opt.device not in (0, number):  # 0 asked the original for CUDA, whichever device
        raise InputError(f"--device {opt.device}, but --device_ids {number}: leave one of them out")
    opt.device = number


def check(options: Mapping[str, Option], opt: EasyDict) -> None:
    """Refuse options of any program that are out of bounds, or do not go together."""
    for name, option in options.items():
        option.check(opt[name])
    _check_together(opt)


def _check_together(opt: EasyDict) -> None:
    parts = opt.ctx_mode.split("_")
    if set(parts) - {*MODALITIES, "tef"} or len(set(parts)) != len(parts):
        raise InputError(
            f"--ctx_mode {opt.ctx_mode}: expected video, sub and tef joined by _, each once at most: one of "
            f"{', '.join(CTX_MODES)}"
        )
    if not set(MODALITIES) & set(parts):
        raise InputError(
            f"--ctx_mode {opt.ctx_mode}: tef only says where in its video a clip lies, the same in every video, so "
            "that there would be nothing to find: add video or sub to it"
        )
    if opt.conv_kernel_size % 2 == 0 or opt.conv_stride != 1:
        raise InputError("--conv_kernel_size must be odd and --conv_stride 1: the model needs one logit per clip")
    if not 0 <= opt.min_pred_l < opt.max_pred_l:
        raise InputError(f"--min_pred_l {opt.min_pred_l} must be at least 0 and below --max_pred_l {opt.max_pred_l}")
    if not any(opt[name] for name in ("lw_neg_q", "lw_neg_ctx", "lw_st_ed", "lw_fcl", "lw_vcl")):
        raise InputError(
            "--lw_neg_q, --lw_neg_ctx, --lw_st_ed, --lw_fcl and --lw_vcl are all 0: nothing would be learnt"
        )
    if opt.hidden_size % opt.n_heads:
        raise InputError(f"--hidden_size {opt.hidden_size} is not a multiple of --n_heads {opt.n_heads}")
    if opt.long_videos == CUT and opt.clip_length == AUTO:
        raise InputError(
            f"--long_videos {CUT}: clips of --clip_length {AUTO} are shares of whole videos: give {AVERAGE}"
        )
    if opt.model != XML and (asked := [name for name in XML_ALONE if opt[name]]):
        raise InputError(f"--{asked[0]}: is of XML: leave it out, or give --model xml")
    _check_files(opt)


def _check_files(opt: EasyDict) -> None:
    """Refuse context that the dataset does not have, and files that it does not name where no option does."""
    dataset, parts = dataset_of(opt), opt.ctx_mode.split("_")
    if "sub" in parts and opt.sub_bert_path is None and not dataset.subtitles:
        raise InputError(
            f"--ctx_mode {opt.ctx_mode}: {dataset.name} has no subtitles: give video_tef or video, or --sub_bert_path"
        )
    if "video" in parts and opt.vid_feat_path is None and dataset.video_files:
        raise InputError(
            f"--vid_feat_type {opt.vid_feat_type}: {dataset.name} has {', '.join(dataset.video_files)}: give one of "
            "these, or --vid_feat_path"
        )
    needed = ["video_duration_idx_path", "desc_bert_path", *(CONTEXT_PATHS[m] for m in MODALITIES if m in parts)]
    missing = [f"--{name}" for name in needed if opt[name] is None]
    if missing:
        raise InputError(f"{' and '.join(missing)} missing: {dataset.name} has no files of its own: say where they lie")


def check_training(opt: EasyDict) -> None:
    """Refuse a new run that has nothing to train on, or nothing to choose its best epoch by."""
    if opt.train_path is None and opt.model not in UNTRAINED:
        raise InputError(f"--train_path is missing: {opt.dset_name} has no files of its own")
    if opt.long_videos == WINDOWS:
        raise InputError(f"--long_videos {WINDOWS}: is for searching with a trained model: give {AVERAGE} or {CUT}")
    if opt.stop_task == NDCG and "SVMR" in opt.eval_tasks_at_training:
        raise InputError(f"--eval_tasks_at_training SVMR: goes with one right moment, not with --stop_task {NDCG}")
    if ("VCMR" if opt.stop_task == NDCG else opt.stop_task) not in opt.eval_tasks_at_training:
        raise InputError(
            f"--stop_task {opt.stop_task} is not among --eval_tasks_at_training "
            f"{' '.join(opt.eval_tasks_at_training)}: add it there, or let another task decide"
        )


def check_program(opt: EasyDict, typed: Collection[str], program: str) -> None:
    """Refuse what inference, a search or a server cannot do, or not together."""
    if opt.encoded_corpus is not None and "retrieval_dtype" in typed:
        raise InputError(
            f"--retrieval_dtype {opt.retrieval_dtype}: {opt.encoded_corpus} is kept in the number type that it was "
            "encoded with: leave the option out"
        )
    asked = opt.query is not None or opt.query_file is not None
    if opt.external_inference_vr_res_path is not None and (program != INFERENCE or opt.long_videos == WINDOWS or asked):
        raise InputError(
            f"--external_inference_vr_res_path {opt.external_inference_vr_res_path}: names videos for the queries of a "
            "split: ask inference.sh for these, and without --long_videos windows"
        )
    if program == INFERENCE:
        for_asking = {"top_k", "text_model", "videos", *EXPORTS} & set(typed)
        if asked and "tasks" in typed:
            raise InputError(
                "--tasks: are those of the split's queries, which --query is asked instead of: leave one out"
            )
        if not asked and for_asking:
            raise InputError(f"--{min(for_asking)}: is for sentences that are asked: give --query or --query_file too")
    else:
        _check_index(opt)
    if program == SERVE and asked:
        raise InputError("--query and --query_file are inference.sh's: ask the server once it runs")
    _check_found(opt, program)


def _check_found(opt: EasyDict, program: str) -> None:
    """Refuse to keep what is found where nothing is asked, and to cut videos that are nowhere."""
    if opt.videos is not None and not Path(opt.videos).is_dir():
        raise InputError(f"--videos {opt.videos}: is no folder: name the one with the videos' files")
    if program == SERVE:
        return
    if opt.save_clips is not None and opt.videos is None:
        raise InputError(f"--save_clips {opt.save_clips}: give --videos DIR too, the folder with the videos' files")
    if opt.videos is not None and opt.save_clips is None:
        raise InputError(f"--videos {opt.videos}: is what --save_clips DIR cuts: give that too, or leave it out")
    if program == SEARCH and opt.measure_index is not None and (kept := [name for name in EXPORTS if opt[name]]):
        raise InputError(f"--{kept[0]}: is of sentences that are asked, not of --measure_index: leave one of them out")


def _check_index(opt: EasyDict) -> None:
    """Refuse what an index cannot do."""
    kinds = KINDS.get(opt.index, ())  # of an index of candidates
    kind = opt.index_kind or USUAL_KIND.get(opt.index)
    if kinds and opt.long_videos == WINDOWS:
        raise InputError(f"--index {opt.index}: misses windows of long videos: give --index certified, or leave it out")
    if kinds and kind not in kinds:
        raise InputError(f"--index_kind {kind}: --index {opt.index} has no such kind: give one of {', '.join(kinds)}")
    if opt.prove and (opt.index != FAISS or kind not in PROVING_KINDS):
        raise InputError(
            f"--prove: is of --index {FAISS} with --index_kind {', '.join(PROVING_KINDS)}: give these, or --index "
            f"{CERTIFIED}, which finds what an exact search finds by itself"
        )


def settings_of(kind: type[Settings], opt: EasyDict) -> Settings:
    """The options that a dataclass has fields for, by their names: what one part of the program knows of `opt`."""
    return kind(**{field.name: opt[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def evaluation_rule(opt: EasyDict) -> Rule:
    """What counts as right, and the recalls that are reported."""
    return Rule(opt.iou_thds, opt.recall_ks, least_right=LEAST_RIGHT[opt.several])
