"""Cues of whisper's `.json`: `{"segments": [{"start": seconds, "end": seconds, "text": …}, …]}`."""

from __future__ import annotations

import json
from typing import Any, TypeGuard

from utils.basic_utils import InputError
from utils.text_feature.subtitles.cue import Cue, Problems

LONGEST_S = 10**9  # also of whole numbers, which have no infinity


def whisper_cues(text: str, problems: Problems) -> list[Cue]:
    """Cues of a transcript; `InputError` when the file is none."""
    cues = []
    for number, segment in enumerate(_segments(text, problems.path), start=1):
        said = segment if isinstance(segment, dict) else {}
        start, end, words = said.get("start"), said.get("end"), said.get("text")
        if not _is_time(start) or not _is_time(end) or not isinstance(words, str) or end < start:
            problems.add("a segment without text or times that make sense, skipped", None, f"segment {number}")
        elif words.strip():
            cues.append(Cue(words.strip().split("\n"), round(float(start), 3), round(float(end), 3)))
    return cues


def _segments(text: str, path: str) -> list[Any]:
    try:
        content = json.loads(text)  # not orjson, which refuses the NaN that whisper writes of its confidence
    except (ValueError, RecursionError):
        content = None
    segments = content.get("segments") if isinstance(content, dict) else None
    if not isinstance(segments, list):
        raise InputError(f'{path}: is no transcript of whisper: has no "segments" with start, end and text')
    return segments


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LONGEST_S
