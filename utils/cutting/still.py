"""One picture out of a video file: what is shown at a second of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.basic_utils import InputError
from utils.cutting.encoding import LateReader
from utils.cutting.looking import Packets, look_at
from utils.video_feature.decoding import Picture, check_decoder, opened, start_of
from utils.video_feature.sampling import Sizing, shown_at

_NEVER_BACK = "mp4"  # in FFmpeg's names of the format whose clock cannot go back, and which says where key frames lie


def frame_at(source: Path, time: float, resize: Sizing, check: Callable[[], None] = lambda: None) -> np.ndarray:
    """(H, W, 3) uint8 RGB: the frame that is shown at a second of a video, turned as the file asks for.

    It is decoded from the key frame before it on. Other formats than mp4 are read up to there, though not decoded:
    where recordings were joined in a file, nothing else tells how its clock goes on.

    Args:
        source: the video's file.
        time: seconds, as those of `video_feature.frames.open_video`; after the end it is the last frame.
        resize: how large it comes out.
        check: is called for each packet; what it raises ends the work.

    Raises:
        InputError: the file cannot be read, or nothing there can be decoded.
    """
    check_decoder()
    with opened(source, threads=1) as (container, stream):
        found = Packets(container.format.name, start_of(container, stream))
        if _NEVER_BACK in found.container.split(","):
            container.seek(round((time + found.zero) / stream.time_base), stream=stream)
        else:
            found = look_at(source, time, time, check)
        reader = LateReader(source, container, stream, found, check)
        picture = Picture(resize, stream.sample_aspect_ratio)
        for _, frame in shown_at([time], reader.frames(), lambda: reader.end):
            return picture.of(frame)
    raise InputError(f"{source}: holds no picture at {time:.2f} s that can be decoded: the file is damaged")
