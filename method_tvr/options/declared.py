"""Every option once: name, default, help, and where it may be given."""

from __future__ import annotations

import argparse
from typing import Any

from method_tvr.dataset.clip_times import AUTO, LABEL_RULES
from method_tvr.dset_configs import DATASETS, VID_FEAT_TYPES

TASKS = ("VCMR", "SVMR", "VR")
CTX_MODES = ("video_sub_tef", "video_sub", "video_tef", "video", "sub_tef", "sub")  # parts may come in any order
OFF = -1  # value that switches an epoch, count or threshold off
NUMBERED = [0]  # --device_ids that name no device in particular: several processes take them in order
INDEXES = ("exact", "faiss", "milvus")
FAISS_KINDS = ("flat", "ivf", "ivfsq", "ivfpq")
AVERAGE, WINDOWS = "average", "windows"  # what becomes of videos of more than max_ctx_l clips

# what inference does not take over from the opt.json of training
NOT_INHERITED = frozenset(
    {
        "results_root", "num_workers", "nms_thd", "debug", "eval_split_name", "eval_path", "eval_query_bsz",
        "eval_context_bsz", "max_pred_l", "min_pred_l", "device", "device_ids", "no_core_driver", "no_pin_memory",
        "nms_from_all", "tf32", "retrieval_dtype", "retrieval_bsz", "feature_cache", "feature_cache_dir", "resume",
        "save_every", "detect_anomaly", "encoded_corpus", "cuda_graph",
    }
)  # fmt: skip

# what may be typed anew when a run is resumed: where it runs, how much it evaluates at a time, where its files are now,
# and how it is watched over
CHANGEABLE_ON_RESUME = frozenset(
    {
        "resume", "results_root", "device", "device_ids", "num_workers", "feature_cache", "feature_cache_dir",
        "eval_query_bsz", "eval_context_bsz", "retrieval_bsz", "no_core_driver", "no_pin_memory", "save_every",
        "detect_anomaly", "cuda_graph", "train_path", "eval_path", "desc_bert_path", "sub_bert_path",
        "vid_feat_path", "video_duration_idx_path",
    }
)  # fmt: skip

# what decides how much memory of the device is needed
EVALUATION_MEMORY = ("eval_context_bsz", "retrieval_bsz", "retrieval_dtype", "feature_cache", "trim_padding")
SEARCH_MEMORY = ("eval_context_bsz", "retrieval_bsz")
TRAINING_MEMORY = ("bsz", *EVALUATION_MEMORY, "amp")


class NumberOr:
    """The type of an option that is a number or a certain word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, text: str) -> float | str:
        return text if text == self.word else float(text)

    def __repr__(self) -> str:
        return f"number or {self.word}"  # argparse's messages say it

    def accepts(self, value: Any) -> bool:
        """Whether a saved value is of this type."""
        return value == self.word if isinstance(value, str) else type(value) in (int, float)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but for options whose help says in words where theirs comes from."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _general_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("general").add_argument
    add("--dset_name", choices=sorted(DATASETS), help="dataset; names its paths and properties")
    add("--eval_split_name", default="val", help="split to evaluate; of TVR and mini, test means test_public")
    add("--debug", action="store_true", help="a few batches only, no workers, features from disk")
    add("--data_ratio", type=float, default=1.0, help="use the first fraction of the training queries")
    add("--results_root", default="results", help="folder that results folders are made in")
    add("--exp_id", help="name of this run, part of its results folder's name")
    add("--seed", type=int, default=2018, help="seed of all sources of chance")
    add("--device", type=int, default=0, help="CUDA device, -1 for the CPU")
    add(
        "--device_ids",
        type=int,
        nargs="+",
        default=NUMBERED,
        help="CUDA devices of several processes; more than one starts a process for each, as NGPU=N or torchrun do. "
        "One alone is used as --device names it",
    )
    add("--num_workers", type=int, default=8, help="processes that read features from disk, 0: the main one does")
    add(
        "--feature_cache",
        choices=("auto", "disk", "ram", "device"),
        default="auto",
        help="where features are while the run needs them: disk reads the h5 files item by item; ram packs them once "
        "into a cache beside each h5 and maps it; device holds them where the model is; auto is device on a GPU where "
        "they fit beside the training, else ram",
    )
    add("--cache_dtype", choices=("float32", "float16"), default="float32", help="number type of packed features")
    add("--feature_cache_dir", help="folder for the caches of packed features (default: beside each h5)")
    add("--no_core_driver", action="store_true", help="the same as --feature_cache disk")
    add("--no_pin_memory", action="store_true", help="do not use pinned memory when copying to CUDA")


def _training_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    add("--lr", type=float, default=1e-4, help="peak learning rate")
    add("--lr_warmup_proportion", type=float, default=0.01, help="share of all steps over which lr grows")
    add("--wd", type=float, default=0.01, help="weight decay")
    add("--n_epoch", type=int, default=100, help="most epochs")
    add(
        "--max_es_cnt",
        type=int,
        default=10,
        help="stop after more than this many epochs without a better one, -1: never",
    )
    add("--stop_task", choices=TASKS, default="VCMR", help="task whose recall decides which epoch is best")
    add(
        "--eval_tasks_at_training",
        nargs="+",
        choices=TASKS,
        default=list(TASKS),
        help="tasks evaluated after each epoch",
    )
    add("--bsz", type=int, default=128, help="batch size in training")
    add("--eval_query_bsz", type=int, default=50, help="queries answered at a time")
    add("--eval_context_bsz", type=int, default=200, help="videos encoded at a time")
    add("--eval_untrained", action="store_true", help="evaluate once before training")
    add("--grad_clip", type=float, default=OFF, help="clip the global gradient norm, -1: off")
    add("--save_every", type=int, default=200, help="steps until last.ckpt is saved again, 0: only around evaluations")
    add(
        "--resume",
        metavar="MODEL_DIR",
        help="go on with a run that was stopped: its results folder as a path, a name under results_root, or a pattern "
        "of either; other options come from its opt.json",
    )
    add("--detect_anomaly", action="store_true", help="name the operation that a NaN comes from, at half the speed")


def _loss_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("losses").add_argument
    add("--margin", type=float, default=0.1, help="margin of the hinge ranking loss")
    add("--lw_neg_q", type=float, default=1, help="weight of the ranking loss with a negative query")
    add("--lw_neg_ctx", type=float, default=1, help="weight of the ranking loss with a negative video")
    add("--lw_st_ed", type=float, default=0.01, help="weight of the span loss")
    add("--lw_fcl", type=float, default=0.03, help="weight of FrameCL")
    add("--lw_vcl", type=float, default=0.03, help="weight of VideoCL")
    add("--train_span_start_epoch", type=int, default=0, help="epoch from which the span loss counts, -1: never")
    add("--ranking_loss_type", choices=("hinge", "lse"), default="hinge", help="form of the ranking loss")
    add("--hard_negative_start_epoch", type=int, default=20, help="epoch from which negatives are hard, -1: never")
    add("--hard_pool_size", type=int, default=20, help="hard negatives are drawn among this many best-scored ones")


def _data_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("data").add_argument
    add("--max_sub_l", type=int, default=50, help="recorded only")
    add("--max_desc_l", type=int, default=30, help="most tokens of a query")
    add("--max_ctx_l", type=int, default=128, help="most clips of a video; longer ones are averaged down")
    add("--train_path", help="training annotations, jsonl (default: the dataset's)")
    add("--eval_path", help="annotations to evaluate on, jsonl (default: the dataset's)")
    add("--desc_bert_path", help="query features, h5 (default: the dataset's)")
    add("--sub_bert_path", help="subtitle features, h5 (default: the dataset's)")
    add("--vid_feat_path", help="video features, h5 (default: the dataset's for --vid_feat_type)")
    add(
        "--vid_feat_type",
        choices=VID_FEAT_TYPES,
        help="which of the dataset's video features (default: its first, resnet_i3d for TVR)",
    )
    add("--video_duration_idx_path", help="video2dur_idx json (default: the dataset's)")
    add("--sub_feat_size", type=int, help="subtitle feature size without tef (default: read from the file)")
    add("--q_feat_size", type=int, help="query feature size (default: read from the file)")
    add("--vid_feat_size", type=int, help="video feature size without tef (default: read from the file)")
    add(
        "--ctx_mode",
        default=CTX_MODES[0],
        help="what context is made of: video, sub (subtitles) or both, and maybe tef (where in its video a clip "
        "lies), joined by _; files of what it leaves out are not read",
    )
    add("--no_norm_vfeat", action="store_true", help="do not L2-normalise video features")
    add("--no_norm_tfeat", action="store_true", help="do not L2-normalise query and subtitle features")
    add(
        "--clip_length",
        type=NumberOr(AUTO),
        metavar="SECONDS",
        help=f"seconds of a clip, or {AUTO}: each video's duration divided by its number of clips, after averaging "
        "down (default: the dataset's)",
    )
    add(
        "--label_rule",
        choices=LABEL_RULES,
        help="clips that a moment is labelled with: TVR's, or those whose IoU with it is best (default: the dataset's)",
    )


def _model_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("model").add_argument
    add("--max_position_embeddings", type=int, default=300, help="recorded only")
    add("--hidden_size", type=int, default=384, help="D")
    add("--n_heads", type=int, default=8, help="attention heads")
    add("--input_drop", type=float, default=0.1, help="dropout of projections and positions")
    add("--drop", type=float, default=0.1, help="dropout inside the attention blocks")
    add("--conv_kernel_size", type=int, default=5, help="kernel of the start and end predictors, odd")
    add("--conv_stride", type=int, default=1, help="must be 1")
    add("--initializer_range", type=float, default=0.02, help="standard deviation of initial weights")


def _prediction_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("prediction").add_argument
    add("--min_pred_l", type=int, help="fewest clips from start to end boundary (default: the dataset's, 2 for TVR)")
    add("--max_pred_l", type=int, help="spans are shorter than this many clips (default: the dataset's, 16 for TVR)")
    add("--q2c_alpha", type=float, default=30, help="video scores weigh exp(q2c_alpha * score)")
    add("--max_before_nms", type=int, default=200, help="spans kept per query; see --nms_from_all")
    add("--max_vcmr_video", type=int, default=100, help="videos per query in which moments are looked for")
    add(
        "--nms_thd",
        type=float,
        default=OFF,
        help="additionally write predictions after temporal NMS at this IoU, -1: off",
    )
    add(
        "--nms_from_all",
        action="store_true",
        help="NMS sees all max_before_nms spans, not just the 100 of the reference",
    )
    add("--final_nms_thd", type=float, help="NMS of the evaluation that ends training (default: the dataset's)")
    add("--iou_thds", type=float, nargs="+", help="IoUs that recalls are reported at (default: the dataset's)")
    add("--recall_ks", type=int, nargs="+", help="k of the recalls at k (default: the dataset's)")


def _speed_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "speed; what is off by default changes numbers, README.md says how much"
    ).add_argument
    add("--trim_padding", action=argparse.BooleanOptionalAction, default=False, help="compute nothing for padded clips")
    add(
        "--cuda_graph",
        choices=("auto", "on", "off"),
        default="auto",
        help="training steps as CUDA graphs: the same numbers without waiting for the host; auto: where that can be",
    )
    add("--amp", choices=("off", "bf16"), default="off", help="precision of the encoders in training")
    add("--tf32", action="store_true", help="let CUDA round the factors of float32 products and convolutions to TF32")
    add("--retrieval_dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="precision of the searched corpus")
    add("--retrieval_bsz", type=int, default=256, help="queries searched at a time; memory grows with it")


def _inference_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("inference").add_argument
    add("--model_dir", required=True, help="results folder: a path, a name under results_root, or a pattern of either")
    add("--eval_id", help="name of this evaluation, part of the file names (default: the model folder's exp_id)")
    add("--tasks", nargs="+", choices=TASKS, help="what to predict (default: all that the split allows)")
    add(
        "--encoded_corpus",
        metavar="CORPUS_DIR",
        help="search the split's videos in this folder, which encode_corpus.py wrote, instead of encoding them",
    )
    add(
        "--long_videos",
        choices=(AVERAGE, WINDOWS),
        default=AVERAGE,
        help="videos of more than max_ctx_l clips: averaged down, as in training, or cut into overlapping windows that "
        "are each searched as a video, so that times are right",
    )
    add("--query", action="append", metavar="SENTENCE", help="ask this instead of the split's queries; repeatable")
    add("--query_file", metavar="FILE.txt", help="ask these, one sentence a line")
    add("--top_k", type=int, default=10, help="moments shown for each --query")
    add(
        "--text_model",
        metavar="NAME_OR_FOLDER",
        help="encodes each --query: the language model that made the query features (default: the one on record, once "
        "you have said yes to it; the mini corpus needs none)",
    )


def _search_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("search").add_argument
    parser.add_argument("sentences", nargs="*", metavar="SENTENCE", help="what to look for; without any, you are asked")
    add("--json", action="store_true", help="print answers as JSON")
    add("--video", metavar="NAME", help="look in this video alone")
    add("--show", metavar="NAME", help="look in the videos whose names begin with this one, as in friends_s01e01_…")
    add(
        "--measure_index",
        type=int,
        metavar="N",
        help="instead of asking: how much an exact search of N of the split's queries finds that the index does not",
    )


def _index_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("index").add_argument
    add(
        "--index",
        choices=INDEXES,
        default=INDEXES[0],
        help="what names the videos that are scored: exact looks at all of them; faiss and milvus at those whose clips "
        "are near the sentence (method_tvr/search/index/requirements.txt)",
    )
    add("--index_kind", choices=FAISS_KINDS, default="ivfsq", help="of --index faiss: see README.md")
    add("--index_uri", metavar="FILE_OR_ADDRESS", help="of --index milvus: a local file.db, or http://host:port")
    add("--index_token", help="of --index milvus: what a cluster asks for, user:password or an API key")
    add("--pq_bytes", type=int, default=48, help="of --index_kind ivfpq: bytes of a compressed clip, of each modality")
    add("--candidate_clips", type=int, default=3072, help="nearest clips that an index is asked for, in each modality")
    add("--candidate_videos", type=int, default=250, help="videos that are scored, the best that these clips are of")
    add("--probes", type=int, default=256, help="cells or lists that an index looks into")


def _serve_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("serve").add_argument
    add("--host", default="127.0.0.1", help="address to listen at; by default only this machine reaches it")
    add("--port", type=int, default=7860, help="port to listen at, 0: any that is free")
    add("--videos", metavar="DIR", help="folder with the videos' files, such as NAME.mp4, to be shown")
    add(
        "--subtitles",
        metavar="FILE",
        help="jsonl with the videos' subtitles, to be read (default: the dataset's, if any)",
    )
    add(
        "--predictions",
        metavar="FILE",
        help="prediction file of the split to learn from (default: the newest one in the model's folder)",
    )
    add("--max_queue", type=int, default=256, help="sentences that may wait; what comes then is refused")
    add("--max_rate", type=float, default=20, help="requests a second of one client, 0: any; twice as many in a burst")


def build_parser(inference: bool, search: bool = False, serve: bool = False) -> argparse.ArgumentParser:
    """The command line of training or inference, the latter with the options of searching or serving if asked for."""
    parser = argparse.ArgumentParser(
        description="Inference with a trained model: an option typed here wins, else the model's opt.json"
        if inference
        else "Training of ReLoCLNet",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    for add_group in (
        _general_options, _training_options, _loss_options, _data_options, _model_options, _prediction_options,
        _speed_options,
    ):  # fmt: skip
        add_group(parser)
    if inference:
        _inference_options(parser)
    if search:
        _search_options(parser)
    if serve:
        _serve_options(parser)
    if search or serve:
        _index_options(parser)
    return parser
