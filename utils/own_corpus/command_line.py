"""The command line of extract_features.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from utils.dataset_files import SUBTITLES
from utils.video_feature.command_lines.i3d_features import VALUE_RANGES
from utils.video_feature.convert_feature_frm_to_clip import POOLS


def options(doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the program; `doc` is what --help says."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=form, allow_abbrev=False)
    add = parser.add_argument_group("what there is").add_argument
    add("--videos", required=True, metavar="DIR", help="video files, or folders of frames; its subfolders too")
    add(
        "--subtitles",
        metavar="DIR",
        help=".srt, .vtt, .ass or .json (whisper) files called as the videos; without it all is silent",
    )
    add("--queries", nargs="+", default=[], metavar="FILE", help="jsonl, csv or tsv of desc, vid_name, ts; README.md")
    add(
        "--queries_from",
        choices=[SUBTITLES],
        help="subtitle lines are queries, too; README.md",
    )
    add("--out", required=True, metavar="DIR", help="folder of the corpus; its name begins the names of all files")
    add("--val_share", type=float, default=0.2, help="of the videos with moments, for evaluation; default 0.2")
    add("--encoding", help="of subtitle files; default: UTF-8, byte order mark, else a guess for each")
    add("--folder_rate", type=float, help="pictures a second in folders; default: --frame_rate")
    add = parser.add_argument_group("models").add_argument
    joint = "hf/NAME for CLIP, SigLIP or SigLIP 2, a folder or a name on the hub"
    add("--image_model", default="resnet152", help=f"resnet152 (default), torchvision/NAME, timm/NAME; {joint}")
    add("--image_weights", metavar="FILE", help="its state dict; by default the library downloads what it has")
    add("--i3d_weights", metavar="FILE", help="adds I3D features with these weights (.pt, .pth, or .npz)")
    add("--i3d_value_range", choices=VALUE_RANGES, default="[0,1]", help="of the pixels that I3D sees; default [0,1]")
    text_model = "folder of a text encoder, or its name on the hub; hf/NAME, too"
    add("--text_model", default="roberta-base", help=f"{text_model}; %(default)s")
    add(
        "--layer",
        type=int,
        help="of the text model: -2 (default) the second to last; of CLIP and SigLIP the last alone",
    )
    add = parser.add_argument_group("features").add_argument
    add("--frame_rate", type=float, default=3.0, help="frames a second for the image model; default 3")
    add("--clip_length", type=float, default=1.5, help="seconds of a clip; default 1.5")
    pool = "how frames and tokens become clips; default max, with hf/ image models avg, the mean of unit vectors"
    add("--pool", choices=sorted(POOLS), help=pool)
    add = parser.add_argument_group("running").add_argument
    add("--device", type=int, default=0, help="CUDA device, -1 for the CPU; default 0")
    add("--image_batch_size", type=int, default=32, help="frames at a time; default 32")
    add("--i3d_batch_size", type=int, default=4, help="windows at a time; default 4")
    add("--text_batch_size", type=int, default=64, help="sentences at a time; default 64")
    add("--decode_threads", type=int, default=0, help="threads that decode; default 0: as many as there are cores")
    bf16 = "the text model, and an hf/ image model, compute in bfloat16: faster, features are rounded"
    add("--bf16", action="store_true", help=bf16)
    shard = "I/N: extract only every N-th video, from the I-th on; auto: as torchrun numbers its processes"
    add("--shard", metavar="I/N", help=f"{shard}; a run without it takes what all have extracted")
    remove = "remove NAME_intermediate at the end: saves disk, but a later run begins at the beginning"
    add("--remove_intermediate", action="store_true", help=remove)
    return parser.parse_args(argv)
