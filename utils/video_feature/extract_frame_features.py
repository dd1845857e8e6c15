"""Features of single frames, such as ResNet-152's: videos -> {video: (frames, D)}.

    python utils/video_feature/extract_frame_features.py --videos DIR --out frames.h5 --model resnet152

`convert_feature_frm_to_clip.py` makes clip features of them. Stopped at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from utils.basic_utils import command_line
from utils.feature_files.provenance import made_with
from utils.feature_files.resumable_features import Scalar
from utils.model_utils import choose_device, named_when_out_of_memory
from utils.video_feature.command import add_video_options, check_batch_size, finish
from utils.video_feature.frames import find_videos
from utils.video_feature.image_models import LAYERS, POOLED, ImageModel, centre_crop, load_image_model
from utils.video_feature.pipeline import Looking, Report, extract_each

SCRIPT = "utils/video_feature/extract_frame_features.py"
PACKAGES = ("torch", "torchvision", "timm", "av", "numpy")
FRAME_RATE = 3.0
BATCH_SIZE = 32


def extract(
    videos: Mapping[str, str | os.PathLike[str]],
    model: ImageModel,
    out_h5: str | os.PathLike[str],
    frame_rate: float = FRAME_RATE,
    folder_rate: float | None = None,
    batch_size: int = BATCH_SIZE,
    decode_threads: int = 0,
) -> Report:
    """Write `{name: (n, D)}`: row k belongs to the frame shown at (k + 0.3) / frame_rate seconds.

    Args:
        videos: {name: video file, or folder of pictures}.
        model: see `load_image_model`.
        out_h5: the feature file; another run with the same model and rate goes on with it.
        frame_rate: frames a second.
        folder_rate: pictures a second in folders; frame_rate if None.
        batch_size: frames that go through the model at once.
        decode_threads: 0 for as many as there are cores.

    Raises:
        InputError: an option has no meaning, or nothing can be written there. What is wrong with a video is in the
            report.
    """
    check_batch_size(batch_size)
    crop, preparation = model.preparation.crop, model.preparation

    def batches(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        crops = (centre_crop(frame, crop) for frame in frames)
        while batch := list(islice(crops, batch_size)):
            yield np.stack(batch)

    looking = Looking(frame_rate, preparation.resize, batches, folder_rate, decode_threads)
    properties: dict[str, Scalar] = {
        "model": model.name,
        "weights": model.weights,
        "layer": model.layer,
        "frame_rate": float(frame_rate),
        "normalised": "none",
        "value_range": preparation.value_range,
    }
    recipe = {**properties, "folder_rate": float(folder_rate or frame_rate), "preparation": str(preparation)}
    return extract_each(videos, looking, model, out_h5, recipe, made_with(SCRIPT, "video", PACKAGES, **properties))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_video_options(parser, FRAME_RATE, BATCH_SIZE, "frames that go through the model at once")
    add = parser.add_argument_group("model").add_argument
    add("--model", default="resnet152", help="resnet152, torchvision/NAME or timm/NAME; default resnet152")
    add("--weights", help="file with its state dict; by default the library downloads what it has")
    add("--layer", default=POOLED, choices=LAYERS, help="pool5 goes into the classifier; others: ResNets' maps, flat")
    return parser


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this module; see `--help`."""
    args = _parser().parse_args(argv)
    videos = find_videos(args.videos)
    with named_when_out_of_memory(vars(args), ("batch_size",)):
        model = load_image_model(args.model, args.weights, args.layer, choose_device(args.device))
        report = extract(
            videos, model, args.out, args.frame_rate, args.folder_rate, args.batch_size, args.decode_threads
        )
    finish(report, args.out, args.durations)


if __name__ == "__main__":
    main()
