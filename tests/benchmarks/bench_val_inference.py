"""Inference on a whole split, stage by stage: videos and queries encoded, three tasks, NMS, files and metrics.

    python utils/mini_tvr.py --annotations data --out FEATURES --splits val --vid_feat_size 3072 --text_feat_size 768
    python tests/benchmarks/bench_val_inference.py --annotations data --features FEATURES [any option of inference]

With TVR's own annotations and features made for them, this is its real scale. The model is a fresh one unless
`--model_dir` names a trained one. Peak memory is that of this process, and of the
largest of its workers.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from method_tvr.config import parse_train_options
from tests.benchmarks.common import benchmark_parser, start
from tests.benchmarks.staged_inference import as_argv, borrow_model, make_fresh_model, measure_inference
from utils.basic_utils import command_line
from utils.dataset_files import durations_path, release_path
from utils.mini_corpus.files import query_feature_path, sub_feature_path, video_feature_path

SPLIT = "val"


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
    corpus = feature_options(args)
    with tempfile.TemporaryDirectory() as folder:
        if args.model_dir:
            borrow_model(Path(folder), args.model_dir)
        else:
            sizes = {"dset_name": "tvr", "exp_id": "benchmark", "hidden_size": args.hidden_size}
            make_fresh_model(Path(folder), parse_train_options(as_argv({**sizes, **corpus})))
        typed = {"model_dir": folder, "device": args.device, "nms_thd": args.nms_thd, "eval_split_name": SPLIT}
        measure_inference(report, stopwatch.device, [*as_argv({**typed, **corpus}), *more])
    report.finish(args.json)


if __name__ == "__main__":
    main()
