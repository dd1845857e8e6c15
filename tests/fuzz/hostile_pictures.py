"""Pictures in each form that can be asked with, hit in their bytes, or with a head that says another size."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzz.mutations import mutate_bytes

MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "LA", "P", "1"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("RGB", "L"),
    "GIF": ("P",),
}
SIDES = (0, 1, 7, 500, 8_001, 65_536, 2**31 - 1, 2**32 - 1)
ORIENTATION = 0x0112


@cache
def _good() -> list[bytes]:
    """The first one is a PNG."""
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    found = []
    for form, mode in sorted(((form, mode) for form, modes in MODES.items() for mode in modes), reverse=True):
        file = BytesIO()
        how = {"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}
        image.convert(mode).save(file, form, **how)
        found.append(file.getvalue())
    return sorted(found, key=lambda content: not content.startswith(b"\x89PNG"))


def write(rng: Random, folder: Path) -> None:
    content = bytearray(rng.choice(_good()))
    if rng.random() < 0.2:
        content = bytearray(_good()[0])
        content[16:24] = struct.pack(">II", rng.choice(SIDES), rng.choice(SIDES))
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))  # of the head
    (folder / "in").write_bytes(content if rng.random() < 0.1 else mutate_bytes(rng, bytes(content)))


def read(folder: Path) -> None:
    from utils.video_feature.joint.asked_pictures import frames_to_ask
    from utils.video_feature.sampling import Resize

    for frame in frames_to_ask((folder / "in").read_bytes(), Resize(16, square=True)):
        assert (frame.shape, frame.dtype) == ((16, 16, 3), np.uint8)
