"""What lies in a folder of videos: which are taken, which cannot be, and what is not looked at, all of it said."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standalone_eval.files.terminal import printable
from utils.basic_utils import InputError, StrPath, first_few, is_name
from utils.storage.folders import entries_of

VIDEO_SUFFIXES = frozenset(
    (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv")
)
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))
SUBTITLE_SUFFIXES = frozenset((".ass", ".dfxp", ".sbv", ".srt", ".ssa", ".sub", ".ttml", ".vtt"))

# why something is not looked at; the last is in the record alone
OTHER_SUFFIX = f"files that are no videos by their suffix ({' '.join(sorted(VIDEO_SUFFIXES))}), not looked at"
SUBTITLES = "subtitle files beside the videos, read only from the folder that --subtitles names"
PHOTOS = "pictures that are no frames of a video (those lie in a folder of their own, numbered), not looked at"
BESIDE_FRAMES = "files and folders beside frames, in a folder that is a video of them, not looked at"
HIDDEN = "hidden files and folders, not looked at"
LINKED = "links to folders, not looked into"
CLOSED = "folders that cannot be read, not looked into"
HIGHER_UP = "videos in subfolders that are called as one higher up, not taken"
OF_SYSTEM = "files that systems leave in folders, not looked at"
_OF_SYSTEM = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|@eaDir|__MACOSX|\$RECYCLE\.BIN", re.IGNORECASE)


@dataclass
class Inventory:
    """All that lies in a folder of videos and its subfolders."""

    folder: Path
    taken: dict[str, Path] = field(default_factory=dict)  # files, and folders of frames, by vid_name
    failed: dict[str, str] = field(default_factory=dict)  # what cannot be taken: why, by vid_name
    passed_over: dict[str, list[str]] = field(default_factory=dict)  # places in the folder by why they are

    def notes(self) -> dict[str, list[str]]:
        """What is to be said of the folder, each with the places that it is about."""
        said = {why: places for why, places in self.passed_over.items() if why != OF_SYSTEM}
        frames = [name for name, path in self.taken.items() if path.is_dir()]
        return said | ({"folders of numbered pictures, each taken for the frames of a video": frames} if frames else {})

    def summary(self) -> str:
        """How much there is, in one line."""
        others = len(self.failed) + sum(len(places) for why, places in self.passed_over.items() if why != OF_SYSTEM)
        told = f"; {others} other files and folders are not taken, the notes at the end say which" if others else ""
        return f"{self.folder}: {len(self.taken)} videos{told}"

    def record(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {"taken": len(self.taken), "failed": self.failed, "passed_over": self.passed_over}


def find_videos(folder: StrPath, made: Iterable[StrPath] = ()) -> dict[str, Path]:
    """The videos of `take_inventory`, by name; prints what else there is.

    Raises:
        InputError: as `take_inventory`.
    """
    found = take_inventory(folder, made)
    for reason in found.failed.values():
        print(f"skipped: {reason}", file=sys.stderr, flush=True)
    for why, places in found.notes().items():
        print(f"note: {found.folder}: {why}: {first_few(places)}", file=sys.stderr, flush=True)
    return found.taken


def take_inventory(folder: StrPath, made: Iterable[StrPath] = (), read: Iterable[StrPath] = ()) -> Inventory:
    """Look through a folder and its subfolders, but not through links to folders.

    A video is a file, called as it without the suffix, or a folder of frames: pictures whose names are the same but for
    one number, and no video in it or below. Of several of one name the one highest up is taken; if there are several
    there, none is.

    Args:
        made: files and folders of the command itself, which may lie there.
        read: files, and folders of files, that are read as something else than videos.

    Raises:
        InputError: there is no such folder, or no video in it.
    """
    looking = _Looking(Path(folder), _real(made), _real(read))
    looking.look_through()
    found = looking.found
    for name, paths in sorted(looking.by_name.items()):
        _take(found, name, paths)
    if not found.taken:
        raise InputError(_nothing(found))
    return found


def _real(paths: Iterable[StrPath]) -> frozenset[str]:
    return frozenset(os.path.realpath(path) for path in paths)


class _Looking:
    """A walk through a folder, and what it has found."""

    def __init__(self, folder: Path, made: frozenset[str], read: frozenset[str]) -> None:
        self.found, self._made, self._read = Inventory(folder), made, read
        self.by_name: dict[str, list[Path]] = {}

    def look_through(self) -> None:
        waiting = [self.found.folder]
        while waiting:
            folder = waiting.pop()
            is_root = folder == self.found.folder
            try:
                entries = entries_of(folder, "give the folder with the videos")
            except InputError:  # such as lost+found
                if is_root:
                    raise
                self._pass_over(CLOSED, folder)
                continue
            real = os.path.realpath(folder)
            entries = [entry for entry in entries if os.path.join(real, entry.name) not in self._made]
            entries = [entry for entry in entries if not self._is_hidden(entry)]
            if not is_root and _is_of_frames(folder, entries):
                self._add(folder.name, folder)
                beside = [entry for entry in entries if os.path.isdir(entry) or not _is_picture(entry)]
                for entry in beside:
                    self._pass_over(BESIDE_FRAMES, entry)
                continue
            waiting += [entry for entry in reversed(entries) if self._is_to_be_looked_into(entry)]
            for entry in entries:
                if not os.path.isdir(entry):
                    self._look_at(entry)

    def _is_hidden(self, entry: Path) -> bool:
        if _OF_SYSTEM.fullmatch(entry.name):
            self._pass_over(OF_SYSTEM, entry)
        elif entry.name.startswith("."):
            self._pass_over(HIDDEN, entry)
        else:
            return False
        return True

    def _is_to_be_looked_into(self, entry: Path) -> bool:
        """Whether it is a folder; of links only those to folders of frames, which lead nowhere else."""
        if not os.path.isdir(entry):
            return False
        if not os.path.islink(entry):
            return True
        try:
            is_of_frames = _is_of_frames(entry, entries_of(entry, ""))
        except InputError:
            is_of_frames = False
        if not is_of_frames:
            self._pass_over(LINKED, entry)
        return is_of_frames

    def _look_at(self, file: Path) -> None:
        if file.suffix.lower() in VIDEO_SUFFIXES:
            self._add(file.stem, file)
        elif {os.path.realpath(file), os.path.realpath(file.parent)} & self._read:
            return
        elif _is_picture(file):
            self._pass_over(PHOTOS, file)
        else:
            self._pass_over(SUBTITLES if file.suffix.lower() in SUBTITLE_SUFFIXES else OTHER_SUFFIX, file)

    def _add(self, name: str, path: Path) -> None:
        self.by_name.setdefault(name, []).append(path)

    def _pass_over(self, why: str, path: Path) -> None:
        self.found.passed_over.setdefault(why, []).append(_place(self.found, path))


def _place(found: Inventory, path: Path) -> str:
    """Where something lies in the folder, as it can be printed and written to JSON."""
    return printable(str(path.relative_to(found.folder))) + "/" * os.path.isdir(path)


def _take(found: Inventory, name: str, paths: Sequence[Path]) -> None:
    """Put the one of some videos of a name that is highest up into `taken`, or say why none can be."""
    if not is_name(name) or not name.strip():
        for path in paths:
            place = _place(found, path)
            found.failed[place] = f"{found.folder / place}: is no name that a feature file can hold: rename it"
        return
    highest = min(len(path.parts) for path in paths)
    of_these = [path for path in paths if len(path.parts) == highest]
    if len(of_these) > 1:
        places = " and ".join(_place(found, path) for path in of_these)
        found.failed[name] = f"{found.folder}: {places} would have one name: rename one"
        return
    found.taken[name] = of_these[0]
    lower = [_place(found, path) for path in paths if path is not of_these[0]]
    if lower:
        found.passed_over.setdefault(HIGHER_UP, []).extend(lower)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def _is_of_frames(folder: Path, entries: Sequence[Path]) -> bool:
    pictures = [entry.stem for entry in entries if _is_picture(entry) and not entry.name.startswith(".")]
    if not pictures or not _are_numbered(pictures):
        return False
    names = (name for _, _, names in os.walk(folder) for name in names)
    return not any(Path(name).suffix.lower() in VIDEO_SUFFIXES for name in names)


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether names are the same but for one number."""
    parts = [re.split(r"(\d+)", name.casefold()) for name in names]
    if len({len(each) for each in parts}) > 1 or len(parts[0]) == 1:
        return False
    differing = [place for place, values in enumerate(zip(*parts, strict=True)) if len(set(values)) > 1]
    return len(differing) == (len(names) > 1) and all(place % 2 for place in differing)  # numbers are at odd places


def _nothing(found: Inventory) -> str:
    """Why nothing in a folder can be taken."""
    if found.failed:
        return "; ".join(list(found.failed.values())[:3])
    what = f"holds no videos ({' '.join(sorted(VIDEO_SUFFIXES))}) and no folders of pictures"
    seen: Mapping[str, list[str]] = found.notes()
    but = "".join(f"; {why}: {first_few(places)}" for why, places in seen.items())
    return f"{found.folder}: {what}{but}"
