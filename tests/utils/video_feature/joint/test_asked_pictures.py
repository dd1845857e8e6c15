"""Pictures and clips that are asked with are read as people see them, and refused where they are not what they seem."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.video_files import number_of, numbered_frame, real_video, turn, write_video
from utils.video_feature.frames import open_video
from utils.video_feature.joint import asked_pictures
from utils.video_feature.joint.asked_pictures import PictureError, check_picture, frames_to_ask
from utils.video_feature.sampling import Resize

SIDE = 48
RESIZE = Resize(SIDE, "bicubic")
EXIF_ORIENTATION = 0x0112


def picture() -> np.ndarray:
    """(96, 128, 3) uint8, red above and blue below on the left, white on the right."""
    made = np.full((96, 128, 3), 255, dtype=np.uint8)
    made[:48, :64], made[48:, :64] = (255, 0, 0), (0, 0, 255)
    return made


def content_of(image: Image.Image, form: str, **how: object) -> bytes:
    file = BytesIO()
    image.save(file, form, **how)
    return file.getvalue()


def only(source: Path | bytes) -> np.ndarray:
    (frame,) = frames_to_ask(source, RESIZE)
    return frame


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_pictures_of_all_forms_come_as_they_are_seen(form: str) -> None:
    frame = only(content_of(Image.fromarray(picture()), form))
    assert frame.shape == (SIDE, 64, 3)
    expected = np.asarray(Image.fromarray(picture()).resize((64, SIDE)))
    inside = np.s_[[6, 40, 6], [6, 6, 56]]  # of each of the three colours
    np.testing.assert_allclose(frame[inside].astype(int), expected[inside].astype(int), atol=12)


@pytest.mark.parametrize(("orientation", "turned"), [(3, 2), (6, -1), (8, 1)])
def test_a_picture_is_turned_as_its_camera_was(orientation: int, turned: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    frame = only(content_of(Image.fromarray(picture()), "PNG", exif=exif))
    np.testing.assert_array_equal(frame, only(content_of(Image.fromarray(np.rot90(picture(), turned)), "PNG")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 20, 20))
    frame = only(content_of(image.convert(mode), "PNG"))
    assert frame[4, 4].max() < 10
    assert frame[40, 50].min() > 245


def test_grey_values_of_16_bits_stay_grey() -> None:
    values = np.full((48, 48), 128 << 8, dtype=np.uint16)
    np.testing.assert_allclose(only(content_of(Image.fromarray(values), "PNG")), 128, atol=1)


def test_frames_of_a_clip_are_spread_over_it(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 100)  # of 4 s
    check_picture(clip)
    numbers = [number_of(frame) for frame in frames_to_ask(clip, Resize(96))]
    assert numbers == [6, 18, 31, 43, 56, 68, 81, 93]


def test_a_clip_is_turned_as_its_file_asks(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 10)
    turn(clip, "quarter turn to the right")
    assert next(frames_to_ask(clip, RESIZE)).shape == (64, SIDE, 3)


def test_a_picture_of_a_videos_frame_is_that_frame(tmp_path: Path) -> None:
    """Vectors of the same picture are to be alike, wherever it lies."""
    video = open_video(real_video("bigbuckbunny"))
    small, stored = (next(video.frames([2.0], resize))[1] for resize in (RESIZE, None))
    Image.fromarray(stored).save(tmp_path / "frame.png")
    np.testing.assert_allclose(only(tmp_path / "frame.png").astype(int), small.astype(int), atol=6)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says that it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


WHOLE = content_of(Image.fromarray(numbered_frame(77)), "PNG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (bomb(8_001), "more than 64 million pixels"),
        (bomb(30_000), "more than 64 million pixels"),
        (WHOLE[: len(WHOLE) // 2], "the picture is damaged"),
        (b"\x89PNG\r\n\x1a\n", "the picture is damaged|is none that can be read"),
        (b"GIF89a", "the picture is damaged|is none that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is none that can be read"),
        (b"%PDF-1.4", "is none that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is none that can be read"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=f"^the picture: .*({reason})|^the picture: ({reason})"):
        list(frames_to_ask(content, RESIZE))


def test_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "letter.jpg"
    file.write_text("Dear Nora,")
    with pytest.raises(PictureError, match=r"letter\.jpg: .*nor is it a JPEG, PNG, WebP, BMP or GIF picture"):
        check_picture(file)
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(PictureError, match=path.name):
            check_picture(path)


def test_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(WHOLE)
    monkeypatch.setattr(asked_pictures, "MOST_BYTES", len(WHOLE) - 1)
    with pytest.raises(PictureError, match=r"large\.png: has more than"):
        check_picture(file)
    clip = write_video(tmp_path / "clip.mp4", 50)
    monkeypatch.setattr(asked_pictures, "MOST_BYTES", 64)  # of pictures alone
    check_picture(clip)
    monkeypatch.setattr(asked_pictures, "LONGEST_CLIP_S", 1.0)
    with pytest.raises(PictureError, match=r"clip\.mp4: is a video of 2 s"):
        check_picture(clip)
    monkeypatch.setattr(asked_pictures, "MOST_PIXELS", 100)
    with pytest.raises(PictureError, match=r"clip\.mp4: has more than"):
        check_picture(clip)
