"""Frames come at their times, as they are meant to be seen, or the file is named and said to be damaged."""

from __future__ import annotations

import os
import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.video_files import HEIGHT, MATRICES, WIDTH, number_of, numbered_frame, real_video, turn, write_video
from utils.basic_utils import InputError
from utils.video_feature import decoding
from utils.video_feature.ahead import ahead
from utils.video_feature.frames import open_video, pictures_in
from utils.video_feature.sampling import Resize, shown_at


def numbers(path: Path, at: float | list[float]) -> list[int]:
    return [number_of(frame) for _, frame in open_video(path, decode_threads=1).frames(at)]


def expected(starts: list[float], end: float, rate: float) -> list[int]:
    """By counting in exact fractions: for each time (k + 0.3) / rate before the end, the last frame not after it.

    A millisecond after it still counts, to which some containers round.
    """
    found, k = [], 0
    while (time := (Fraction(k) + Fraction(3, 10)) / Fraction(rate)) < Fraction(end) or not found:
        found.append(
            max((i for i, start in enumerate(starts) if Fraction(start) <= time + Fraction(1, 1000)), default=0)
        )
        k += 1
    return found


@pytest.mark.parametrize(
    ("rate", "at"), [(25, 3), (30, 3), (Fraction(30000, 1001), 3), (10, 15), (15, 15), (24, 1.7), (7, 3)]
)
def test_the_frame_shown_at_a_time_is_the_last_that_began_before(tmp_path: Path, rate: Fraction, at: float) -> None:
    path = write_video(tmp_path / "a.mp4", 50, rate)
    starts = [Fraction(n) / rate for n in range(50)]
    assert numbers(path, at) == expected(starts, Fraction(50) / rate, at)


def test_frames_of_tvr_lie_where_its_clip_features_have_them(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60, 30)
    times = [time for time, _ in open_video(path).frames(3.0)]
    assert times == pytest.approx([second + third / 30 for second in range(2) for third in (3, 13, 23)])
    assert numbers(path, 3.0) == [3, 13, 23, 33, 43, 53]


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mov"])
def test_containers_that_round_their_times_give_the_same_frames(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", 60, 30)
    assert numbers(path, 3.0) == [3, 13, 23, 33, 43, 53]


def test_a_variable_frame_rate_is_followed(tmp_path: Path) -> None:
    times = [0, 0.04, 0.9, 0.95, 2.5, 2.54, 2.58]
    path = write_video(tmp_path / "a.mp4", len(times), 25, times)
    assert numbers(path, 3.0) == expected(times, 2.62, 3)
    assert numbers(path, 50) == expected(times, open_video(path).duration, 50)


def test_times_that_are_asked_for_are_given_and_the_rest_is_not_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    assert numbers(path, [0.0, 0.01, 0.5, 0.5, 1.99]) == [0, 0, 12, 12, 49]
    assert numbers(path, [0.5, 2.5]) == [12]  # it is 2 seconds long
    assert numbers(path, []) == []


def test_a_video_shorter_than_the_first_time_still_gives_a_frame(tmp_path: Path) -> None:
    assert numbers(write_video(tmp_path / "a.mp4", 1, 25), 3.0) == [0]


@pytest.mark.parametrize(("sound_s", "shown"), [(0.0, [2, 10, 19]), (3.0, [0] * 6 + [2, 10, 19])])
def test_times_count_from_where_a_player_begins(tmp_path: Path, sound_s: float, shown: list[int]) -> None:
    times = [2 + n / 25 for n in range(25)]
    path = write_video(tmp_path / "a.mkv", 25, 25, times, sound_s=sound_s)
    assert numbers(path, 3.0) == shown


@pytest.mark.parametrize(("name", "duration"), [("bigbuckbunny", 5.28), ("bikes", 10.0), ("carphone_pristine", 4.004)])
def test_durations_of_real_videos_with_and_without_sound(name: str, duration: float) -> None:
    video = open_video(real_video(name), decode_threads=1)
    assert video.duration == pytest.approx(duration)
    n_frames = sum(1 for _ in video.frames(1.0, Resize(16)))
    assert video.duration == pytest.approx(duration)
    assert n_frames == int(duration + 0.7)


def test_the_duration_of_a_file_that_does_not_say_it_is_found(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", 50, 25)
    assert open_video(path).duration == pytest.approx(2.0, abs=0.1)
    assert numbers(path, 3.0) == numbers(write_video(tmp_path / "a.mp4", 50, 25), 3.0)


def test_sound_that_goes_on_after_the_pictures_is_no_damage(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "a.mkv", 50, 25, sound_s=6.0))
    assert len(list(video.frames(3.0))) == 6
    assert video.duration == pytest.approx(2.0)


@pytest.mark.parametrize("how", MATRICES)
def test_frames_are_turned_as_the_file_asks(tmp_path: Path, how: str) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[:32, 48:], picture[32:, :48] = 250, 170, 90  # one quarter stays black
    path = write_video(tmp_path / "a.mp4", frames=[picture] * 3)
    turn(path, how)
    a, b, c, d = MATRICES[how]
    seen = {}
    for x, y in [(-1, -1), (1, -1), (-1, 1), (1, 1)]:  # where the middle of each quarter goes, about the centre
        seen[a * x + c * y, b * x + d * y] = int(picture[32 + 16 * y, 48 + 24 * x, 0])
    for resize, shape in [(None, (64, 96)), (Resize(32), (32, 48))]:
        _, frame = next(open_video(path).frames(3.0, resize))
        assert frame.shape[:2] == (shape if a else shape[::-1])
        height, width = frame.shape[:2]
        for (x, y), value in seen.items():
            assert frame[(2 + y) * height // 4, (2 + x) * width // 4, 0] == pytest.approx(value, abs=8)


def test_resized_frames_of_oblong_pixels_look_as_they_should(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 5, pixel_aspect=Fraction(2, 1))
    _, frame = next(open_video(path).frames(3.0, Resize(48)))
    assert frame.shape == (48, 48 * WIDTH * 2 // HEIGHT, 3)
    _, frame = next(open_video(path).frames(3.0))
    assert frame.shape == (HEIGHT, WIDTH, 3)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 300))
def test_the_shorter_side_is_what_was_asked_for(width: int, height: int, side: int) -> None:
    new_width, new_height = Resize(side).size(width, height)
    assert min(new_width, new_height) == side
    assert max(new_width, new_height) == max(side, int(side * max(width, height) / min(width, height)))
    assert Resize(side, square=True).size(width, height) == (side, side)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_in_the_decoder_is_that_of_pillow(interpolation: str) -> None:
    video = open_video(real_video("bigbuckbunny"), decode_threads=1)
    _, whole = next(video.frames([2.0]))
    _, small = next(video.frames([2.0], Resize(224, interpolation)))  # type: ignore[arg-type]
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    theirs = np.asarray(Image.fromarray(whole).resize(small.shape[1::-1], how), int)
    assert np.abs(small - theirs).mean() < 1.5


def test_a_frame_that_stays_is_decoded_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 2, 1)
    found = [frame for _, frame in open_video(path).frames(10)]
    assert len(found) == 20
    assert len({id(frame) for frame in found}) == 2


def damaged(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def reason(path: Path) -> str:
    """Why a file cannot be read to its end; the message has to begin with its name."""
    with pytest.raises(InputError) as raised:
        list(open_video(path, decode_threads=1).frames(3.0, Resize(32)))
    assert str(raised.value).startswith(str(path))
    return str(raised.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty (0 bytes)"),
        (b"hello\n" * 1000, "cannot be decoded"),
        (bytes(10_000), "cannot be decoded"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "cannot be decoded"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "cannot be decoded"),
    ],
)
def test_files_that_are_no_videos_are_named(tmp_path: Path, content: bytes, why: str) -> None:
    assert why in reason(damaged(tmp_path / "a.mp4", content))


def test_a_playlist_does_not_lead_to_other_files(tmp_path: Path) -> None:
    write_video(tmp_path / "other.ts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{tmp_path}/other.ts\n#EXT-X-ENDLIST\n"
    assert "cannot be decoded" in reason(damaged(tmp_path / "a.mp4", playlist.encode()))


def test_what_is_missing_or_no_file_is_named(tmp_path: Path) -> None:
    assert "No such file" in reason(tmp_path / "nothing.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "neither a file nor a folder" in reason(tmp_path / "pipe.mp4")


def test_a_file_with_sound_only_has_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert "has no video in it" in reason(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"movflags": "faststart"}),
        ("a.mp4", {}),
        ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", {}),
    ],
)
def test_a_truncated_file_is_damaged(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    content = write_video(tmp_path / name, 250, 25, options=options).read_bytes()
    reason(damaged(tmp_path / name, content[: len(content) // 2]))


def test_frames_before_the_damage_are_right(tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mkv", 250, 25).read_bytes()
    path, found = damaged(tmp_path / "a.mkv", content[: len(content) * 3 // 4]), []

    def read() -> None:
        for _, frame in open_video(path).frames(3.0):
            found.append(number_of(frame))

    with pytest.raises(InputError, match="truncated"):
        read()
    assert len(found) > 3
    assert found == expected([n / 25 for n in range(250)], 10, 3)[: len(found)]


def test_a_timestamp_far_away_is_damage_and_not_a_long_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 4, 25, [0, 0.04, 0.08, 40_000.0])
    assert "timestamps jump" in reason(path)


def test_a_last_frame_that_would_be_shown_for_hours_is_damage(tmp_path: Path) -> None:
    content = bytearray(write_video(tmp_path / "a.mp4", 1, 25, [0.0]).read_bytes().replace(b"edts", b"free"))
    # of the frame and of the stream: FFmpeg 7, which PyAV has until 15, ends the last frame where the stream ends
    for at in (content.index(b"stts") + 16, content.index(b"mdhd") + 20):
        assert content[at : at + 4] == (3600).to_bytes(4, "big")  # of 90,000 a second
        content[at] ^= 0x40
    assert "last frame should be shown until 11931 s" in reason(damaged(tmp_path / "a.mp4", bytes(content)))


def test_frames_long_after_the_declared_end_are_damage(tmp_path: Path) -> None:
    times = [0, 3500, 7000, 10_500]  # each frame is shown for less than an hour
    content = bytearray(write_video(tmp_path / "a.mkv", 4, 25, times).read_bytes())
    at = content.index(b"\x44\x89\x88") + 3  # the duration in milliseconds
    assert struct.unpack_from(">d", content, at)[0] == pytest.approx(10_500_000, abs=100)
    struct.pack_into(">d", content, at, 2000.0)
    assert "has a frame at 7000 s, long after its declared end" in reason(damaged(tmp_path / "a.mkv", bytes(content)))


def test_titles_in_another_encoding_do_no_harm(tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mp4").read_bytes()
    for title in (b"Lavf", b"VideoHandler"):  # of the file, of the stream
        assert title in content
        content = content.replace(title, title[:-1] + b"\xe9")
    assert numbers(damaged(tmp_path / "a.mp4", content), 1.0) == [7, 32]


def without_decoder(path: Path) -> Path:
    """A video whose codec nobody knows."""
    content = write_video(path, 10).read_bytes()
    assert content.count(b"H264") == 2
    return damaged(path, content.replace(b"H264", b"ZZZZ"))


def test_a_codec_without_a_decoder_is_named(tmp_path: Path) -> None:
    assert "there is no decoder for its codec: convert it" in reason(without_decoder(tmp_path / "a.avi"))


def folder_of_frames(folder: Path, n: int, digits: int = 1, suffix: str = "png") -> Path:
    folder.mkdir()
    for number in range(n):
        Image.fromarray(numbered_frame(number)).save(folder / f"frame_{number:0{digits}d}.{suffix}")
    return folder


@pytest.mark.parametrize(("suffix", "digits"), [("jpg", 1), ("png", 1), ("jpg", 5)])
def test_folders_of_frames_are_read_in_the_order_of_their_numbers(tmp_path: Path, suffix: str, digits: int) -> None:
    folder = folder_of_frames(tmp_path / "a", 12, digits, suffix)
    (folder / "notes.txt").write_text("not a picture")
    video = open_video(folder, folder_rate=3)
    assert video.duration == 4
    assert [number_of(frame) for _, frame in video.frames(3.0)] == list(range(12))
    assert [number_of(frame) for _, frame in video.frames(1.0, Resize(64))] == [0, 3, 6, 9]


def test_pictures_come_out_as_pillow_reads_them(tmp_path: Path) -> None:
    _, frame = next(open_video(real_video("bikes"), decode_threads=1).frames([1.0]))
    (tmp_path / "a").mkdir()
    Image.fromarray(frame).save(tmp_path / "a" / "1.jpg", quality=95)
    _, ours = next(open_video(tmp_path / "a", 3).frames(3.0))
    theirs = np.asarray(Image.open(tmp_path / "a" / "1.jpg").convert("RGB"), int)
    assert np.abs(ours - theirs).mean() < 1.5


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        open_video(tmp_path / "empty", 3)
    folder = folder_of_frames(tmp_path / "a", 3)
    with pytest.raises(InputError, match="--folder_rate"):
        open_video(folder)
    (folder / "frame_1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"frame_1\.png: "):
        list(open_video(folder, 3).frames(3.0))


def test_digits_that_are_no_decimals_are_letters_in_names(tmp_path: Path) -> None:
    folder = folder_of_frames(tmp_path / "a", 3)
    (folder / "frame_0.png").rename(folder / "²1.png")
    assert [path.name for path in pictures_in(folder)] == ["frame_1.png", "frame_2.png", "²1.png"]


def test_without_the_decoder_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "av", None)
    with pytest.raises(InputError, match=r"pip install -r utils/video_feature/requirements\.txt"):
        open_video(real_video("bikes"))


@settings(deadline=None)
@given(st.lists(st.floats(0, 20), max_size=20), st.lists(st.floats(0, 20), min_size=1, max_size=20), st.floats(0, 25))
def test_shown_frames_are_those_of_a_plain_search(times: list[float], starts: list[float], end: float) -> None:
    times, starts = sorted(times), sorted(starts)
    found = list(shown_at(times, ((start, n) for n, start in enumerate(starts)), lambda: end))
    plain = [(time, max((n for n, start in enumerate(starts) if start <= time + 1e-3), default=0)) for time in times]
    # what is shown before the last frame begins is shown whatever the end is
    kept = [(time, n) for time, n in plain if n < len(starts) - 1 or time < end]
    assert found == kept or (len(kept) == 0 and found == plain[:1])


def test_a_thread_works_ahead_but_not_far() -> None:
    made: list[int] = []
    let_on = threading.Semaphore(0)

    def items():
        for number in range(10):
            made.append(number)
            let_on.release()
            yield number

    running = ahead(items(), 2)
    assert next(running) == 0
    for _ in range(4):  # one was taken, two wait, one is in hand
        assert let_on.acquire(timeout=10)
    assert not let_on.acquire(timeout=0.2)
    assert made == [0, 1, 2, 3]
    assert list(running) == list(range(1, 10))


def test_errors_come_after_what_was_made_before_them() -> None:
    def items():
        yield 1
        raise KeyError("lost")

    running = ahead(items(), 4)
    assert next(running) == 1
    with pytest.raises(KeyError, match="lost"):
        next(running)


def test_nothing_runs_on_when_nobody_listens() -> None:
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    running = ahead(items(), 2)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    assert threading.active_count() == before
