"""The containers that clips are written to, and the codecs that go into each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.basic_utils import InputError, first_line
from utils.video_feature.decoding import av


@dataclass(frozen=True)
class Container:
    """A form of files.

    Attributes:
        name: FFmpeg's.
        suffix: of its files.
        takes_copies: whether packets of such a file can go into another as they are.
        takes_warm_up: whether it can say of sound that it comes before second 0, and is not heard.
        pictures, sound: encoders for it, the best first.
        options: FFmpeg's for writing one.
    """

    name: str
    suffix: str
    takes_copies: bool = True
    takes_warm_up: bool = True
    pictures: Sequence[str] = ("libx264", "libopenh264", "mpeg4")
    sound: Sequence[str] = ("aac",)
    options: Mapping[str, str] = field(default_factory=lambda: {"avoid_negative_ts": "disabled"})


_FAST_START = {"movflags": "faststart"}
MP4, MOV = Container("mp4", ".mp4", options=_FAST_START), Container("mov", ".mov", options=_FAST_START)
MATROSKA = Container("matroska", ".mkv")
WEBM = Container("webm", ".webm", pictures=("libvpx-vp9", "libvpx"), sound=("libopus", "libvorbis"))
TRANSPORT = Container("mpegts", ".ts", takes_warm_up=False, options={})
# what others are encoded to: their packets have no times of their own, or few programs play them
ENCODED_MP4 = Container("mp4", ".mp4", takes_copies=False, options=_FAST_START)


def container_of(name: str, suffix: str) -> Container:
    """The form of a clip out of a file of FFmpeg's format `name`, whose name ends by `suffix`."""
    suffix = suffix.lower()
    if "mp4" in name.split(","):
        return MOV if suffix == ".mov" else MP4
    if "matroska" in name:
        return WEBM if suffix == ".webm" else MATROSKA
    return TRANSPORT if name == "mpegts" else ENCODED_MP4


class NotWrittenError(Exception):
    """A container cannot be written, or does not take what is to be put into it."""


@contextmanager
def written(path: Path, form: Container) -> Iterator[Any]:
    """A file that PyAV writes; what goes wrong inside the block is a `NotWrittenError`."""
    try:
        with av.open(str(path), "w", form.name, dict(form.options)) as made:
            yield made
    except (av.FFmpegError, ValueError) as err:
        raise NotWrittenError(getattr(err, "strerror", None) or first_line(err)) from err


def encoder_of(names: Sequence[str]) -> str:
    """The first of some encoders that the installed PyAV has; an `InputError` if it has none."""
    for name in names:
        try:
            av.codec.Codec(name, "w")
        except ValueError:  # UnknownCodecError
            continue
        return name
    raise InputError(f"the installed PyAV has none of the encoders {', '.join(names)}: pip install --upgrade av")
