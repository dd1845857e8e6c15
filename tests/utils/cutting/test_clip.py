"""A clip shows and sounds what its video does in these seconds, whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.support.sounding_videos import ENCODERS, RATE, tone_in, write_sounding_video
from tests.support.video_files import MATRICES, number_of, real_video, turn, write_video
from utils.basic_utils import PROJECT_ROOT, InputError
from utils.cutting import clip as clip_module
from utils.cutting.clip import COPIED, ENCODED, Clip, cut_clip
from utils.cutting.containers import NotWrittenError
from utils.video_feature.frames import open_video

FRAME_S = 1 / RATE
TRANSPORT_DELAY_S = 0.022  # by which pictures may begin after sound in a file: a packet of AAC


needs_copies = pytest.mark.skipif(int(av.__version__.split(".")[0]) < 15, reason="this PyAV spoils copies")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{container: 6 s in it}."""
    folder = tmp_path_factory.mktemp("videos")
    return {name: write_sounding_video(folder / f"a.{name}") for name in ENCODERS}


def frame_at(path: Path, second: float) -> np.ndarray:
    return next(open_video(path).frames([second]))[1].astype(int)


def numbers_in(path: Path) -> list[int]:
    return [number_of(frame) for _, frame in open_video(path).frames(float(RATE))]


def packets_of(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        (stream,) = (stream for stream in container.streams if stream.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def check(clip: Clip, source: Path, start: float, end: float, within: float = FRAME_S) -> None:
    """Its length, its first and its last picture, and its sound."""
    video = open_video(clip.path)
    assert abs(video.duration - (end - start)) <= within + TRANSPORT_DELAY_S
    assert number_of(frame_at(clip.path, 0.0)) == number_of(frame_at(source, start))
    last = end - start - FRAME_S
    assert abs(number_of(frame_at(clip.path, last)) - number_of(frame_at(source, start + last))) <= 1
    begin, on, _ = tone_in(clip.path)
    assert abs(begin) < FRAME_S
    since = (start - tone_in(source)[1]) % 2
    assert on == pytest.approx(0.0 if since < 1 else 2 - since, abs=0.03)


@pytest.mark.parametrize("container", ENCODERS)
def test_a_moment_between_key_frames_is_encoded_anew_exactly(videos, tmp_path, container):
    clip = cut_clip(videos[container], 0.52, 2.6, tmp_path / "1_a_0.52-2.60")
    assert clip.how == ENCODED
    assert clip.path.name == f"1_a_0.52-2.60.{'mp4' if container == 'avi' else container}"
    check(clip, videos[container], 0.52, 2.6)


@needs_copies
@pytest.mark.parametrize("container", sorted(ENCODERS.keys() - {"avi"}))
def test_a_moment_at_a_key_frame_is_copied_packet_by_packet(videos, tmp_path, container):
    start = 2.0 + TRANSPORT_DELAY_S * (container == "ts")
    clip = cut_clip(videos[container], start, start + 2, tmp_path / "a")
    assert clip.how == COPIED
    assert packets_of(clip.path, "video") == packets_of(videos[container], "video")[50:100]
    sound = packets_of(videos[container], "audio")
    copied = packets_of(clip.path, "audio")
    first = sound.index(copied[0])
    assert len(copied) > 80
    assert copied == sound[first : first + len(copied)]
    assert numbers_in(clip.path) == list(range(50, 100))
    _, on, _ = tone_in(clip.path)
    assert abs(on - 1.0) < 0.015


@needs_copies
def test_a_key_frame_shortly_before_is_near_enough_and_others_are_not(videos, tmp_path):
    near = cut_clip(videos["mp4"], 2.08, 4.0, tmp_path / "near")
    assert (near.how, numbers_in(near.path)[0]) == (COPIED, 50)
    far = cut_clip(videos["mp4"], 2.12, 4.0, tmp_path / "far")
    assert (far.how, numbers_in(far.path)[0]) == (ENCODED, 53)


@needs_copies
@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
def test_pictures_that_are_decoded_in_another_order_are_all_there(tmp_path, container):
    open_groups = {"preset": "medium", "g": "50", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
    source = write_sounding_video(tmp_path / f"b.{container}", options=open_groups)
    for number, (start, end) in enumerate([(2.04, 4.0), (0.04, 1.96), (3.04, 5.2)]):
        clip = cut_clip(source, start, end, tmp_path / f"{number}")
        shown = numbers_in(clip.path)
        assert shown == list(range(shown[0], shown[0] + len(shown)))
        assert abs(open_video(clip.path).duration - (end - start)) < 0.1 + FRAME_S + TRANSPORT_DELAY_S


@needs_copies
@pytest.mark.parametrize(("name", "first"), [("late.mkv", 7.0), ("late.ts", 72_000.0)])
def test_seconds_are_those_of_the_video_whatever_its_clock_says(tmp_path, name, first):
    source = write_sounding_video(tmp_path / name, first=first)
    for start, how in ((1.52, ENCODED), (2.0 + TRANSPORT_DELAY_S, COPIED)):
        clip = cut_clip(source, start, start + 2, tmp_path / how)
        assert clip.how == how
        check(clip, source, start, start + 2, within=0.1)


def test_a_moment_across_recordings_that_were_joined(tmp_path):
    one = write_sounding_video(tmp_path / "1.ts", 100)
    other = write_sounding_video(tmp_path / "2.ts", 100, first=3.0)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + other.read_bytes())
    clip = cut_clip(joined, 3.06, 6.06, tmp_path / "clip")
    assert clip.how == ENCODED
    shown = numbers_in(clip.path)
    assert shown[:24] == list(range(shown[0], shown[0] + 24))
    assert shown[-40:] == list(range(shown[-1] - 39, shown[-1] + 1))
    assert abs(shown[-1] - 50) <= 1
    _, on, off = tone_in(clip.path)
    assert on < 0.03  # second 3 of the first, and second 1 of the second one
    assert abs(off - (6.06 + TRANSPORT_DELAY_S - 3.06)) < 2 * FRAME_S


@needs_copies
@pytest.mark.parametrize("how", ["quarter turn to the right", "mirrored", "transposed, half turn"])
def test_a_clip_is_turned_as_its_video(tmp_path, how):
    source = write_video(tmp_path / "turned.mp4", 75)
    turn(source, how)
    for number, (start, kind) in enumerate([(0.0, COPIED), (1.0, ENCODED)]):
        clip = cut_clip(source, start, start + 1, tmp_path / f"{number}")
        assert clip.how == kind
        assert MATRICES[how] != MATRICES["as it is"]
        assert abs(frame_at(clip.path, 0.0) - frame_at(source, start)).mean() < 1


@pytest.mark.parametrize(("name", "start", "end"), [("bikes", 1.0, 1.4), ("carphone_pristine", 1.5, 2.0)])
def test_a_real_video_looks_the_same_pixels_of_its_shape_too(tmp_path, name, start, end):
    source = real_video(name)
    clip = cut_clip(source, start, end, tmp_path / "clip")
    assert abs(frame_at(clip.path, 0.0) - frame_at(source, start)).mean() < 3
    with av.open(str(source)) as one, av.open(str(clip.path)) as other:
        aspects = [file.streams.video[0].sample_aspect_ratio or Fraction(1) for file in (one, other)]
    assert aspects[0] == aspects[1]


def test_pictures_that_stay_for_long_do_so_in_the_clip(tmp_path):
    source = write_video(tmp_path / "slides.mp4", 4, times=[0, 0.5, 3.0, 9.0])
    clip = cut_clip(source, 1.0, 3.5, tmp_path / "clip")
    assert abs(open_video(clip.path).duration - 2.5) <= FRAME_S
    assert [number_of(frame_at(clip.path, second)) for second in (0.0, 1.9, 2.1)] == [1, 1, 2]


def test_a_moment_that_goes_on_after_its_video_ends_with_it(videos, tmp_path):
    clip = cut_clip(videos["mp4"], 5.0, 6.6, tmp_path / "clip")
    assert abs(open_video(clip.path).duration - 1.0) <= FRAME_S


@pytest.mark.parametrize(("encoder", "form"), [("ffv1", "yuv444p"), ("mjpeg", "yuvj420p")])
def test_odd_sides_lose_a_row_and_a_column_and_brightness_stays(tmp_path, monkeypatch, encoder, form):
    ramp = np.broadcast_to(np.linspace(0, 255, 71).astype(np.uint8)[None, :, None], (51, 71, 3)).copy()
    source = tmp_path / "odd.mkv"
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream(encoder, rate=25)
        stream.width, stream.height, stream.pix_fmt = 71, 51, form
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(ramp, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    monkeypatch.setattr(clip_module, "can_be_copied", lambda *_: False)  # all of them are key frames
    shown = frame_at(cut_clip(source, 0.5, 1.5, tmp_path / "clip").path, 0.0)
    assert shown.shape == (50, 70, 3)
    assert abs(shown - frame_at(source, 0.5)[:50, :70]).mean() < 3


def test_what_a_container_does_not_take_is_encoded(videos, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise NotWrittenError("no such codec")

    monkeypatch.setattr(clip_module, "copy_packets", refuse)
    assert cut_clip(videos["mp4"], 2.0, 3.0, tmp_path / "clip").how == ENCODED


def test_a_copy_that_cannot_be_decoded_is_encoded_instead(videos, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.mkv"
    content = videos["mkv"].read_bytes()
    key = packets_of(videos["mkv"], "video")[50]
    at = content.index(key)
    damaged.write_bytes(content[:at] + bytes(len(key)) + content[at + len(key) :])
    clip = cut_clip(damaged, 2.0, 4.6, tmp_path / "clip")
    assert clip.how == ENCODED
    assert open_video(clip.path).duration == pytest.approx(2.6, abs=0.1)
    assert [path.name for path in tmp_path.iterdir() if "clip" in path.name] == ["clip.mkv"]


def test_what_is_there_stays(videos, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"clip\.mp4: is there already"):
        cut_clip(videos["mp4"], 2.0, 3.0, tmp_path / "clip")
    assert (tmp_path / "clip.mp4").read_bytes() == b"mine"


def test_what_cannot_be_cut_is_named_and_leaves_nothing(videos, tmp_path):
    for name in ("mkv", "ts"):
        half = tmp_path / f"half.{name}"
        half.write_bytes(videos[name].read_bytes()[: videos[name].stat().st_size // 2])
        check(cut_clip(half, 0.52, 2.0, tmp_path / f"good_{name}"), videos[name], 0.52, 2.0)
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    (tmp_path / "frames").mkdir()
    out = tmp_path / "out"
    cannot = [(half, "ends at"), (tmp_path / "half.mkv", "truncated"), (text, "damaged or no video")]
    cannot += [(tmp_path / "frames", "folder of frames"), (tmp_path / "gone.mp4", "cannot be read")]
    for path, why in [*cannot, (sound, "no video in it")]:
        with pytest.raises(InputError, match=f"{path}: .*({why})"):
            cut_clip(path, 5.0, 6.0, out / "clip")
    with pytest.raises(InputError, match="before the moment begins"):
        cut_clip(videos["mp4"], 6.5, 7.5, out / "clip")
    assert not out.exists()


FULL = """
import resource
from pathlib import Path
from utils.cutting.clip import cut_clip
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for start in (0.52, 0.0):
    try:
        cut_clip(Path({!r}), start, start + 4, Path({!r}))
    except BaseException as err:
        print(type(err).__name__, err)
"""


def test_a_disk_without_room_is_named_and_nothing_is_left(videos, tmp_path):
    stem = str(tmp_path / "clip")
    code = FULL.format(str(videos["mkv"]), stem)
    found = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    lines = found.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"InputError {stem}.mkv: cannot be written (")
        assert "too large" in line
    assert list(tmp_path.iterdir()) == []


CUT = "from pathlib import Path; from utils.cutting.clip import cut_clip; cut_clip(Path({!r}), 0.2, 5.2, Path({!r}))"


def test_a_kill_leaves_no_clip(tmp_path):
    source, stem = real_video("bigbuckbunny"), tmp_path / "clip"
    running = subprocess.Popen([sys.executable, "-c", CUT.format(str(source), str(stem))], cwd=PROJECT_ROOT)
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".clip.mp4.*.part")):
        assert running.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "clip.mp4").exists()
    cut_clip(source, 0.0, 0.2, stem)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
