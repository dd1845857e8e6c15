"""The files of videos that are known by their names, in a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from utils.basic_utils import StrPath, first_few
from utils.inventory.names import Names
from utils.inventory.video_folder import VIDEO_SUFFIXES
from utils.storage.folders import files_below

# what browsers play, by suffix, those first that more of them play
MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
}


def files_of_videos(folder: StrPath, vid_names: Iterable[str]) -> dict[str, Path]:
    """{vid_name: its file, without links} in a folder or its subfolders, called as the video, with a suffix or two.

    Of several for a video, that of the type that most browsers play is taken, and said if folders differ. A name may
    differ in its Unicode form, case or kind of spaces alone. Links that lead out of the folder are passed over.

    Raises:
        InputError: the folder cannot be listed.
    """
    root, wanted, suffixes = Path(os.path.realpath(folder)), Names(vid_names), list(MEDIA_TYPES)
    found: dict[str, Path] = {}
    others: dict[str, Path] = {}
    folders: dict[str, set[Path]] = {}

    def order(path: Path) -> tuple[bool, int]:
        suffix = path.suffix.lower()
        place = suffixes.index(suffix) if suffix in MEDIA_TYPES else len(suffixes)
        return path.stem not in wanted and path.name not in wanted, place

    for path in sorted(files_below(root, _is_video, "--videos: name a folder that can be read"), key=order):
        for name in filter(None, {wanted.known(path.stem), wanted.known(path.name)}):
            target = Path(os.path.realpath(path))
            if not target.is_relative_to(root) or not target.is_file():
                continue
            if target.suffix.lower() not in MEDIA_TYPES:
                others.setdefault(name, target)
                continue
            found.setdefault(name, target)
            folders.setdefault(name, set()).add(path.parent)
    if several := [name for name, places in folders.items() if len(places) > 1]:
        told = "videos with files in several folders, one of which is taken"
        print(f"note: {root}: {told}: {first_few(several)}", file=sys.stderr, flush=True)
    return others | found


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES | MEDIA_TYPES.keys()
