"""A video's seconds count from where a player begins, whatever its clock does, and damage costs what it hits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest

from tests.support.video_files import (
    HEIGHT,
    WIDTH,
    extractor,
    number_of,
    numbered_frame,
    paths_in,
    real_video,
    write_video,
)
from utils.basic_utils import InputError
from utils.video_feature import decoding
from utils.video_feature.frames import open_video
from utils.video_feature.pipeline import Looking, extract_each

WRAP_S = 2**33 / 90_000  # at which the clock of a transport stream begins again


def part(path: Path, first: int, start: float = 0.0, **how: object) -> bytes:
    """A recording of 2 s, 50 frames numbered from `first` on, whose clock begins at a second."""
    times = [start + n / 25 for n in range(50)]
    frames = map(numbered_frame, range(first, first + 50))
    return write_video(path, 50, times=times, frames=frames, **how).read_bytes()  # type: ignore[arg-type]


def seen(path: Path) -> tuple[list[int], float, str]:
    """Numbers of the frames shown at 25 times a second, and then the duration and the damage."""
    video = open_video(path, decode_threads=1)
    numbers = [number_of(frame) for _, frame in video.frames(25.0)]
    return numbers, video.duration, video.damage


@pytest.mark.parametrize(
    ("suffix", "first", "second"),
    [("ts", 0, 0), ("mkv", 0, 0), ("ts", 1000, 0), ("ts", 0, 1000), ("ts", 10_000, 1), ("ts", 0, 90_000)],
)
def test_joined_recordings_are_shown_one_after_the_other(
    tmp_path: Path, suffix: str, first: float, second: float
) -> None:
    path = tmp_path / f"joined.{suffix}"
    parts = part(tmp_path / f"a.{suffix}", 0, first), part(tmp_path / f"b.{suffix}", 100, second)
    path.write_bytes(b"".join(parts))
    numbers, duration, damage = seen(path)
    assert numbers == [*range(50), *range(100, 150)]
    assert duration == pytest.approx(4.0, abs=0.05)
    assert damage == ""


def test_a_packet_lost_before_recordings_were_joined_is_told_and_the_joint_is_not(tmp_path: Path) -> None:
    lost = without_a_packet(tmp_path / "a.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(lost + part(tmp_path / "b.ts", 100))
    _, duration, damage = seen(tmp_path / "a.ts")
    assert duration == pytest.approx(12.0, abs=0.05)
    assert damage.startswith(("at second 4:", "at second 5:"))


@pytest.mark.parametrize(("suffix", "gap"), [("ts", 5.0), ("mkv", 5.0), ("mp4", 30.0)])
def test_where_nothing_was_recorded_the_last_picture_stays(tmp_path: Path, suffix: str, gap: float) -> None:
    times = [n / 25 + gap * (n >= 25) for n in range(50)]
    numbers, duration, _ = seen(write_video(tmp_path / f"a.{suffix}", 50, times=times))
    assert numbers == [*range(24), *[24] * round(25 * gap + 1), *range(25, 50)]
    assert duration == pytest.approx(2.0 + gap, abs=0.05)


@pytest.mark.parametrize(
    ("suffix", "start", "options"),
    [
        ("ts", WRAP_S - 2.5, {}),  # FFmpeg counts from below 0 there
        ("ts", WRAP_S - 100, {}),
        ("ts", 5000, {}),
        ("mp4", 7, {}),
        ("mkv", 7, {}),
        ("mkv", -1.5, {"avoid_negative_ts": "disabled"}),
    ],
)
def test_wherever_the_clock_begins_the_first_picture_is_at_0(
    tmp_path: Path, suffix: str, start: float, options: dict[str, str]
) -> None:
    path = tmp_path / f"a.{suffix}"
    part(path, 0, start, options=options)
    numbers, duration, _ = seen(path)
    assert numbers == list(range(50))
    assert duration == pytest.approx(2.0, abs=0.05)


def without_a_packet(path: Path) -> Path:
    """A transport stream of 10 s, without one of some packets that its middle picture takes."""
    noise = np.random.default_rng(0).integers(0, 60, (250, HEIGHT, WIDTH, 3), np.uint8)
    frames = (np.clip(numbered_frame(n), 60, 195) + noise[n] for n in range(250))
    content = write_video(path, 250, frames=frames).read_bytes()
    at = len(content) // 188 // 2 * 188
    path.write_bytes(content[:at] + content[at + 188 :])
    return path


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_a_lost_packet_costs_a_picture(tmp_path: Path, threads: int) -> None:
    video = open_video(without_a_packet(tmp_path / "a.ts"), decode_threads=threads)
    numbers = [number_of(frame) for _, frame in video.frames(25.0)]
    wrong = [(n, found) for n, found in enumerate(numbers) if found != n]
    assert len(numbers) == 250
    assert len(wrong) <= 3
    assert video.duration == pytest.approx(10.0, abs=0.05)
    assert "at second " in video.damage


def test_extraction_takes_a_damaged_video_and_keeps_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    without_a_packet(tmp_path / "videos" / "tv.ts")
    write_video(tmp_path / "videos" / "whole.ts")
    for _ in range(2):  # the second run finds all done
        videos, model = paths_in(tmp_path / "videos"), extractor(lambda n: n[:, None].astype(np.float32), number_of)
        report = extract_each(videos, model, Looking(3.0, 8, decode_threads=1), tmp_path / "out.h5")
        assert report.done == ["tv", "whole"]
        assert list(report.damaged) == ["tv"]
        assert "at second" in report.damaged["tv"]


def test_a_video_of_which_hardly_anything_can_be_decoded_is_no_use(tmp_path: Path) -> None:
    content = bytearray(write_video(tmp_path / "a.mp4", 250).read_bytes())
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for at, size in packets[10:]:
        content[at : at + size] = b"\xff" * size
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp4: only 1?\d of 2\d\d pictures can be decoded"):
        seen(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["bigbuckbunny", "bikes"])
def test_garbage_in_the_middle_is_told_with_its_second(tmp_path: Path, name: str) -> None:
    content = bytearray(real_video(name).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    (tmp_path / "a.mp4").write_bytes(content)
    video, whole = open_video(tmp_path / "a.mp4", decode_threads=1), open_video(real_video(name), decode_threads=1)
    assert len(list(video.frames(3.0))) == len(list(whole.frames(3.0)))
    assert video.duration == whole.duration
    assert "at second" in video.damage


def test_packets_that_repeat_a_picture_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Theora has them; no encoder of these comes with PyAV."""
    path = write_video(tmp_path / "a.mkv", 5, times=[n * 0.4 for n in range(5)])
    packets = decoding.Reader._packets

    def with_repetitions(reader: decoding.Reader) -> Iterator[Any]:
        for packet in packets(reader):
            yield packet
            for number in range(1, 10 if packet.size else 0):
                empty = av.Packet(0)
                empty.stream, empty.time_base, empty.duration = packet.stream, packet.time_base, 40
                empty.pts = empty.dts = packet.pts + 40 * number  # milliseconds
                yield empty

    monkeypatch.setattr(decoding.Reader, "_packets", with_repetitions)
    numbers, duration, damage = seen(path)
    assert numbers == [n // 10 for n in range(50)]
    assert (duration, damage) == (pytest.approx(2.0, abs=0.001), "")


def with_cover(path: Path, cover: bool) -> Path:
    """Sound, with a picture that players show meanwhile."""
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("aac", rate=8000)
        picture: Any = container.add_stream("mjpeg", rate=1) if cover else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(numbered_frame(1), format="rgb24")))
            container.mux(picture.encode(None))
        for start in range(0, 16_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(("cover", "why"), [(True, "is sound with a cover picture"), (False, "has no video in it")])
def test_sound_is_told_from_a_video_with_its_cover_or_without(tmp_path: Path, cover: bool, why: str) -> None:
    with pytest.raises(InputError, match=why):
        open_video(with_cover(tmp_path / "song.mp4", cover))


@pytest.mark.parametrize("size", [1, 3, 32])
def test_what_stands_still_goes_through_the_model_once(tmp_path: Path, size: int) -> None:
    (tmp_path / "videos").mkdir()
    shown = [7] * 75 + [9] * 25 + [7] * 50
    write_video(tmp_path / "videos" / "a.mkv", 4, times=[0.0, 3.0, 4.0, 5.96], frames=map(numbered_frame, (7, 9, 7, 7)))
    encoded: list[int] = []

    def encode(numbers: np.ndarray) -> np.ndarray:
        encoded.extend(numbers)
        return numbers[:, None].astype(np.float32)

    model = extractor(encode, number_of)
    extract_each(paths_in(tmp_path / "videos"), model, Looking(25.0, size, decode_threads=1), tmp_path / "out.h5")
    assert encoded == [7, 9, 7]
    with h5py.File(tmp_path / "out.h5") as features:
        assert features["a"][:, 0].tolist() == shown
