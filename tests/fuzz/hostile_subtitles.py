"""Subtitle files in each form that is read, hit in their bytes."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

from tests.fuzz.mutations import hostile_json, mutate_bytes
from utils.text_feature.subtitle_files import read_subtitles

_SRT = "1\n00:00:01,000 --> 00:00:02,500\nHi there.\n\n2\n00:00:02,500 --> 00:00:04,000\n\n<i>Hi</i> {\\an8}ü.\n\n"
_VTT = (
    "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n\nNOTE x\n\n"
    "00:00.160 --> 00:03.429 align:start position:0%\n \nLinus,<00:00:00.960><c> do</c> &amp; don't\n\n"
    "00:03.429 --> 00:03.439\nLinus, do & don't\n \n\n"
    "00:03.439 --> 00:05.749\nLinus, do & don't\nthat<00:04.000><c> is</c>\n\n"
    "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:1350000\n\n00:01.000 --> 00:02.000\n<v Ann>that is\n"
)
_ASS = (
    "[Script Info]\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
    "Dialogue: 0,0:00:01.00,0:00:02.25,A,{\\p1}m 0 0{\\p0}{\\i1}Hello\\Nthere\nComment: 0,0:00:01.00,0:00:02.25,A,no\n"
)
_WHISPER = {
    "text": "Hi.",
    "segments": [{"id": 0, "start": 0.0, "end": 1.5, "text": " Hi."}, {"start": 2, "end": 3, "text": ""}],
}


def write(rng: Random, folder: Path) -> None:
    if rng.random() < 0.3:
        (folder / "in.json").write_bytes(hostile_json(rng, _WHISPER))
        return
    name, text = rng.choice((("in.srt", _SRT), ("in.vtt", _VTT), ("in.ass", _ASS)))
    content = text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16", "cp1252")))
    (folder / name).write_bytes(mutate_bytes(rng, content))


def read(folder: Path) -> None:
    (path,) = folder.iterdir()
    lines, problems = read_subtitles(path)
    assert lines or problems
    assert all(type(line["text"]) is str and 0 <= line["start"] <= line["end"] < math.inf for line in lines)
    assert sorted(line["start"] for line in lines) == [line["start"] for line in lines]
