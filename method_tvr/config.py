"""Every option once: name, default, help, bounds, and where it comes from; and the options of a program's run.

A run's options are one EasyDict, `opt`, whose entries are what opt.json records. What was typed, {name: value}, goes
before them; then come opt.json, the dataset and defaults, and all of it is checked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from easydict import EasyDict

from method_tvr.dataset.clip_times import AUTO, AVERAGE, LABEL_RULES, LONG_VIDEOS
from method_tvr.dset_configs import DATASETS, VID_FEAT_TYPES
from method_tvr.options import rules
from method_tvr.options.found import FOUND
from method_tvr.options.models import MODELS, RECIPES, RELOCLNET, STARTS
from method_tvr.options.own_corpus import look_everywhere
from method_tvr.options.published import find_corpus, find_model
from method_tvr.options.resumed import resumed_options
from method_tvr.options.row import (
    ABOVE_0,
    ABOVE_0_AT_MOST_1,
    ALL_PROGRAMS,
    FROM_0_BELOW_1,
    FROM_0_TO_1,
    INFERENCE,
    MOVABLE,
    NOT_NEGATIVE,
    NOT_NEGATIVE_OR_OFF,
    OWN,
    SAVED,
    SEARCH,
    SERVE,
    TRAIN,
    UNSHARED,
    Bounds,
    Group,
    NumberOr,
    Option,
    Table,
    as_typed,
    needing_memory,
    options_of,
    typed,
)
from method_tvr.options.rules import dataset_of
from method_tvr.options.saved import check_name_part, keep_to_known_places, load_known
from method_tvr.options.settings_file import read_settings
from method_tvr.options.values import CTX_MODES, INDEX_KINDS, INDEXES, NUMBERED, OFF, SHOWN_NMS_THD, SPAN_INITS, TASKS
from standalone_eval.check import MAX_PRED
from standalone_eval.metrics import AGREE, SEVERAL
from standalone_eval.ranking.ndcg import NDCG
from utils.basic_utils import InputError, StrPath

MAX_Q2C_ALPHA = 80  # exp of it, times a cosine of at most 1, is still a float32

# fmt: off
OPTIONS: Table = (
    Group("general", ALL_PROGRAMS, (
        Option("dset_name", None, "dataset; names its paths and properties", choices=sorted(DATASETS)),
        Option("eval_split_name", "val", "split to evaluate; of TVR and mini, test means test_public",
               check_name_part, inference=OWN),
        Option("debug", False, "a few batches only, no workers, features from disk", inference=OWN),
        Option("data_ratio", 1.0, "use the first fraction of the training queries", ABOVE_0_AT_MOST_1),
        Option("results_root", "results", "folder that results folders are made in", inference=UNSHARED,
               on_resume=True),
        Option("exp_id", None, "name of this run, part of its results folder's name", check_name_part),
        Option("seed", 2018, "seed of all sources of chance", NOT_NEGATIVE),
        Option("device", 0, "CUDA device, -1 for the CPU", inference=OWN, on_resume=True),
        Option("device_ids", NUMBERED, "CUDA devices of several processes; more than one starts a process for each, "
               "as NGPU=N or torchrun do. One alone is used as --device names it", nargs="+", inference=UNSHARED,
               on_resume=True),
        Option("num_workers", 8, "processes that read features from disk, 0: the main one does", NOT_NEGATIVE,
               inference=OWN, on_resume=True),
        Option("feature_cache", "auto", "where features are while the run needs them: disk reads the h5 files item by "
               "item; ram packs them once into a cache beside each h5 and maps it; device holds them where the model "
               "is; auto is device on a GPU where they fit beside the training, else ram",
               choices=("auto", "disk", "ram", "device"), inference=OWN, on_resume=True, memory=(INFERENCE, 5)),
        Option("cache_dtype", "float32", "number type of packed features", choices=("float32", "float16")),
        Option("feature_cache_dir", None, "folder for the caches of packed features (default: beside each h5)",
               inference=OWN, on_resume=True),
        Option("no_core_driver", False, "the same as --feature_cache disk", inference=OWN, on_resume=True),
        Option("no_pin_memory", False, "do not use pinned memory when copying to CUDA", inference=OWN, on_resume=True),
    )),
    Group("training", ALL_PROGRAMS, (
        Option("settings", None, "json of options, as utils/extract_features.sh writes it; what is typed wins",
               inference=UNSHARED, metavar="FILE"),
        Option("recipe", None, "options by one name; steady: learns from the first epoch whatever the seed "
               "(--span_init edge --all_negatives --bias_correction; wants a larger --lr)", choices=sorted(RECIPES)),
        Option("lr", 1e-4, "peak learning rate", NOT_NEGATIVE),
        Option("lr_warmup_proportion", 0.01, "share of all steps over which lr grows", NOT_NEGATIVE),
        Option("wd", 0.01, "weight decay", NOT_NEGATIVE),
        Option("bias_correction", False, "Adam's, which the published optimiser lacks; it wants a larger --lr"),
        Option("n_epoch", 100, "most epochs", ABOVE_0),
        Option("max_es_cnt", 10, "stop after more than this many epochs without a better one, -1: never",
               NOT_NEGATIVE_OR_OFF),
        Option("stop_task", "VCMR", "decides which epoch is best; NDCG: of graded moments", choices=(*TASKS, NDCG)),
        Option("eval_tasks_at_training", list(TASKS), "tasks evaluated after each epoch", choices=TASKS, nargs="+"),
        Option("bsz", 128, "batch size in training", ABOVE_0, memory=(TRAIN, 1)),
        Option("eval_query_bsz", 50, "queries answered at a time", ABOVE_0, inference=OWN, on_resume=True),
        Option("eval_context_bsz", 200, "videos encoded at a time", ABOVE_0, inference=OWN, on_resume=True,
               memory=(SEARCH, 2)),
        Option("eval_untrained", False, "evaluate once before training"),
        Option("grad_clip", OFF, "clip the global gradient norm, -1: off", NOT_NEGATIVE_OR_OFF, type=float),
        Option("save_every", 200, "steps until last.ckpt is saved again, 0: only around evaluations",
               Bounds("not be negative; 0 saves around evaluations only", lambda x: x >= 0), inference=UNSHARED,
               on_resume=True),
        Option("resume", None, "go on with a run that was stopped: its results folder as a path, a name under "
               "results_root, or a pattern of either; other options come from its opt.json", metavar="MODEL_DIR",
               inference=UNSHARED, on_resume=True),
        Option("detect_anomaly", False, "name the operation that a NaN comes from, at half the speed",
               inference=UNSHARED, on_resume=True),
    )),
    Group("losses", ALL_PROGRAMS, (
        Option("margin", 0.1, "margin of the hinge ranking loss", NOT_NEGATIVE),
        Option("lw_neg_q", 1, "weight of the ranking loss with a negative query", NOT_NEGATIVE, type=float),
        Option("lw_neg_ctx", 1, "weight of the ranking loss with a negative video", NOT_NEGATIVE, type=float),
        Option("lw_st_ed", 0.01, "weight of the span loss", NOT_NEGATIVE),
        Option("lw_fcl", 0.03, "weight of FrameCL", NOT_NEGATIVE),
        Option("lw_vcl", 0.03, "weight of VideoCL", NOT_NEGATIVE),
        Option("train_span_start_epoch", 0, "epoch from which the span loss counts, -1: never", NOT_NEGATIVE_OR_OFF),
        Option("ranking_loss_type", "hinge", "form of the ranking loss", choices=("hinge", "lse")),
        Option("hard_negative_start_epoch", 20, "epoch from which negatives are hard, -1: never", NOT_NEGATIVE_OR_OFF,
               alias="hard_negtiave_start_epoch"),
        Option("hard_pool_size", 20, "hard negatives are drawn among this many best-scored ones", ABOVE_0),
        Option("all_negatives", False, "ranking loss with all negatives of the batch, not with one drawn, hard or not"),
        Option("mask_same_query", False, "TVR-Ranking's pairs: those of one query are not each other's negatives"),
        Option("clamp_similarity", False, "TVR-Ranking's pairs: a similarity below 0 counts as 0"),
    )),
    Group("data", ALL_PROGRAMS, (
        Option("max_sub_l", 50, "recorded only"),
        Option("max_desc_l", 30, "most tokens of a query", ABOVE_0),
        Option("max_ctx_l", 128, "most clips of a video (default with XML: 100)", ABOVE_0),
        Option("long_videos", None, "videos of more clips: averaged down (ReLoCLNet's), cut off (XML's) or, to search, "
               "in overlapping windows that are each searched as a video, with right times", choices=LONG_VIDEOS),
        Option("train_path", None, "training annotations, jsonl (default: the dataset's)", on_resume=True),
        Option("eval_path", None, "annotations to evaluate on, jsonl (default: the dataset's)", inference=OWN,
               on_resume=True),
        Option("desc_bert_path", None, "query features, h5 (default: the dataset's)",
               inference=MOVABLE, on_resume=True),
        Option("sub_bert_path", None, "subtitle features, h5 (default: the dataset's)",
               inference=MOVABLE, on_resume=True),
        Option("vid_feat_path", None, "video features, h5 (default: the dataset's for --vid_feat_type)",
               inference=MOVABLE, on_resume=True),
        Option("vid_feat_type", None, "which of the dataset's video features (default: its first, resnet_i3d for TVR)",
               choices=VID_FEAT_TYPES),
        Option("video_duration_idx_path", None, "video2dur_idx json (default: the dataset's)",
               inference=MOVABLE, on_resume=True),
        Option("sub_feat_size", None, "subtitle feature size without tef (default: read from the file)", type=int),
        Option("q_feat_size", None, "query feature size (default: read from the file)", type=int),
        Option("vid_feat_size", None, "video feature size without tef (default: read from the file)", type=int),
        Option("ctx_mode", CTX_MODES[0], "what context is made of: video, sub (subtitles) or both, and maybe tef "
               "(where in its video a clip lies), joined by _; files of what it leaves out are not read"),
        Option("no_norm_vfeat", False, "do not L2-normalise video features"),
        Option("no_norm_tfeat", False, "do not L2-normalise query and subtitle features"),
        Option("clip_length", None, "seconds of a clip, or auto: each video's duration divided by its number of "
               "clips, after averaging down (default: the dataset's)", ABOVE_0, type=NumberOr(AUTO),
               metavar="SECONDS"),
        Option("label_rule", None, "clips that a moment is labelled with: TVR's, or those whose IoU with it is best "
               "(default: the dataset's)", choices=LABEL_RULES),
    )),
    Group("model", ALL_PROGRAMS, (
        Option("model", RELOCLNET, "ReLoCLNet; XML, which it grew from; or zero_shot, which is not trained: vectors of "
               "an encoder of images and text are compared", choices=MODELS),
        Option("sub_weight", 0.5, "zero_shot: what is said weighs so much, what is seen 1", FROM_0_TO_1),
        Option("span_margin", 1.0, "zero_shot: deviations above its video's mean from which a clip is in a moment"),
        Option("span_sharpness", 1.0, "zero_shot: how much a clip's deviation from that tells", ABOVE_0),
        Option("no_merge_two_stream", False, "XML: predict spans from each modality, and average the logits"),
        Option("no_cross_att", False, "XML: modalities do not attend to each other"),
        Option("no_modular", False, "XML: a query is the maximum over its tokens"),
        Option("max_position_embeddings", 300, "recorded only"),
        Option("hidden_size", 384, "D", ABOVE_0),
        Option("n_heads", 8, "attention heads", ABOVE_0),
        Option("input_drop", 0.1, "dropout of projections and positions", FROM_0_BELOW_1),
        Option("drop", 0.1, "dropout inside the attention blocks", FROM_0_BELOW_1),
        Option("conv_kernel_size", 5, "kernel of the start and end predictors, odd", ABOVE_0),
        Option("conv_stride", 1, "must be 1"),
        Option("initializer_range", 0.02, "standard deviation of initial weights", NOT_NEGATIVE),
        Option("span_init", SPAN_INITS[0], "what the kernels of the start and end predictors begin as: drawn, an "
               "impulse on the clip itself, or a detector of edges", choices=SPAN_INITS),
    )),
    Group("prediction", ALL_PROGRAMS, (
        Option("min_pred_l", None, "fewest clips from start to end boundary (default: the dataset's, 2 for TVR)",
               type=int, inference=OWN),
        Option("max_pred_l", None, "spans are shorter than this many clips (default: the dataset's, 16 for TVR)",
               type=int, inference=OWN),
        Option("q2c_alpha", 30, "video scores weigh exp(q2c_alpha * score)",
               Bounds(f"be within 0 and {MAX_Q2C_ALPHA}: beyond, scores overflow", lambda x: 0 <= x <= MAX_Q2C_ALPHA),
               type=float),
        Option("max_before_nms", 200, "spans kept per query; see --nms_from_all", ABOVE_0),
        Option("max_vcmr_video", 100, "videos per query in which moments are looked for", ABOVE_0),
        Option("nms_from_all", False, "NMS sees all max_before_nms spans, not just the 100 of the reference",
               inference=OWN),
        Option("final_nms_thd", None, "NMS of the evaluation that ends training (default: the dataset's)",
               NOT_NEGATIVE_OR_OFF, type=float),
        Option("iou_thds", None, "IoUs that recalls are reported at (default: the dataset's)", ABOVE_0_AT_MOST_1,
               type=float, nargs="+"),
        Option("recall_ks", None, "k of the recalls at k (default: the dataset's)",
               Bounds(f"be from 1 to {MAX_PRED}", lambda x: 0 < x <= MAX_PRED), type=int, nargs="+"),
        Option("several", None, "queries with several moments: any of them is right, and training draws one each "
               "epoch; or, from four on, two have to agree, and training takes the one that agrees most with all "
               "(default: the dataset's, any for custom)", choices=SEVERAL),
    )),
    Group("prediction after NMS", (TRAIN, INFERENCE), (
        Option("nms_thd", OFF, "additionally write predictions after temporal NMS at this IoU, -1: off",
               NOT_NEGATIVE_OR_OFF, type=float, inference=OWN),
    )),
    Group("speed; what is off by default changes numbers, README.md says how much", ALL_PROGRAMS, (
        Option("trim_padding", False, "compute nothing for padded clips", negatable=True, memory=(INFERENCE, 6)),
        Option("cuda_graph", "auto",
               "training steps as CUDA graphs: the same numbers without waiting for the host; auto: where that can be",
               choices=("auto", "on", "off"), inference=UNSHARED, on_resume=True),
        Option("amp", "off", "precision of the encoders in training", choices=("off", "bf16"), memory=(TRAIN, 7)),
        Option("tf32", False, "let CUDA round the factors of float32 products and convolutions to TF32", inference=OWN),
        Option("retrieval_dtype", "fp32", "precision of the searched corpus", choices=("fp32", "bf16", "fp16"),
               inference=OWN, memory=(INFERENCE, 4)),
        Option("retrieval_bsz", 256, "queries searched at a time; memory grows with it", ABOVE_0, inference=OWN,
               on_resume=True, memory=(SEARCH, 3)),
    )),
    Group("inference", (INFERENCE, SEARCH, SERVE), (
        Option("model_dir", None, "results folder: a path, a name under results_root, or a pattern of either; or a "
               "published model: its folder, or org/name[@revision] on the Hugging Face hub",
               required=True),
        Option("eval_id", None, "name of this evaluation, part of the file names (default: the model folder's exp_id)",
               check_name_part),
        Option("tasks", None, "what to predict (default: all that the split allows)", choices=TASKS, nargs="+"),
        Option("encoded_corpus", None, "search the split's videos in this folder, which encode.sh wrote, or in a data "
               "repository on the hub, org/name[@revision], instead of encoding them", metavar="CORPUS_DIR"),
        Option("external_inference_vr_res_path", None, "look for moments in the videos that another system found: "
               "those of VR in this prediction file, in its order and with its scores", inference=UNSHARED,
               metavar="FILE.json"),
        Option("query", None, "ask this instead of the split's queries; repeatable", metavar="SENTENCE",
               repeatable=True),
        Option("query_file", None, "ask these, one sentence a line", metavar="FILE.txt"),
        Option("top_k", 10, "moments shown for each --query", ABOVE_0),
        Option("text_model", None, "encodes each --query: the language model that made the query features (default: "
               "the one on record, once you have said yes to it; the mini corpus needs none)",
               metavar="NAME_OR_FOLDER"),
    )),
    *FOUND,
    Group("search", (SEARCH,), (
        Option("sentences", [], "what to look for; without any, you are asked", metavar="SENTENCE", nargs="*"),
        Option("query_image", None, "a picture, or a short clip, that what is looked for looks like; repeatable; of a "
               "zero_shot model of images and text", metavar="FILE", repeatable=True),
        Option("json", False, "for programs: print answers as JSON, with all overlapping moments unless --nms_thd is "
               "typed"),
        Option("scores", False, "also print the numbers that moments are ranked by"),
        Option("video", None, "look in this video alone", metavar="NAME"),
        Option("show", None, "look in the videos whose names begin with this one, as in friends_s01e01_…",
               metavar="NAME"),
        Option("measure_index", None,
               "instead of asking: how much an exact search of N of the split's queries finds that the index does not",
               ABOVE_0, type=int, metavar="N"),
    )),
    Group("serve", (SERVE,), (
        Option("host", "127.0.0.1", "address to listen at; by default only this machine reaches it"),
        Option("port", 7860, "port to listen at, 0: any that is free",
               Bounds(f"be from 1 to {2**16 - 1}, or 0 for any that is free", lambda x: 0 <= x < 2**16)),
        Option("allow_host", None, "name that this server goes by besides those of this machine; repeatable",
               metavar="NAME", repeatable=True),
        Option("token_file", None, "file with a token that page and API ask for: a line of 16 letters or more",
               metavar="FILE"),
        Option("subtitles", None, "jsonl with the videos' subtitles, to be read (default: the dataset's, if any)",
               metavar="FILE"),
        Option("predictions", None,
               "prediction file of the split to learn from (default: the newest one in the model's folder)",
               metavar="FILE"),
        Option("max_queue", 256, "sentences that may wait; what comes then is refused", ABOVE_0),
        Option("max_rate", 20, "requests a second of one client, 0: any; twice as many in a burst",
               Bounds("not be negative; 0 refuses nobody", lambda x: x >= 0), type=float),
    )),
    Group("shown moments", (SEARCH, SERVE), (
        Option("nms_thd", None, "of moments of a video whose IoU is above this show only the best, -1: show all "
               f"(default: {SHOWN_NMS_THD}; for programs, which are --json and the HTTP API: -1)",
               NOT_NEGATIVE_OR_OFF, type=float, inference=OWN),
    )),
    Group("index", (SEARCH, SERVE), (
        Option("index", INDEXES[0], "exact looks at all videos; certified proves the same from fewer bytes; faiss "
               "and milvus look where clips are near the sentence (method_tvr/search/index/requirements.txt)",
               choices=INDEXES),
        Option("index_kind", None, "what --index faiss (default: ivfsq) or milvus (ivf) keeps of clips: see README.md",
               choices=INDEX_KINDS),
        Option("trust_index", False, "of --index faiss: use an index in a folder that other users own or can write to"),
        Option("index_uri", None, "of --index milvus: a local file.db, or http://host:port of a server",
               metavar="FILE_OR_ADDRESS"),
        Option("index_token", None, "of --index milvus: what a server asks for, user:password or an API key"),
        Option("pq_bytes", 48, "of --index_kind ivfpq: bytes of a compressed clip, of each modality", ABOVE_0),
        Option("candidate_clips", 3072, "nearest clips that an index is asked for, in each modality", ABOVE_0),
        Option("candidate_videos", 250, "videos that are scored, the best that these clips are of", ABOVE_0),
        Option("probes", 256, "cells that an index looks into, or how much further a graph is followed", ABOVE_0),
        Option("prove", False, "of --index faiss: look further until it is proved that an exact search finds the same"),
    )),
)
# fmt: on

BEFORE_RECORDED = {"several": AGREE, "long_videos": AVERAGE}  # what runs were made with whose opt.json does not say
CHANGEABLE_ON_RESUME = frozenset(option.name for group in OPTIONS for option in group.options if option.on_resume)
# what decides how much memory of the device is needed
SEARCH_MEMORY = needing_memory(OPTIONS, SEARCH)
EVALUATION_MEMORY = needing_memory(OPTIONS, INFERENCE)
TRAINING_MEMORY = needing_memory(OPTIONS, TRAIN)
RESUMED_MEMORY = [name for name in TRAINING_MEMORY if name in CHANGEABLE_ON_RESUME]


def parse_train_options(argv: Sequence[str] | None = None) -> EasyDict:
    """Options of a training run, typed by default on the program's command line, with the dataset's defaults filled in.

    An `InputError` if options are missing or do not go together.
    """
    options, given = options_of(OPTIONS, TRAIN), typed(OPTIONS, TRAIN, argv)
    opt = _with_defaults(options, given)
    if opt.resume is not None:
        return resumed_options(options, opt, given, BEFORE_RECORDED)
    if not opt.exp_id:
        raise InputError("--exp_id is missing: name this run, for example --exp_id reloclnet")
    if opt.dset_name is None:
        raise InputError(f"--dset_name is missing: one of {', '.join(sorted(DATASETS))}")
    dataset = dataset_of(opt)
    settings = read_settings(opt.settings, options)
    model = given.get("model") or settings.get("model") or opt.model
    opt.recipe = given.get("recipe") or settings.get("recipe")
    usual = {**STARTS[model], **dataset.recipe, **RECIPES.get(opt.recipe, {}), **settings}
    opt.update({name: value for name, value in usual.items() if name not in given})
    if dataset.recipe_note:
        values = " ".join(f"--{name} {opt[name]}" for name in dataset.recipe)
        print(f"note: the recipe of {dataset.name}, {values}, {dataset.recipe_note}", file=sys.stderr)
    # a dataset's own evaluation annotations would not fit other training files
    rules.finish(opt, given, keep_without_eval="train_path" in given and "eval_path" not in given)
    rules.check(options, opt)
    rules.check_training(opt)
    return opt


def parse_inference_options(argv: Sequence[str] | None = None, program: str = INFERENCE, /, **values: Any) -> EasyDict:
    """Options of inference, a search or a server: typed ones, then those of the model folder's opt.json, then defaults.

    Args:
        argv: the command line, by default the program's.
        program: `INFERENCE`, `SEARCH` or `SERVE`.
        **values: the program's own, before which typed ones go.

    Raises:
        InputError: no such model folder, or options do not go together.
    """
    return _inference_options(program, as_typed(OPTIONS, program, values) | typed(OPTIONS, program, argv))


def inference_options(model_dir: StrPath, program: str = INFERENCE, /, **values: Any) -> EasyDict:
    """What `parse_inference_options` gives where values are typed; None is as if it was not.

    An `InputError` if there is no such option or model folder, or values cannot be typed or do not go together.
    """
    return _inference_options(program, as_typed(OPTIONS, program, {"model_dir": model_dir, **values}))


def final_inference_options(opt: EasyDict) -> EasyDict:
    """Options of the evaluation that ends a training run: its own as far as opt.json does not say them, and NMS too."""
    values = {name: opt[name] for name, one in options_of(OPTIONS, TRAIN).items() if one.inference in (MOVABLE, OWN)}
    values |= {"nms_thd": opt.final_nms_thd, "tasks": opt.eval_tasks_at_training}
    return inference_options(opt.results_dir, **values)


def _with_defaults(options: Mapping[str, Option], given: Mapping[str, Any]) -> EasyDict:
    return EasyDict({**{name: option.default for name, option in options.items()}, **given})


def _inference_options(program: str, given: Mapping[str, Any]) -> EasyDict:
    options = options_of(OPTIONS, program)
    opt = _with_defaults(options, given)
    opt.model_dir = find_model(opt.model_dir, opt.results_root)
    saved = BEFORE_RECORDED | load_known(opt.model_dir, options_of(OPTIONS, TRAIN))
    for name, value in saved.items():
        if options[name].inference in (SAVED, MOVABLE) and name not in given:
            opt[name] = value
    if opt.dset_name not in DATASETS:
        raise InputError(f"{opt.model_dir}/opt.json: dset_name {opt.dset_name!r} is unknown: give --dset_name")
    dataset = dataset_of(opt)
    if dataset.root is None:  # which spans to look for is said nowhere else
        opt.update({name: saved.get(name) for name in ("min_pred_l", "max_pred_l") if name not in given})
    if "eval_path" not in given:
        splits = {dataset.split_name(name) for name in (saved.get("eval_split_name", ""), opt.eval_split_name)}
        opt.eval_path = saved.get("eval_path") if len(splits) == 1 else None
    if program in (SEARCH, SERVE):
        look_everywhere(opt, saved, given)
    opt.encoded_corpus = find_corpus(opt.encoded_corpus, opt.results_root)
    opt.eval_id = opt.eval_id or opt.exp_id
    rules.check_program(opt, given, program)
    rules.finish(opt, given)
    rules.check(options, opt)
    keep_to_known_places(opt, saved, {*given, "train_path"}, opt.model_dir)  # inference reads no training queries
    return opt
