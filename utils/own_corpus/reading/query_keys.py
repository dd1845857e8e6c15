"""Keys of queries under the names that others give them: what can mean one thing only is read, and said."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from utils.own_corpus.layout import TEST, TRAIN, VAL, split_name

# in the order of how sure it is
OTHER_KEYS = {
    "desc": ("query", "sentence", "description", "caption", "question", "text"),
    "vid_name": ("video", "video_name", "vid", "video_id"),
    "ts": ("timestamp", "timestamps", "moment", "moments", "span", "segment", "interval", "window", "relevant_windows"),
    "split": ("subset",),
}
BOUNDS = (
    ("start", "end"),
    ("start_time", "end_time"),
    ("start_s", "end_s"),
    ("start_sec", "end_sec"),
    ("start_seconds", "end_seconds"),
    ("begin", "end"),
    ("t_start", "t_end"),
)
TEXT_KEYS = frozenset(("desc", "vid_name", "split", "type"))
OTHER_SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), VAL),
    **dict.fromkeys(("test", "testing", TEST), TEST),
}
_KEYS = {other: key for key, others in OTHER_KEYS.items() for other in (key, *others)}
_ABOUT_TIME = re.compile(r"start|end|begin|stop|from|to|ts|t|.*(time|moment|span|segment|window|second|frame).*")
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):(\d{1,2}(?:[.,]\d+)?)")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def plain(key: str) -> str:
    """A key as it is compared: "startTime" and "Start time" are start_time."""
    return re.sub(r"[\s-]+", "_", _CAMEL.sub("_", key.strip())).casefold()


def key_meant(key: str) -> str:
    """The key that another name stands for, itself if it is no other name of one."""
    return _KEYS.get(plain(key), plain(key))


def standard_keys(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a row says, with `desc`, `vid_name`, `ts` and `split` under these names; and what is to be said of it.

    `ValueError` says what is wrong with a moment that is given under another name.
    """
    row, taken, notes = dict(content), [], []
    for key in ("desc", "vid_name", "split"):
        named = [name for name in content if key_meant(name) == key and isinstance(content[name], str)]
        if row.get(key) is None and len(named) == 1:
            row[key] = content[named[0]]
            taken.append(f'"{named[0]}" as "{key}"')
        elif row.get(key) is None and named:
            notes.append(f'not read, for each may be "{key}": {_listed(named)}')
    if row.get("ts") is None:
        moment, names = _moment(content)
        if moment is not None:
            row["ts"] = moment
            taken.append(f'{_listed(names)} as "ts"')
        elif names:
            notes.append(f'not read, and there is no "ts" [start, end] in seconds: {_listed(names)}')
    return row, [f"read: {', '.join(taken)}", *notes] if taken else notes


def _moment(content: Mapping[str, Any]) -> tuple[list[float] | None, Sequence[str]]:
    """[start, end] and the keys that say it, others than `ts`; or None and the keys that may mean to."""
    given = {plain(key): key for key, value in content.items() if value is not None}
    found: dict[tuple[str, ...], list[float]] = {}
    for start, end in BOUNDS:
        if start in given and end in given:
            found[given[start], given[end]] = [_seconds(given[key], content[given[key]]) for key in (start, end)]
    for key in ("ts", *OTHER_KEYS["ts"]):
        if key in given and isinstance(content[given[key]], list):
            found[given[key],] = _pair(given[key], content[given[key]])
    if found:
        if any(moment != next(iter(found.values())) for moment in found.values()):
            raise ValueError(
                f'{_listed([name for names in found for name in names])} disagree: give one of them, as "ts"'
            )
        names, moment = next(iter(found.items()))
        return moment, names
    return None, [key for key, value in content.items() if key not in ("ts", "duration") and _may_be_time(key, value)]


def _may_be_time(key: str, value: Any) -> bool:
    if isinstance(value, list):
        if len(value) == 2 and all(type(each) in (int, float) for each in value):
            return True
    elif type(value) not in (int, float) and not (isinstance(value, str) and _CLOCK.fullmatch(value)):
        return False
    return _ABOUT_TIME.fullmatch(plain(key)) is not None


def _pair(name: str, value: list[Any]) -> list[float]:
    while len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if len(value) > 1 and all(isinstance(moment, list) for moment in value):
        raise ValueError(f'"{name}" has {len(value)} moments: write a line with one "ts" [start, end] for each')
    if len(value) != 2:
        raise ValueError(f'"{name}" {reprlib.repr(value)} is not [start, end] in seconds')
    return [_seconds(name, time) for time in value]


def _seconds(name: str, value: Any) -> float:
    """A number, or text such as "1.5" or "0:01:02.5"."""
    if isinstance(value, str):
        clock = _CLOCK.fullmatch(value.strip())
        try:
            value = float(value) if clock is None else _of_clock(*clock.groups())
        except ValueError:
            raise ValueError(f'"{name}" {reprlib.repr(value)} is no time in seconds') from None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f'"{name}" {reprlib.repr(value)} is no time in seconds')
    return float(value)


def _of_clock(hours: str | None, minutes: str, seconds: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))


def splits_meant(given: set[str]) -> dict[str, str]:
    """The split that a name such as "validation" stands for, where no other name of the same file stands for it."""
    meant = {name: OTHER_SPLITS.get(name.casefold(), name) for name in given}
    unclear = {split for split in meant.values() if list(meant.values()).count(split) > 1}
    return {name: split_name(name) if split in unclear else split for name, split in meant.items()}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
