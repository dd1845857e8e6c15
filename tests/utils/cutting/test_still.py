"""The picture at a second of a video is the one that is shown there, whatever has to be decoded for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.video_files import number_of, real_video, turn, write_video
from utils.basic_utils import InputError
from utils.cutting.still import frame_at
from utils.video_feature.frames import open_video
from utils.video_feature.sampling import Within

WHOLE = Within(1000, 1000)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_it_is_the_frame_that_is_shown(tmp_path: Path, suffix: str) -> None:
    video = write_video(tmp_path / f"a{suffix}", 250)
    for second in (0.0, 0.03, 3.99, 7.5, 9.96, 99.0):
        (expected,) = (number_of(frame) for _, frame in open_video(video).frames([second]))
        assert number_of(frame_at(video, second, WHOLE)) == expected


def test_seconds_go_on_where_recordings_were_joined(tmp_path: Path) -> None:
    first, second = (write_video(tmp_path / f"{name}.ts", n) for name, n in (("a", 50), ("b", 100)))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert number_of(frame_at(joined, 2.0 + 3.01, WHOLE)) == 75


def test_seconds_count_from_where_the_video_begins(tmp_path: Path) -> None:
    video = write_video(tmp_path / "late.mkv", times=[20 + number / 25 for number in range(50)])
    assert number_of(frame_at(video, 1.01, WHOLE)) == 25


def test_it_is_turned_made_smaller_and_keeps_its_shape(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 50)  # 128 x 96
    assert frame_at(video, 1.0, Within(320, 180)).shape == (96, 128, 3)
    assert frame_at(video, 1.0, Within(64, 64)).shape == (48, 64, 3)
    turn(video, "quarter turn to the right")
    assert frame_at(video, 1.0, Within(64, 64)).shape == (64, 48, 3)
    oblong = real_video("carphone_pristine")  # 176 x 144, pixels wider than high
    assert frame_at(oblong, 1.0, Within(320, 180)).shape == (144, 193, 3)


def test_it_is_what_extraction_sees() -> None:
    video, size = real_video("bigbuckbunny"), Within(320, 180)
    np.testing.assert_array_equal(frame_at(video, 3.7, size), next(open_video(video).frames([3.7], size))[1])


def test_work_ends_where_the_caller_says_so() -> None:
    def check() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        frame_at(real_video("bikes"), 5.0, WHOLE, check)


@pytest.mark.parametrize("content", [b"", b"no video"])
def test_a_file_that_cannot_be_decoded_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.mp4"):
        frame_at(tmp_path / "bad.mp4", 1.0, WHOLE)


def test_a_file_whose_pictures_are_gone_is_named(tmp_path: Path) -> None:
    video = Path(shutil.copy(write_video(tmp_path / "a.mp4", 50), tmp_path / "gone.mp4"))
    content = bytearray(video.read_bytes())
    begin = content.index(b"mdat") + 4
    end = content.index(b"moov") if content.index(b"moov") > begin else len(content)
    content[begin : end - 4] = bytes(end - 4 - begin)
    video.write_bytes(content)
    with pytest.raises(InputError, match=r"gone\.mp4"):
        frame_at(video, 1.0, WHOLE)
