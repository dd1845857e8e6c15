"""Options: the command line, a dataset's defaults and a saved opt.json, put together and checked; opt.json out and in.

Options reach the program as one EasyDict, `opt`, whose entries are what opt.json records.
"""

from __future__ import annotations

import argparse
import glob
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easydict import EasyDict

from method_tvr.dataset.clip_times import AUTO
from method_tvr.dset_configs import DATASETS, DatasetConfig
from method_tvr.model import MODALITIES
from method_tvr.options.declared import CHANGEABLE_ON_RESUME, CTX_MODES, NOT_INHERITED, OFF, WINDOWS, build_parser
from method_tvr.options.saved import check_name_part, check_saved, find_path, keep_to_known_places
from standalone_eval.check import MAX_PRED
from standalone_eval.metrics import Rule
from utils.basic_utils import PROJECT_ROOT, InputError, read_json, write_json

MAX_Q2C_ALPHA = 80  # exp of it, times a cosine of at most 1, is still a float32
DATASET_PROPERTIES = ("clip_length", "label_rule", "min_pred_l", "max_pred_l", "final_nms_thd")
CONTEXT_PATHS = {"video": "vid_feat_path", "sub": "sub_bert_path"}
LARGEST_NUMBER = 2**32  # numpy takes no larger seed


def _parse(
    argv: Sequence[str] | None, inference: bool, search: bool = False, serve: bool = False
) -> tuple[EasyDict, set[str]]:
    """All options with their defaults, and the names of those that were typed."""
    parser = build_parser(inference, search, serve)
    opt = EasyDict(vars(parser.parse_args(argv)))
    for action in parser._actions:
        action.default = argparse.SUPPRESS
        action.required = False
    typed = set(vars(parser.parse_args(argv)))
    return opt, typed


def parse_train_options(argv: Sequence[str] | None = None) -> EasyDict:
    """Options of a training run, with the dataset's defaults filled in.

    Raises:
        InputError: options are missing or do not go together.
    """
    opt, typed = _parse(argv, inference=False)
    if opt.resume is not None:
        return _resumed_options(opt, typed)
    if not opt.exp_id:
        raise InputError("--exp_id is missing: name this run, for example --exp_id reloclnet")
    if opt.dset_name is None:
        raise InputError(f"--dset_name is missing: one of {', '.join(sorted(DATASETS))}")
    _start_from_recipe(opt, typed)
    # a dataset's own evaluation annotations would not fit other training files
    own_corpus = "train_path" in typed and "eval_path" not in typed
    _finish(opt, typed, keep_without_eval=own_corpus)
    _check(opt)
    if opt.train_path is None:
        raise InputError(f"--train_path is missing: {opt.dset_name} has no files of its own")
    if opt.stop_task not in opt.eval_tasks_at_training:
        raise InputError(
            f"--stop_task {opt.stop_task} is not among --eval_tasks_at_training "
            f"{' '.join(opt.eval_tasks_at_training)}: add it there, or let another task decide"
        )
    return opt


def _start_from_recipe(opt: EasyDict, typed: set[str]) -> None:
    """Values that training on the dataset starts from, where nothing else was typed."""
    dataset = dataset_of(opt)
    opt.update({name: value for name, value in dataset.recipe.items() if name not in typed})
    if dataset.recipe_note:
        values = " ".join(f"--{name} {opt[name]}" for name in dataset.recipe)
        print(f"note: the recipe of {dataset.name}, {values}, {dataset.recipe_note}", file=sys.stderr)


def _resumed_options(opt: EasyDict, typed: set[str]) -> EasyDict:
    """Options of the run in the results folder `opt.resume`, changed by what was typed.

    `resume` and `results_dir` of what comes back are the folder.

    Raises:
        InputError: there is no such run, or something typed would make it another run.
    """
    folder = find_model_dir(opt.resume, opt.results_root)
    saved = _check_saved(load_options(folder), folder)
    changed = [name for name in sorted(typed - CHANGEABLE_ON_RESUME) if name in saved and opt[name] != saved[name]]
    if changed:
        raise InputError(
            f"--{changed[0]} {opt[changed[0]]}: the run in {folder} was started with {saved[changed[0]]}, and would be "
            "another one: leave the option out, or start a new run"
        )
    opt.update({name: value for name, value in saved.items() if name not in typed})
    if opt.dset_name not in DATASETS:
        raise InputError(f"{folder}/opt.json: dset_name {opt.dset_name!r} is unknown: mend the file")
    opt.resume = opt.results_dir = folder
    _finish(opt, typed, keep_without_eval=True)
    _check(opt)
    keep_to_known_places(opt, saved, typed, folder)
    return opt


def parse_search_options(argv: Sequence[str] | None = None) -> EasyDict:
    """Options of a search, found as those of an inference run are.

    Raises:
        InputError: no such model folder, or options do not go together.
    """
    opt = parse_inference_options(argv, search=True)
    _check_index(opt)
    if opt.measure_index is not None and opt.measure_index <= 0:
        raise InputError(f"--measure_index {opt.measure_index} must be above 0")
    return opt


def parse_serve_options(argv: Sequence[str] | None = None) -> EasyDict:
    """Options of a server, found as those of an inference run are.

    Raises:
        InputError: no such model folder, or options do not go together.
    """
    opt = parse_inference_options(argv, serve=True)
    _check_index(opt)
    if opt.query is not None or opt.query_file is not None:
        raise InputError("--query and --query_file are inference.sh's: ask the server once it runs")
    if not 0 <= opt.port < 2**16:
        raise InputError(f"--port {opt.port} must be from 1 to {2**16 - 1}, or 0 for any that is free")
    if opt.videos is not None and not Path(opt.videos).is_dir():
        raise InputError(f"--videos {opt.videos}: is no folder: name the one with the videos' files")
    if opt.max_queue <= 0:
        raise InputError(f"--max_queue {opt.max_queue} must be above 0")
    if opt.max_rate < 0:
        raise InputError(f"--max_rate {opt.max_rate} must not be negative; 0 refuses nobody")
    return opt


def _check_index(opt: EasyDict) -> None:
    for name in ("candidate_clips", "candidate_videos", "probes", "pq_bytes"):
        if opt[name] <= 0:
            raise InputError(f"--{name} {opt[name]} must be above 0")
    if opt.index != "exact" and opt.long_videos == WINDOWS:
        raise InputError(f"--index {opt.index}: windows of long videos are searched exactly: leave --index out")


def parse_inference_options(argv: Sequence[str] | None = None, search: bool = False, serve: bool = False) -> EasyDict:
    """Options of an inference run: typed ones, then those of the model folder's opt.json, then defaults.

    Args:
        argv: the command line, by default the program's.
        search, serve: whether it may have the options of a search, or of a server, too.

    Raises:
        InputError: no such model folder, or options do not go together.
    """
    opt, typed = _parse(argv, inference=True, search=search, serve=serve)
    opt.model_dir = find_model_dir(opt.model_dir, opt.results_root)
    saved = _check_saved(load_options(opt.model_dir), opt.model_dir)
    for name, value in saved.items():
        if name not in NOT_INHERITED and name not in typed:
            opt[name] = value
    if opt.dset_name not in DATASETS:
        raise InputError(f"{opt.model_dir}/opt.json: dset_name {opt.dset_name!r} is unknown: give --dset_name")
    if dataset_of(opt).root is None:  # which spans to look for is said nowhere else
        opt.update({name: saved.get(name) for name in ("min_pred_l", "max_pred_l") if name not in typed})
    split_name = dataset_of(opt).split_name
    if "eval_path" not in typed:
        same_split = split_name(saved.get("eval_split_name", "")) == split_name(opt.eval_split_name)
        opt.eval_path = saved.get("eval_path") if same_split else None
    opt.eval_id = opt.eval_id or opt.exp_id
    if opt.encoded_corpus is not None and "retrieval_dtype" in typed:
        raise InputError(
            f"--retrieval_dtype {opt.retrieval_dtype}: {opt.encoded_corpus} is kept in the number type that it was "
            "encoded with: leave the option out"
        )
    if not search and not serve:
        _check_asking(opt, typed)
    _finish(opt, typed)
    _check(opt)
    keep_to_known_places(opt, saved, {*typed, "train_path"}, opt.model_dir)  # inference reads no training queries
    return opt


def _check_asking(opt: EasyDict, typed: set[str]) -> None:
    """Options of sentences that are asked, instead of a split's queries."""
    asked = opt.query is not None or opt.query_file is not None
    if asked and "tasks" in typed:
        raise InputError("--tasks: are those of the split's queries, which --query is asked instead of: leave one out")
    if not asked and typed & {"top_k", "text_model"}:
        name = min(typed & {"top_k", "text_model"})
        raise InputError(f"--{name}: is for sentences that are asked: give --query or --query_file too")
    if opt.top_k <= 0:
        raise InputError(f"--top_k {opt.top_k} must be above 0")


def _check_saved(saved: dict[str, Any], model_dir: str) -> dict[str, Any]:
    """The options of training in opt.json, checked as those of the command line are."""
    return check_saved(saved, Path(model_dir) / "opt.json", build_parser(inference=False))


def _finish(opt: EasyDict, typed: set[str], keep_without_eval: bool = False) -> None:
    """Fill in what depends on the dataset and on other options."""
    _name_device(opt, typed)
    dataset = dataset_of(opt)
    opt.eval_split_name = dataset.split_name(opt.eval_split_name)
    if opt.vid_feat_type is None and dataset.video_files:
        opt.vid_feat_type = next(iter(dataset.video_files))
    parts = opt.ctx_mode.split("_")
    defaults: dict[str, Any] = {name: getattr(dataset, name) for name in DATASET_PROPERTIES}
    defaults |= {name: list(getattr(dataset, name)) for name in ("iou_thds", "recall_ks")}
    defaults |= dataset.default_paths(opt.eval_split_name, opt.vid_feat_type, with_sub="sub" in parts)
    if keep_without_eval:
        defaults.pop("eval_path", None)
    for name, value in defaults.items():
        if opt.get(name) is None:
            opt[name] = value
    for modality, name in CONTEXT_PATHS.items():
        if modality not in parts:
            opt[name] = None  # not read, whatever was typed
    if opt.debug:
        opt.num_workers = 0
        opt.no_core_driver = True
    if opt.no_core_driver:
        opt.feature_cache = "disk"


def _name_device(opt: EasyDict, typed: set[str]) -> None:
    """Let one device in `--device_ids` be the one of `--device`, which may ask for the CPU still."""
    if "device_ids" not in typed or len(opt.device_ids) > 1 or opt.device < 0:
        return
    (number,) = opt.device_ids
    if "device" in typed and opt.device not in (0, number):  # 0 asked the original for CUDA, whichever device
        raise InputError(f"--device {opt.device}, but --device_ids {number}: leave one of them out")
    opt.device = number


def _check(opt: EasyDict) -> None:
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
    if not 0 < opt.data_ratio <= 1:
        raise InputError(f"--data_ratio {opt.data_ratio} must be above 0 and at most 1")
    for name in (
        "bsz", "eval_query_bsz", "eval_context_bsz", "n_epoch", "max_ctx_l", "max_desc_l", "max_vcmr_video",
        "max_before_nms", "hard_pool_size", "clip_length", "retrieval_bsz", "hidden_size", "n_heads",
        "conv_kernel_size",
    ):  # fmt: skip
        if opt[name] != AUTO and opt[name] <= 0:
            raise InputError(f"--{name} {opt[name]} must be above 0")
    for name, value in opt.items():
        if isinstance(value, int | float) and not abs(value) < LARGEST_NUMBER:
            raise InputError(f"--{name} {value} is not a finite number below {LARGEST_NUMBER}")
    for name in ("exp_id", "eval_id", "eval_split_name"):
        check_name_part(name, opt.get(name) or "")
    for name in (
        "num_workers", "seed", "lr", "wd", "lr_warmup_proportion", "margin", "initializer_range", "lw_neg_q",
        "lw_neg_ctx", "lw_st_ed", "lw_fcl", "lw_vcl",
    ):  # fmt: skip
        if opt[name] < 0:
            raise InputError(f"--{name} {opt[name]} must not be negative")
    if not any(opt[name] for name in ("lw_neg_q", "lw_neg_ctx", "lw_st_ed", "lw_fcl", "lw_vcl")):
        raise InputError(
            "--lw_neg_q, --lw_neg_ctx, --lw_st_ed, --lw_fcl and --lw_vcl are all 0: nothing would be learnt"
        )
    for name in (
        "nms_thd", "final_nms_thd", "grad_clip", "max_es_cnt", "train_span_start_epoch", "hard_negative_start_epoch",
    ):  # fmt: skip
        if opt[name] < 0 and opt[name] != OFF:
            raise InputError(f"--{name} {opt[name]} must not be negative, except for {OFF}, which switches it off")
    if not 0 <= opt.q2c_alpha <= MAX_Q2C_ALPHA:
        raise InputError(f"--q2c_alpha {opt.q2c_alpha} must be within 0 and {MAX_Q2C_ALPHA}: beyond, scores overflow")
    if opt.save_every < 0:
        raise InputError(f"--save_every {opt.save_every} must not be negative; 0 saves around evaluations only")
    for name in ("drop", "input_drop"):
        if not 0 <= opt[name] < 1:
            raise InputError(f"--{name} {opt[name]} must be at least 0 and below 1")
    if opt.hidden_size % opt.n_heads:
        raise InputError(f"--hidden_size {opt.hidden_size} is not a multiple of --n_heads {opt.n_heads}")
    if not all(0 < iou_thd <= 1 for iou_thd in opt.iou_thds):
        raise InputError(f"--iou_thds {' '.join(map(str, opt.iou_thds))} must be above 0 and at most 1")
    if not all(0 < k <= MAX_PRED for k in opt.recall_ks):
        raise InputError(f"--recall_ks {' '.join(map(str, opt.recall_ks))} must be from 1 to {MAX_PRED}")
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


def dataset_of(opt: EasyDict) -> DatasetConfig:
    """The dataset's entry."""
    return DATASETS[opt.dset_name]


def evaluation_rule(opt: EasyDict) -> Rule:
    """What counts as right, and the recalls that are reported."""
    dataset = dataset_of(opt)
    return Rule(opt.iou_thds, opt.recall_ks, dataset.several_from, dataset.least_right)


def find_model_dir(model_dir: str, results_root: str) -> str:
    """The results folder that `model_dir` means: a path, a name under `results_root`, or a pattern of either.

    Of several matches the newest is taken, and said aloud.

    Raises:
        InputError: nothing matches.
    """
    bases = (Path(), find_path(results_root), PROJECT_ROOT / "method_tvr" / "results")
    for base in bases:
        if (base / model_dir).is_dir():
            return str(base / model_dir)
        pattern = model_dir if Path(model_dir).is_absolute() else f"{glob.escape(str(base))}/{model_dir}"
        matches = [path for path in map(Path, glob.glob(pattern)) if path.is_dir()]
        if matches:
            newest = max(matches, key=_started)
            if len(matches) > 1:
                print(f"{len(matches)} results folders match {model_dir}: taking the newest, {newest}")
            return str(newest)
    looked_in = ", ".join(str(base) for base in bases)
    raise InputError(
        f"{model_dir}: no such results folder (looked in {looked_in}): give a path or a name that is there"
    )


def _started(results_dir: Path) -> tuple[str, float]:
    """When a run began, by the end of its folder's name; folders named otherwise go by when they were changed."""
    time_in_name = re.search(r"\d{4}(_\d\d){5}$", results_dir.name)
    return time_in_name[0] if time_in_name else "", results_dir.stat().st_mtime


def load_options(model_dir: str) -> dict[str, Any]:
    """Read a results folder's opt.json.

    Raises:
        InputError: it is missing or not an object.
    """
    path = Path(model_dir) / "opt.json"
    saved = read_json(path, "give a results folder that training made, with opt.json and model.ckpt in it")
    if not isinstance(saved, dict):
        raise InputError(f"{path}: expected an object of options, found {type(saved).__name__}")
    return saved


def save_options(opt: EasyDict, results_dir: str | Path) -> None:
    """Write opt.json into the results folder."""
    write_json(dict(opt), Path(results_dir) / "opt.json", indent=True)
