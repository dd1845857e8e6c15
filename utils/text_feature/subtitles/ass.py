"""Cues of Advanced SubStation Alpha (`.ass`) and SubStation Alpha (`.ssa`): the lines of dialogue that are shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from utils.text_feature.subtitles.cue import Cue, Problems
from utils.text_feature.subtitles.timed_text import LINE_END

_FIELDS = ("layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")
_TIME = re.compile(r"\s*(\d{1,4}):(\d{1,2}):(\d{1,2})(?:[.:,](\d{1,9}))?\s*")
_OVERRIDES = re.compile(r"(\{[^{}]*\})")  # comments too, which are not shown
_DRAWING = re.compile(r"\\p(\d)")
_BREAK = re.compile(r"\\[Nn]")


def ass_cues(text: str, problems: Problems) -> list[Cue]:
    """Cues by their place in the file; what several layers show at the same time is there once."""
    fields: Sequence[str] = _FIELDS
    cues: dict[tuple[float, float, str], Cue] = {}
    section = ""
    for number, line in enumerate(LINE_END.split(text), start=1):
        kind, _, content = line.partition(":")
        if line.startswith("["):
            section = line.strip().lower()
        elif kind == "Format" and section == "[events]":
            fields = [name.strip().lower() for name in content.split(",")]
        elif kind == "Dialogue":
            values = dict(zip(fields, content.split(",", len(fields) - 1), strict=False))
            times = _seconds(values.get("start", "")), _seconds(values.get("end", ""))
            if times[0] is None or times[1] is None or "text" not in values:
                problems.add("times or text not found, skipped", number, line)
            elif times[1] < times[0]:
                problems.add("ends before it starts, skipped", number, line)
            else:
                cue = Cue(_shown(values["text"]).split("\n"), times[0], times[1])
                cues.setdefault((cue.start, cue.end, "\n".join(cue.rows)), cue)
    return [cue for cue in cues.values() if any(row.strip() for row in cue.rows)]


def _seconds(time: str) -> float | None:
    match = _TIME.fullmatch(time)
    if match is None:
        return None
    hours, minutes, seconds, fraction = match.groups()
    return round(3600 * int(hours) + 60 * int(minutes) + int(seconds) + float(f"0.{fraction or 0}"), 3)


def _shown(text: str) -> str:
    """Text without overrides, and without the shapes that some of them draw."""
    drawing, shown = False, []
    for part in _OVERRIDES.split(text):
        if _OVERRIDES.fullmatch(part):
            for scale in _DRAWING.findall(part):
                drawing = scale != "0"
        elif not drawing:
            shown.append(part)
    return _BREAK.sub("\n", "".join(shown)).replace("\\h", " ")
