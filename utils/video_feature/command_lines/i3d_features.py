"""The command line of extract_i3d_features.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from utils.video_feature.command_lines.video_options import add_video_options

FRAME_RATE, BATCH_SIZE = 15.0, 4
VALUE_RANGES = {"[0,1]": (1 / 255, 0.0), "[-1,1]": (2 / 255, -1.0)}  # (scale, shift) of bytes


def options(doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the program; `doc` is what --help says."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_video_options(parser, FRAME_RATE, BATCH_SIZE, "windows that go through the model at once")
    add = parser.add_argument_group("model").add_argument
    add("--weights", required=True, help="state dict (.pt, .pth), or TensorFlow's variables (.npz)")
    add("--clip_length", type=float, default=1.5, help="seconds a clip; default %(default)s")
    add(
        "--value_range",
        default="[0,1]",
        choices=VALUE_RANGES,
        help="of pixels; default [0,1] as for TVR's features, although the public weights were trained on [-1,1]",
    )
    return parser.parse_args(argv)
