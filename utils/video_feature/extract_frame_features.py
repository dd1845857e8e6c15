"""Features of single frames, such as ResNet-152's: videos -> {video: (frames, D)}.

    python utils/video_feature/extract_frame_features.py --videos DIR --out frames.h5 --model resnet152

`convert_feature_frm_to_clip.py` makes clip features of them. Stopped at any moment, the same command goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.basic_utils import parse_first
from utils.video_feature.command_lines.frame_features import BATCH_SIZE, FRAME_RATE, options

if __name__ == "__main__":
    parse_first(options, __doc__)

import numpy as np

from utils.basic_utils import StrPath, command_line
from utils.feature_files.resumable_features import Scalar
from utils.model_utils import choose_device, named_when_out_of_memory
from utils.video_feature.image_models import ImageModel, load_image_model
from utils.video_feature.pipeline import (
    Extractor,
    Looking,
    Report,
    Videos,
    extract_each,
    finish,
    videos_of,
)

SCRIPT = "utils/video_feature/extract_frame_features.py"
PACKAGES = ("torch", "torchvision", "timm", "transformers", "av", "numpy")
LOOKING = Looking(FRAME_RATE, BATCH_SIZE)


def extract(
    videos: Videos, model: ImageModel, out_h5: StrPath, looking: Looking = LOOKING, parts: Sequence[StrPath] = ()
) -> Report:
    """Write `{name: (n, D)}`, see `extract_each`: row k belongs to the frame shown at (k + 0.3) / frame_rate seconds.

    An `InputError` if nothing can be written there. What is wrong with a video is in the report.
    """
    preparation = model.preparation
    properties: dict[str, Scalar] = {
        "model": model.name,
        "weights": model.weights,
        "layer": model.layer,
        "frame_rate": float(looking.frame_rate),
        "normalised": "none",
        "value_range": preparation.value_range,
        **model.also,
    }

    def crops(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        return (preparation.cut(frame) for frame in frames)

    also = {"preparation": str(preparation)}
    extractor = Extractor(SCRIPT, PACKAGES, properties, preparation.resize, crops, model, also)
    return extract_each(videos, extractor, looking, out_h5, parts)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    args = options(__doc__, argv)
    looking, videos = Looking.of(args), videos_of(args)
    with named_when_out_of_memory(vars(args), ("batch_size",)):
        model = load_image_model(args.model, args.weights, args.layer, choose_device(args.device), args.bf16)
        report = extract(videos, model, args.out, looking)
    finish(report, args.out, args.durations)


if __name__ == "__main__":
    main()
