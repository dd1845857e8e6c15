"""Which frame of a video is looked at when, and in which size: no video is opened here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, TypeVar

import numpy as np

T = TypeVar("T")

SAMPLE_OFFSET = 0.3  # TVR's frames, 3 a second, lie at n + {3, 13, 23}/30 s: (k + 0.3) / 3
TOLERANCE_S = 1e-3  # Matroska rounds timestamps to milliseconds

Interpolation = Literal["bilinear", "bicubic"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of each channel, of values in [0, 1]
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def sample_times(frame_rate: float) -> Iterator[float]:
    """Times in seconds at which a video is looked at, without end: frame k at (k + 0.3) / frame_rate."""
    return ((number + SAMPLE_OFFSET) / frame_rate for number in count())


def shown_at(
    times: Iterable[float], frames: Iterable[tuple[float, T]], end: Callable[[], float]
) -> Iterator[tuple[float, T]]:
    """(time, frame) for all rising times before the end, at least for the first: the last frame that is not later.

    Args:
        times: seconds. When they run out, the rest of the frames is left unread.
        frames: (timestamp in seconds, frame), rising. The first one is also shown before its time.
        end: gives, after the last frame, the second at which that is no longer shown.
    """
    unread = iter(frames)
    shown, following = next(unread, None), next(unread, None)
    for number, time in enumerate(times):
        while following is not None and following[0] <= time + TOLERANCE_S:
            shown, following = following, next(unread, None)
        if shown is None or (following is None and time >= end() and number):
            return
        yield time, shown[1]


@dataclass(frozen=True)
class Resize:
    """How large frames come out of the decoder."""

    shorter_side: int  # pixels; the longer one follows, so that shapes look as they are meant to
    interpolation: Interpolation = "bilinear"  # both look at all pixels when they make pictures smaller
    square: bool = False  # both sides get that length, whatever the shape

    def size(self, width: float, height: float) -> tuple[int, int]:
        """(width, height) of a frame that is meant to be seen as `width` x `height`; rounded as torchvision does."""
        if self.square:
            return self.shorter_side, self.shorter_side
        if width <= height:
            return self.shorter_side, max(self.shorter_side, int(self.shorter_side * height / width))
        return max(self.shorter_side, int(self.shorter_side * width / height)), self.shorter_side


@dataclass(frozen=True)
class PatchResize:
    """Frames as large as a number of square patches allows, of about their own shape: as SigLIP 2 "NaFlex" has them."""

    patch: int  # pixels, of a side
    most: int  # patches
    interpolation: Interpolation = "bilinear"

    def size(self, width: float, height: float) -> tuple[int, int]:
        """(width, height), multiples of a patch, of a frame that is meant to be seen as `width` x `height`.

        The largest scale is found by halving, as in transformers' `get_image_size_for_max_num_patches`, whose figures
        these are.
        """

        def scaled(scale: float) -> tuple[int, int]:
            across, down = (max(1, math.ceil(length * scale / self.patch)) for length in (width, height))
            return across, down

        least, most = 1e-6, 100.0
        while most - least >= 1e-5:
            scale = (least + most) / 2
            least, most = (scale, most) if math.prod(scaled(scale)) <= self.most else (least, scale)
        across, down = scaled(least)
        return across * self.patch, down * self.patch


@dataclass(frozen=True)
class Within:
    """Frames of their own shape that fit into a frame of so many pixels, and are made smaller alone."""

    width: int
    height: int
    interpolation: Interpolation = "bilinear"

    def size(self, width: float, height: float) -> tuple[int, int]:
        """(width, height) of a frame that is meant to be seen as `width` x `height`."""
        scale = min(self.width / width, self.height / height, 1.0)
        return max(1, round(width * scale)), max(1, round(height * scale))


Sizing = Resize | PatchResize | Within


@dataclass(frozen=True)
class Preparation:
    """What a model expects of a picture."""

    resize: Sizing
    crop: int | None  # side of the square that is then cut out of its middle; None for all of it
    mean: tuple[float, ...]  # of each channel, for values in [0, 1]
    std: tuple[float, ...]
    # whether the crop begins at the pixel before where its place lies between two, as in transformers; not in what an
    # extraction keeps of its making, so that those of earlier versions go on
    floors: bool = field(default=False, repr=False)

    @property
    def value_range(self) -> str:
        """Its name in the record of a feature file."""
        known: dict[object, str] = {IMAGENET: "imagenet", HALF: "[-1,1]", CLIP: "clip"}
        known[(0.0,) * 3, (1.0,) * 3] = "[0,1]"
        return known.get((self.mean, self.std), f"mean {self.mean} std {self.std}")

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """What the model sees of a frame (H, W, 3) that has been resized."""
        if self.crop is None:
            return frame
        return centre_crop(frame, self.crop, math.floor if self.floors else round)


def centre_crop(frame: np.ndarray, side: int, rounded: Callable[[float], int] = round) -> np.ndarray:
    """(side, side, 3) view of the middle of a frame (H, W, 3), both sides of which are as long at least.

    `rounded` says where it begins; the default is as torchvision does.
    """
    top, left = (rounded((length - side) / 2) for length in frame.shape[:2])
    return frame[top : top + side, left : left + side]
