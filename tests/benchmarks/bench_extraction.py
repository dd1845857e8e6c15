"""Features from video files: decoding alone, the model alone, both at once; and memory against a video's length.

python tests/benchmarks/bench_extraction.py [--model resnet152]

Weights are drawn: speed does not depend on them. The videos are real ones, and for memory one of those over and over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import nn
from torchvision import models

from tests.benchmarks.common import AnswersDiffer, Report, Stopwatch, benchmark_parser, start
from tests.support.video_files import real_video, write_video
from utils.basic_utils import command_line
from utils.feature_files.feature_file import FeatureFile
from utils.video_feature.extract_frame_features import LOOKING, extract
from utils.video_feature.extract_i3d_features import I3DModel
from utils.video_feature.frames import open_video
from utils.video_feature.i3d import I3D
from utils.video_feature.image_models import ImageModel, load_image_model
from utils.video_feature.pipeline import Looking
from utils.video_feature.sampling import Resize, centre_crop

SOURCES = ("bikes", "bigbuckbunny")  # 640 x 272 and 1280 x 720
SAME_ROW = 1e-4  # of features, relative to the largest
MEMORY_SIZE = 2048  # of the features whose memory is measured
MEMORY_CHILD = """
import sys
from tests.benchmarks.bench_extraction import extract_colours
extract_colours(sys.argv[1], sys.argv[2])
status = open("/proc/self/status").read()  # getrusage would count what the parent had before the child began
print(int(status.partition("VmHWM:")[2].split()[0]) / 2**20)
"""


def macs(net: nn.Module, x: torch.Tensor) -> float:
    """Multiply-adds of a network's convolutions and linear layers for an input."""
    total = 0.0

    def count(layer: Any, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    kinds = (nn.Conv2d, nn.Conv3d, nn.Linear)
    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, kinds)]
    with torch.inference_mode():
        net(x)
    for hook in hooks:
        hook.remove()
    return total


def drawn_model(name: str, folder: Path, device: torch.device) -> ImageModel:
    """A model of torchvision's with drawn weights."""
    path = folder / "weights.pth"
    torch.save(models.get_model(name.removeprefix("torchvision/"), weights=None).state_dict(), path)
    return load_image_model(name, path, device=device)


def decode_all(path: Path) -> int:
    """Decode a video with PyAV, and do nothing with it; returns how many frames there were."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        return sum(1 for _ in container.decode(stream))


def decoded_first(path: Path, model: ImageModel, frame_rate: float, batch: int) -> np.ndarray:
    """Features of a video: it is decoded, and then its frames go through the model."""
    preparation = model.preparation
    frames = open_video(path).frames(frame_rate, preparation.resize)
    crops = np.stack([centre_crop(frame, preparation.crop) for _, frame in frames])
    return np.concatenate([model(crops[at : at + batch]) for at in range(0, len(crops), batch)])


class Colours:
    """Stands in for a model, so that memory is that of all the rest: repeats a picture's mean colour."""

    name, layer, weights, size = "colours", "pool5", "none", MEMORY_SIZE

    def __init__(self, model: ImageModel) -> None:
        self.preparation, self.also = model.preparation, model.also

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        colour = frames.mean((1, 2, 3), dtype=np.float32)
        return np.repeat(colour[:, None], MEMORY_SIZE, axis=1)


def extract_colours(video: str, out_h5: str) -> None:
    """What a child process does whose memory is measured."""
    with tempfile.TemporaryDirectory() as folder:
        model = Colours(drawn_model("torchvision/resnet18", Path(folder), torch.device("cpu")))
    extract({"video": video}, model, out_h5)  # type: ignore[arg-type]


def looped_frames(n_frames: int) -> Iterator[np.ndarray]:
    """Frames (68, 160, 3) of a real video, over and over."""
    short = [frame for _, frame in open_video(real_video("bikes")).frames(25.0, Resize(68))]
    return islice(cycle(frame[:, :160] for frame in short), n_frames)


def measure_frames(
    report: Report, stopwatch: Stopwatch, model: ImageModel, args: argparse.Namespace, folder: Path
) -> None:
    """The steps of a video's way to its features, each alone, and all at once."""
    side, copies, rate = model.preparation.crop, args.copies, args.frame_rate
    batch = np.random.default_rng(0).integers(0, 256, (args.batch, side, side, 3), np.uint8)
    floor = macs(model._net, torch.zeros(1, 3, side, side, device=stopwatch.device))
    timing, _ = stopwatch.time(lambda: model(batch))
    report.add(f"{model.name} alone", timing, args.batch, "frames", floor * args.batch, f"batches of {args.batch}")
    for name in args.sources:
        path = real_video(name)
        timing, n_frames = stopwatch.time(lambda path=path: decode_all(path))  # type: ignore[misc]
        report.add(f"{name}, decoding alone", timing, n_frames, "frames decoded")
        frames = open_video(path)
        timing, taken = stopwatch.time(
            lambda frames=frames: sum(1 for _ in frames.frames(rate, model.preparation.resize))  # type: ignore[misc]
        )
        report.add(f"{name}, decoding, {rate:g} a second resized", timing, n_frames, "frames decoded")
        timing, plain = stopwatch.time(lambda path=path: decoded_first(path, model, rate, args.batch), 1, False)  # type: ignore[misc]
        note = f"{taken} frames through the model"
        report.add(f"{name}, decoded, then through the model", timing, n_frames, "frames decoded", floor * taken, note)

        def extracted(path: Path = path, name: str = name) -> np.ndarray:
            out = Path(tempfile.mkdtemp(dir=folder)) / "frames.h5"
            extract({f"{name}_{copy}": path for copy in range(copies)}, model, out, Looking(rate, args.batch))
            with FeatureFile(out) as features:
                return features.read(f"{name}_{copies - 1}")

        timing, rows = stopwatch.time(extracted, 1, False)
        check_same(name, rows, plain)
        note = f"{copies} videos, {taken} frames each through the model, rows equal"
        report.add(f"{name}, extraction", timing, copies * n_frames, "frames decoded", floor * taken * copies, note)


def check_same(name: str, rows: np.ndarray, plain: np.ndarray) -> None:
    """Raise `AnswersDiffer` unless features are equal up to rounding."""
    if rows.shape != plain.shape or not np.abs(rows - plain).max() <= SAME_ROW * np.abs(plain).max():
        raise AnswersDiffer(f"{name}: features are not those of decoding first")


def measure_i3d(report: Report, stopwatch: Stopwatch, n_windows: int) -> None:
    """Windows of TVR's size through I3D."""
    net = I3D()
    windows = np.random.default_rng(0).integers(0, 256, (n_windows, 23, 224, 224, 3), np.uint8)
    floor = macs(net, torch.zeros(1, 3, 23, 224, 224)) * n_windows
    model = I3DModel(net, stopwatch.device)
    timing, _ = stopwatch.time(lambda: model(windows), warm_up=False)
    report.add("i3d alone", timing, n_windows, "windows", floor, "23 frames each, every 1.5 s of video")


def measure_memory(report: Report, stopwatch: Stopwatch, lengths: Sequence[int], folder: Path) -> None:
    """Peak memory of a process that extracts features of a video of each length."""
    for seconds in lengths:
        path = write_video(folder / f"{seconds}.mp4", frames=looped_frames(25 * seconds))
        command = [sys.executable, "-c", MEMORY_CHILD, str(path), str(folder / f"{seconds}.h5")]
        timing, done = stopwatch.time(
            lambda command=command: subprocess.run(command, capture_output=True, text=True, check=True),  # type: ignore[misc]
            1,
            False,
        )
        with FeatureFile(folder / f"{seconds}.h5") as features:
            rows = features.read("video")
        if len(rows) != seconds * LOOKING.frame_rate:
            raise AnswersDiffer(f"{seconds} s of video gave {len(rows)} rows")
        note = f"{float(done.stdout):.2f} GiB at most, {rows.nbytes / 2**30:.3f} of them features; no model"
        report.add(f"{seconds} s of video, 160 x 68", timing, 25 * seconds, "frames decoded", note=note)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=3)
    add = parser.add_argument_group("sizes").add_argument
    add("--model", default="resnet152", help="resnet152 or torchvision/NAME")
    add("--copies", type=int, default=3, help="videos that are extracted at once")
    add("--sources", nargs="+", default=SOURCES, choices=SOURCES, help="which videos")
    add("--frame_rate", type=float, default=LOOKING.frame_rate, help="frames a second that are looked at")
    add("--batch", type=int, default=LOOKING.batch_size, help="frames that go through the model at once")
    add("--windows", type=int, default=2, help="windows through I3D, 0: none")
    add(
        "--lengths",
        type=int,
        nargs="*",
        default=[10, 600, 3600],
        help="seconds of the videos that memory is measured on",
    )
    args = parser.parse_args(argv)

    report, stopwatch = start(
        "extraction", f"features of videos with {args.model}, {args.frame_rate:g} frames a second", args
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = drawn_model(args.model, folder, stopwatch.device)
        measure_frames(report, stopwatch, model, args, folder)
        if args.windows:
            measure_i3d(report, stopwatch, args.windows)
        measure_memory(report, stopwatch, args.lengths, folder)
    report.finish(args.json)


if __name__ == "__main__":
    main()
