"""What is on record of how a corpus of one's own was extracted, found by the place of its durations.

The record is `NAME_made_by.json`, beside `NAME_video2dur_idx.json`. It may come from anyone with the corpus: what it
names is told to the user, or taken where nobody but the user can have written it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from method_tvr.options.saved import find_path
from utils.basic_utils import read_json
from utils.dataset_files import durations_prefix, manifest_path, subtitles_path
from utils.own_corpus.layout import earlier_subtitles


def record_path(video_duration_idx_path: str) -> Path | None:
    """The record beside a file of durations, if it is there."""
    durations = find_path(video_duration_idx_path)
    prefix = durations_prefix(durations)
    path = None if prefix is None else manifest_path(durations.parent, prefix)
    return path if path is not None and path.is_file() else None


def recorded(video_duration_idx_path: str, option: str) -> str | None:
    """What was given for an option of `utils/extract_features.sh`, if that is on record; `InputError` if it is no JSON.

    A relative path is one from the folder that the command was typed in, which nobody knows: it is as it was typed.
    """
    path = record_path(video_duration_idx_path)
    said: Any = read_json(path, "remove it, or put the whole one back") if path is not None else None
    options = said.get("options") if isinstance(said, Mapping) else None
    value = options.get(option) if isinstance(options, Mapping) else None
    return value if isinstance(value, str) and "\0" not in value else None


def subtitles_beside(video_duration_idx_path: str) -> Path | None:
    """The subtitles of a corpus, if they lie beside its durations, or where an earlier version left them."""
    durations = find_path(video_duration_idx_path)
    prefix = durations_prefix(durations)
    if prefix is None:
        return None
    places = subtitles_path(durations.parent, prefix), earlier_subtitles(durations.parent, prefix)
    return next((path for path in places if path.is_file()), None)
