"""Pictures and short clips that are asked with: read within limits, and made as large as a model wants them.

Anybody may have made such a file, and asks with it once. So it is looked at before it is decoded: a file of few bytes
can hold a picture that fills the memory.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from utils.basic_utils import InputError, StrPath, first_line, read_bytes
from utils.video_feature.decoding import Picture, av, check_decoder, opened
from utils.video_feature.frames import open_video
from utils.video_feature.sampling import Sizing

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # of pictures, as PIL calls them
MOST_BYTES = 32 * 1024 * 1024  # of a picture's file
MOST_PIXELS = 64_000_000  # of a picture, or of a frame
LONGEST_CLIP_S = 120.0
CLIP_RATE, MOST_FRAMES = 2.0, 64  # of a clip: so many a second are looked at, and of all so many, spread evenly
THIS_PICTURE = "the picture"  # what messages call one without a file
_WHITE = (255, 255, 255)


class PictureError(InputError):
    """A picture or clip cannot be asked with: it cannot be read, is neither, or is too large."""


def frames_to_ask(source: StrPath | bytes, resize: Sizing) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 RGB, all of one size, of a picture or clip in a file, or of a picture's bytes.

    Pictures are turned as their EXIF says. What is transparent is white. Of pictures that move the first is taken.

    Raises:
        PictureError: it calls a picture by its path, else `THIS_PICTURE`.
    """
    check_decoder()
    with _as_picture_error():
        image = _opened_picture(source)
        if image is not None:
            yield _sized(_decoded(image, _name(source)), resize)
        elif isinstance(source, bytes):
            raise InputError(f"{THIS_PICTURE}: is none that can be read: give a JPEG, PNG, WebP, BMP or GIF picture")
        else:
            path = Path(source)
            for _, frame in open_video(path).frames(_clip_times(path), resize):
                yield frame


def check_picture(path: StrPath) -> None:
    """Raise a `PictureError` for a file that is no picture or clip, or too large; nothing is decoded yet."""
    check_decoder()
    with _as_picture_error():
        if _opened_picture(path) is None:
            _clip_times(Path(path))


@contextmanager
def _as_picture_error() -> Iterator[None]:
    try:
        yield
    except InputError as err:
        raise PictureError(str(err)) from err


def _name(source: StrPath | bytes) -> str:
    return THIS_PICTURE if isinstance(source, bytes) else os.fspath(source)


def _opened_picture(source: StrPath | bytes) -> Any:
    """A picture of PIL's, of which only the head has been read; None for what is no picture."""
    from PIL import Image, UnidentifiedImageError

    name = _name(source)
    content = source if isinstance(source, bytes) else _beginning(source)
    if not content:
        raise InputError(f"{name}: is empty (0 bytes): copy or download it again")
    try:
        with warnings.catch_warnings():  # of large pictures, which are measured here, and of what stands beside them
            warnings.simplefilter("ignore")
            image = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as err:
        raise _too_large(name) from err
    except (OSError, ValueError, SyntaxError, EOFError) as err:  # as PIL says that a head is damaged
        raise _damaged(name, err) from err
    if len(content) > MOST_BYTES:
        raise InputError(f"{name}: has more than {MOST_BYTES >> 20} MiB: make the picture smaller")
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(name)
    return image


def _beginning(path: StrPath) -> bytes:
    """A file, or of one that is too large for a picture, as clips may be, as much as shows that."""
    if os.path.isfile(path) and os.path.getsize(path) > MOST_BYTES:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES + 1)
    return read_bytes(path)


def _decoded(image: Any, name: str) -> np.ndarray:
    """(H, W, 3) uint8."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if image.mode.startswith("I;16"):  # of whose values PIL would cut off all above 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image)
            if image.has_transparency_data:
                shown, image = Image.new("RGB", image.size, _WHITE), image.convert("RGBA")
                shown.paste(image, mask=image)
                image = shown
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as err:
        raise _damaged(name, err) from err


def _sized(picture: np.ndarray, resize: Sizing) -> np.ndarray:
    """As frames of videos are made larger and smaller, so that vectors of the same picture are the same."""
    return Picture(resize).of(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))


def _clip_times(path: Path) -> list[float]:
    """The seconds of a clip that are looked at."""
    try:
        seconds = open_video(path).duration
        with opened(path, threads=1) as (_, stream):
            n_pixels = stream.width * stream.height
    except InputError as err:
        raise InputError(f"{err}; nor is it a JPEG, PNG, WebP, BMP or GIF picture") from err
    if n_pixels > MOST_PIXELS:
        raise _too_large(str(path))
    if seconds > LONGEST_CLIP_S:
        raise InputError(
            f"{path}: is a video of {seconds:.0f} s, to ask with it may have {LONGEST_CLIP_S:.0f} s: cut out what "
            "shows what you look for"
        )
    n = min(max(math.ceil(seconds * CLIP_RATE), 1), MOST_FRAMES)
    return [(number + 0.5) * seconds / n for number in range(n)]


def _too_large(name: str) -> InputError:
    return InputError(f"{name}: has more than {MOST_PIXELS // 1_000_000} million pixels: make the picture smaller")


def _damaged(name: str, err: Exception) -> InputError:
    return InputError(f"{name}: the picture is damaged ({first_line(err) or type(err).__name__}): save it again")
