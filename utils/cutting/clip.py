"""A moment cut out of a video file, as a file of its own whose times begin at 0.

    clip = cut_clip(Path("films/a.mkv"), 12.0, 19.5, Path("clips/1_a"))
    clip.path, clip.how  # clips/1_a.mkv, "copied"

Seconds are those of `video_feature.frames.open_video`. Where a key frame lies at the start the compressed pictures are
copied as they are, which takes no time and loses nothing. Elsewhere they are decoded, and encoded anew from exactly the
frame that is shown at the start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from utils.basic_utils import InputError, whole_file
from utils.cutting.containers import NotWrittenError, container_of
from utils.cutting.copying import can_be_copied, copy_packets
from utils.cutting.encoding import encode_frames
from utils.cutting.looking import Packets, look_at
from utils.video_feature.decoding import check_decoder
from utils.video_feature.frames import EARLY_END_S, VideoFile

COPIED, ENCODED = "copied", "encoded"


@dataclass(frozen=True)
class Clip:
    """A file with a moment in it, and how it was made: `COPIED` or `ENCODED`."""

    path: Path
    how: str


def cut_clip(source: Path, start: float, end: float, stem: Path, check: Callable[[], None] = lambda: None) -> Clip:
    """Cut the seconds from `start` to `end` out of a video, with the sound that a player chooses.

    Args:
        source: the video's file.
        stem: where the clip goes, without a suffix: that follows from the source.
        check: is called again and again; what it raises ends the work.

    Raises:
        InputError: the video cannot be read, or ends before the moment; the clip is there already, or cannot be
            written. Nothing is left of a clip then, nor by a kill.
    """
    check_decoder()
    if os.path.isdir(source):
        raise InputError(f"{source}: is a folder of frames: clips are cut out of video files alone")
    declared = VideoFile(source, 1).duration
    packets = look_at(source, start, end, check)
    _check_end(source, start, end, declared, packets)
    form = container_of(packets.container, source.suffix)
    target = stem.with_name(stem.name + form.suffix)
    if form.takes_copies and can_be_copied(packets, start, end):
        try:
            with _new(target) as part:
                copy_packets(source, packets, part, form, check)
            return Clip(target, COPIED)
        except NotWrittenError:  # then it can be encoded still
            pass
    try:
        with _new(target) as part:
            encode_frames(source, packets, (start, end), part, form, check)
    except NotWrittenError as err:
        raise InputError(f"{target}: cannot be written ({err}): is there room?") from err
    return Clip(target, ENCODED)


@contextmanager
def _new(path: Path) -> Iterator[Path]:
    """A part of a file that is not there yet, see `whole_file`."""
    if os.path.lexists(path):
        raise InputError(f"{path}: is there already: move it away, or name another folder")
    with whole_file(path) as part:
        yield part


def _check_end(source: Path, start: float, end: float, declared: float, packets: Packets) -> None:
    """Refuse a moment of which the file holds nothing, or not what it says that it holds."""
    if packets.end < min(end, declared) - EARLY_END_S:
        raise InputError(
            f"{source}: ends at {packets.end:.1f} s, but should be {declared:.1f} s long: the file is truncated or "
            "damaged, copy or download it again"
        )
    if packets.end <= start:
        raise InputError(
            f"{source}: ends at {packets.end:.1f} s, before the moment begins ({start:.1f} s): is it the "
            "video that was searched?"
        )
