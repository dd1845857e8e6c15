"""Subtitles that videos have and that are not read: tracks inside their files, and files beside them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from utils.basic_utils import InputError, first_few
from utils.storage.folders import entries_of, files_below
from utils.text_feature.subtitle_files import SUFFIXES
from utils.video_feature.decoding import check_decoder, opened


def notes_on_tracks(videos: Mapping[str, Path], subtitles: Path | None) -> list[str]:
    """A note on those of some silent videos whose files hold subtitles as text, with the command that takes them out.

    `subtitles` is the folder of subtitle files, if there is one. Files are opened, nothing is decoded.
    """
    tracks = {name: track for name, path in videos.items() if (track := _first_text_track(path)) is not None}
    if not tracks:
        return []
    name, track = next(iter(tracks.items()))
    target = (subtitles or Path("SUBTITLES")) / f"{name}.srt"
    command = f"ffmpeg -i {shlex.quote(str(videos[name]))} -map 0:s:{track} {shlex.quote(str(target))}"
    return [f"silent, though the file holds a subtitle track, which is not read: {first_few([*tracks])}: {command}"]


def files_beside(videos: Iterable[Path]) -> list[str]:
    """The names of subtitle files in the folders of videos."""
    folders = sorted({path.parent for path in videos})
    found = [path.name for folder in folders for path in entries_of(folder, "give the folder with the videos")]
    return [name for name in found if _is_subtitles(name) and not name.startswith(".")]


def subtitles_in(folder: Path) -> list[Path]:
    """The subtitle files in a folder and those below it, but for such as may be anything."""
    return files_below(folder, lambda name: _is_subtitles(name) and not name.startswith("."), "give another folder")


def _is_subtitles(name: str) -> bool:
    return name.lower().endswith(tuple(suffix for suffix in SUFFIXES if suffix != ".json"))  # which may be anything


def _first_text_track(path: Path) -> int | None:
    """The number of the first track of text among the subtitle tracks in a file, if there is one."""
    if os.path.isdir(path):
        return None
    check_decoder()
    with suppress(InputError), opened(path, 1) as (container, _):  # what cannot be opened is told with its frames
        for number, stream in enumerate(container.streams.subtitles):
            if stream.codec_context is not None and stream.codec_context.codec.text_sub:
                return number
    return None
