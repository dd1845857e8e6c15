"""Which of the files in a folder are a video's subtitles, by their names, and why others are not read."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from utils.basic_utils import InputError
from utils.inventory.video_folder import VIDEO_SUFFIXES
from utils.storage.folders import entries_of
from utils.text_feature.subtitle_files import SUFFIXES
from utils.video_feature.frames import PICTURE_SUFFIXES

FilesByName = Mapping[str, Sequence[Path]]

_EXPORT = "not read: save it as .srt, for example with Subtitle Edit"
_FFMPEG = "not read: ffmpeg -i FILE FILE.srt makes an .srt of it"
_PICTURES = "pictures of text, not read: Subtitle Edit recognises the letters and saves .srt"
_REASONS = {
    **dict.fromkeys((".ttml", ".dfxp", ".xml", ".itt", ".sbv", ".srv1", ".srv2", ".srv3", ".json3", ".ttxt"), _EXPORT),
    **dict.fromkeys((".lrc", ".smi", ".sami", ".scc", ".stl", ".mpl", ".mpl2", ".jss", ".pjs", ".rt"), _FFMPEG),
    **dict.fromkeys((".idx", ".sup"), _PICTURES),
    ".sub": "not read: counts frames (MicroDVD: ffmpeg -i FILE FILE.srt) or holds pictures (VobSub)",
    ".txt": "text without times, not read",
    ".tsv": "not read: give the .srt, .vtt or .json that whisper writes with it",
}
_NO_FORM = "no form of subtitles that is read"
_UNCLEAR = "not read, since its name is not that of one video: call it VIDEO.srt or VIDEO.en.srt"
# lie beside videos for other reasons
_NO_SUBTITLES = VIDEO_SUFFIXES | PICTURE_SUFFIXES | {".webp", ".gif", ".mp3", ".m4a", ".aac", ".opus", ".wav", ".flac"}


def choose(names: Sequence[str], ways: Sequence[FilesByName]) -> dict[str, list[Path]]:
    """The files of each video, the one to take first, by the first of the ways to call them in which there are any.

    Upper and lower case, and the forms in which Unicode writes an accent, differ between systems: a file whose name
    differs from a video's in them alone is taken if it is no other video's.
    """
    chosen = {name: next((list(way[name]) for way in ways if name in way), []) for name in names}
    taken = {path for paths in chosen.values() for path in paths}
    likes = [_by_likeness(way, taken) for way in ways]
    n_like = Counter(map(alike, names))
    for name in names:
        like = alike(name)
        if not chosen[name] and n_like[like] == 1:
            chosen[name] = next((way[like] for way in likes if like in way), [])
    return {name: sorted(paths, key=_preference) for name, paths in chosen.items()}


def alike(name: str) -> str:
    """The same for names that differ in case or in Unicode's form alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def without_container(files: FilesByName) -> dict[str, list[Path]]:
    """The files called as whole video files, "film.mp4.srt", by the videos' names."""
    found: dict[str, list[Path]] = {}
    for stem, paths in files.items():
        if PurePath(stem).suffix.lower() in VIDEO_SUFFIXES:
            found.setdefault(PurePath(stem).stem, []).extend(paths)
    return found


def not_read(silent: Sequence[str], others: Iterable[Path]) -> dict[str, list[str]]:
    """Names by the reason why they are not read, of files among `others` that are called as videos that have none."""
    wanted = {alike(name) for name in silent}
    reasons: dict[str, list[str]] = {}
    for path in others:
        parts = path.name.split(".")
        begins = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        if any(alike(begin) in wanted for begin in begins) and not lies_beside(path):
            reasons.setdefault(_reason(path), []).append(path.name)
    return reasons


def lies_beside(path: Path) -> bool:
    """Whether nobody takes it for subtitles: a video, its pictures or sound, or what yt-dlp knows of it."""
    if os.path.isdir(path):
        try:
            return any(entry.suffix.lower() in PICTURE_SUFFIXES for entry in entries_of(path, "look into it"))
        except InputError:  # it is told of like any other folder
            return False
    return path.suffix.lower() in _NO_SUBTITLES or path.name.lower().endswith(".info.json")


def _reason(path: Path) -> str:
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        return "a folder, not looked into: put its files into the folder of subtitles, called as the videos"
    if suffix in SUFFIXES:
        return _UNCLEAR
    return f"{suffix}: {_REASONS.get(suffix, _NO_FORM)}"


def _by_likeness(way: FilesByName, taken: set[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for name, paths in way.items():
        free = [path for path in paths if path not in taken]
        if free:
            found.setdefault(alike(name), []).extend(free)
    return found


def _preference(path: Path) -> tuple[bool, int, str]:
    """Sorts forced subtitles, which hold what is said in another language alone, last; then by form, then by name."""
    form = max(0, SUFFIXES.index(path.suffix.lower()) - 1)  # .srt and .vtt are as good
    return ".forced." in path.name.lower(), form, path.name
