"""A small folder of videos, subtitles and sentences, for extraction by tiny models of images and text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.raw_corpus import srt
from tests.support.text_models import Finished, run_command
from tests.support.video_files import write_video
from utils import extract_features

SECONDS = {"a": 3.2, "b": 4.8, "c": 1.6, "d": 3.2}
LINES = {
    "a": [(0.2, 1.4, "Nora opens the door."), (1.2, 2.9, "Sam!"), (1.6, 1.9, "Nora opens the door.")],
    "b": [(0.1, 1.0, "A red bicycle.")],
}  # of the others, nothing is said


def make_videos(folder: Path) -> Path:
    """Write it."""
    for part in ("videos", "subtitles"):
        (folder / part).mkdir(parents=True)
    for name, seconds in SECONDS.items():
        write_video(folder / "videos" / f"{name}.mp4", round(seconds * 25))
    for name, lines in LINES.items():
        (folder / "subtitles" / f"{name}.srt").write_text(srt(lines))
    rows = [
        {"desc": f"Ruth paints {name}.", "vid_name": name, "ts": [0, 1.5], "desc_id": i}
        for i, name in enumerate(SECONDS)
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def extract(folder: Path, out: Path, **options: Any) -> Finished:
    """Run the command that makes a corpus of it, in this process; True makes an option a flag."""
    given = {
        "videos": folder / "videos",
        "subtitles": folder / "subtitles",
        "queries": folder / "queries.jsonl",
        "out": out,
        "frame_rate": 2.0,
        "decode_threads": 1,
        "device": -1,
        **options,
    }
    argv: list[object] = []
    for name, value in given.items():
        argv += [f"--{name}"] if value is True else [f"--{name}", value]
    return run_command(extract_features.main, argv)
