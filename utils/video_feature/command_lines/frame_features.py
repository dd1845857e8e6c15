"""The command line of extract_frame_features.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from utils.video_feature.command_lines.video_options import add_video_options

FRAME_RATE, BATCH_SIZE = 3.0, 32
POOLED = "pool5"
# of torchvision's ResNets. res5c is the output of the last block, 2048x7x7. c3 is read as in feature pyramids, where C2
# to C5 are the outputs of conv2_x to conv5_x: 512x28x28. Maps are flattened, channels first.
MAPS = {"res5c": "layer4", "c3": "layer2"}
LAYERS = (POOLED, *MAPS)


def options(doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the program; `doc` is what --help says."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_video_options(parser, FRAME_RATE, BATCH_SIZE, "frames that go through the model at once")
    add = parser.add_argument_group("model").add_argument
    models = "resnet152 (default), torchvision/NAME, timm/NAME or hf/NAME (CLIP, SigLIP, SigLIP 2)"
    add("--model", default="resnet152", help=models)
    add("--weights", help="file with its state dict; by default the library downloads what it has")
    add("--layer", default=POOLED, choices=LAYERS, help="pool5 goes into the classifier; others: ResNets' maps, flat")
    add("--bf16", action="store_true", help="an hf/ model computes in bfloat16: faster, features are rounded")
    return parser.parse_args(argv)
