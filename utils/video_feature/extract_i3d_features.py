"""I3D features of clips: videos -> {video: (clips, 1024)}.

    python utils/video_feature/extract_i3d_features.py --videos DIR --out i3d.h5 --weights rgb_kinetics600.pt

As for TVR's, two overlapping windows of 23 frames are taken out of each 3 seconds, which are 45 frames. The names and
forms of weights that are understood are described in `i3d_weights.py`. Stopped at any moment, the same command goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.basic_utils import parse_first
from utils.video_feature.command_lines.i3d_features import BATCH_SIZE, FRAME_RATE, VALUE_RANGES, options

if __name__ == "__main__":
    parse_first(options, __doc__)

import numpy as np
import torch

from utils.basic_utils import InputError, StrPath, command_line
from utils.feature_files.provenance import weights_digest
from utils.feature_files.resumable_features import Scalar
from utils.model_utils import choose_device, named_when_out_of_memory
from utils.video_feature.i3d import I3D
from utils.video_feature.i3d_weights import load_i3d
from utils.video_feature.pipeline import (
    Extractor,
    Looking,
    Report,
    Videos,
    extract_each,
    finish,
    videos_of,
)
from utils.video_feature.sampling import Resize, centre_crop
from utils.video_feature.weights_file import without_counters

SCRIPT = "utils/video_feature/extract_i3d_features.py"
PACKAGES = ("torch", "av", "numpy")
LOOKING = Looking(FRAME_RATE, BATCH_SIZE)
SIDE = 224


class I3DModel:
    """I3D on a device; `weights` is the digest of its weights, `value_range` that of the pixels that it sees."""

    def __init__(self, net: I3D, device: torch.device, value_range: str = "[0,1]") -> None:
        if value_range not in VALUE_RANGES:
            raise InputError(f"--value_range {value_range}: is none of {', '.join(VALUE_RANGES)}")
        self.value_range, self.device = value_range, device
        self.weights = weights_digest(without_counters(net.state_dict()))
        self._net = net.eval().to(device)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """(B, T, 224, 224, 3) uint8, RGB -> (B, 1024) float32."""
        scale, shift = VALUE_RANGES[self.value_range]
        pixels = torch.from_numpy(windows).to(self.device).permute(0, 4, 1, 2, 3)
        with torch.inference_mode():
            found: np.ndarray = self._net(pixels * scale + shift).cpu().numpy()
        return found


def windows_of(frames: Iterator[np.ndarray], block: int) -> Iterator[np.ndarray]:
    """Two windows (ceil(block / 2), H, W, 3) of each `block` of frames (H, W, 3), 45 in TVR, which are two clips.

    They are its first half and its last, the middle frame of an odd number in both. A block at the end that is short is
    filled up by repeating its last frame.
    """
    length = -(-block // 2)
    while part := list(islice(frames, block)):
        part += part[-1:] * (block - len(part))
        yield np.stack(part[:length])
        yield np.stack(part[-length:])


def extract(
    videos: Videos,
    model: I3DModel,
    out_h5: StrPath,
    looking: Looking = LOOKING,
    clip_length: float = 1.5,
    parts: Sequence[StrPath] = (),
) -> Report:
    """Write `{name: (n, 1024)}`, see `extract_each`: row i belongs to clip i, of `clip_length` seconds.

    The number of rows is even; `merge_align_i3d` cuts them.

    Raises:
        InputError: clips have no frame in them, or nothing can be written there.
    """
    rate = looking.frame_rate
    if clip_length <= 0 or (block := round(2 * clip_length * rate)) < 2:
        raise InputError(f"--clip_length {clip_length}: clips have no frame in them at {rate:g} frames a second")
    properties: dict[str, Scalar] = {
        "model": "i3d",
        "weights": model.weights,
        "layer": "avg_pool",
        "frame_rate": float(rate),
        "clip_length": float(clip_length),
        "pooling": "avg",
        "normalised": "none",
        "value_range": model.value_range,
    }

    def windows(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        return windows_of((centre_crop(frame, SIDE) for frame in frames), block)

    extractor = Extractor(SCRIPT, PACKAGES, properties, Resize(SIDE), windows, model)
    return extract_each(videos, extractor, looking, out_h5, parts)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    args = options(__doc__, argv)
    looking, videos = Looking.of(args), videos_of(args)
    with named_when_out_of_memory(vars(args), ("batch_size",)):
        model = I3DModel(load_i3d(args.weights)[0], choose_device(args.device), args.value_range)
        report = extract(videos, model, args.out, looking, args.clip_length)
    finish(report, args.out, args.durations)


if __name__ == "__main__":
    main()
