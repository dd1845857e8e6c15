"""Files of videos in a folder, found once, and served by the names of the videos alone; and how browsers play them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from method_tvr.web.answers import refusal
from utils.basic_utils import InputError, first_few
from utils.inventory.video_files import MEDIA_TYPES, files_of_videos
from utils.video_feature.frames import clock_start

CLOCK_START = "Clock-Start"  # header: seconds of the file's own clock at which second 0 of the video is shown


class MediaFiles(dict[str, Path]):
    """{vid_name: its file, without links}. Names are looked up there, never joined to a path.

    Attributes:
        unplayable: {vid_name: its file} of those that have only a file of a type that browsers do not play.
    """

    unplayable: Mapping[str, Path] = MappingProxyType({})

    @classmethod
    def in_folder(cls, folder: str | Path, vid_names: Iterable[str]) -> MediaFiles:
        """The files of some videos in a folder or its subfolders, called as the videos, with or without a suffix more.

        See `files_of_videos`.

        Raises:
            InputError: the folder cannot be listed.
        """
        all_files = files_of_videos(folder, vid_names)
        files = cls({name: path for name, path in all_files.items() if path.suffix.lower() in MEDIA_TYPES})
        files.unplayable = {name: all_files[name] for name in sorted(all_files.keys() - files.keys())}
        return files

    def _file(self, vid_name: str) -> Path | None:
        return self._as_found(self.get(vid_name))

    def file_to_cut(self, vid_name: str) -> Path | None:
        """The file of a video, whether browsers play it or not; None without one."""
        return self._as_found(self.get(vid_name) or self.unplayable.get(vid_name))

    @staticmethod
    def _as_found(path: Path | None) -> Path | None:
        if path is None or os.path.realpath(path) != str(path) or not path.is_file():  # a link may lie there since
            return None
        return path

    def response(self, vid_name: str) -> Response:
        """The file of a video, or the part of it that is asked for; 404 when there is none."""
        path = self._file(vid_name)
        if path is None:
            return refusal(404, "there is no file of this video")
        how = _playing(path)
        headers = {CLOCK_START: f"{how.start:.3f}"}
        return _VideoResponse(path, how.edits, headers=headers, media_type=MEDIA_TYPES[path.suffix.lower()])

    def clock_start(self, vid_name: str) -> float:
        """What a browser's player shows, in seconds, when the video begins; 0 without a file that can be read."""
        path = self._file(vid_name)
        return 0.0 if path is None else _playing(path).start

    def why_not(self, vid_name: str) -> str:
        """Why there is nothing to play of a video, and what to do."""
        path = self.unplayable.get(vid_name)
        if path is None:
            return "No file of this video: start the page with --videos DIR to watch it here."
        return f"Browsers do not play {path.suffix} files: {_remedy(path)}"

    def told(self) -> str:
        """Of how many videos no browser plays the file, with a remedy; empty if there are none."""
        names = list(self.unplayable)
        if not names:
            return ""
        suffixes = first_few(sorted({path.suffix for path in self.unplayable.values()}))
        said = f"note: browsers do not play {suffixes} files ({len(names)}: {first_few(names)})"
        return f"{said}: {_remedy(self.unplayable[names[0]])}"


def _remedy(path: Path) -> str:
    """How to make a copy that browsers play; it is named without its folder, which visitors need not know."""
    names = shlex.quote(path.name), shlex.quote(f"copies/{path.stem}.mp4")
    command = f"ffmpeg -i {names[0]} -c:v libx264 -pix_fmt yuv420p -c:a aac {names[1]}"
    return f"make copies that they do, such as by `{command}`, and start with --videos copies"


@dataclass(frozen=True)
class _Playing:
    """How a file is served.

    Attributes:
        start: seconds that a player shows when the video begins.
        edits: (place, bytes) to put there in place of what the file holds.
    """

    start: float = 0.0
    edits: Sequence[tuple[int, bytes]] = ()


def _playing(path: Path) -> _Playing:
    found = path.stat()
    return _playing_of(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=10_000)
def _playing_of(path: Path, _size: int, _changed: int) -> _Playing:
    """Once for each file, as long as its size and time stay."""
    try:
        start = clock_start(path)
    except InputError:  # the browser tells who wants to play it; without PyAV, as most files have it
        return _Playing()
    if start == 0 or path.suffix.lower() not in {".mp4", ".m4v", ".mov"}:
        return _Playing(start)
    # Chromium does not jump further in them than their length, in which it leaves out the time before they begin
    scale, pauses = _leading_pauses(path)
    shift = min([round(start * scale), *(pause.length for pause in pauses)]) if pauses else 0
    edits = [(pause.place, (pause.length - shift).to_bytes(pause.width, "big")) for pause in pauses]
    return _Playing(max(start - shift / scale, 0.0), edits) if shift > 0 else _Playing(start)


@dataclass(frozen=True)
class _Pause:
    """What a track of an mp4 file waits for before it begins: `length` units of the movie, `width` bytes at a place."""

    place: int
    width: int
    length: int


def _leading_pauses(path: Path) -> tuple[int, list[_Pause]]:
    """Units a second of an mp4 file (.mov, .m4v), and the empty edits that its tracks begin with; 1, [] of others."""
    scale, found = 1, []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for kind, begin in _boxes(file, 0, size, within=("moov", "trak", "edts")):
            file.seek(begin)
            head = file.read(24)
            width = 8 if head[:1] == b"\x01" else 4
            if kind == "mvhd":
                scale = max(int.from_bytes(head[4 + 2 * width :][:4], "big"), 1)
            elif kind == "elst" and head[8 + width : 8 + 2 * width] == b"\xff" * width:
                found.append(_Pause(begin + 8, width, int.from_bytes(head[8 : 8 + width], "big")))
    return scale, found


def _boxes(file: BinaryIO, begin: int, end: int, within: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(kind, begin of the content) of the boxes in a part of an mp4 file; `within`: which to look into, by depth."""
    while begin + 8 <= end:
        file.seek(begin)
        head = file.read(16)
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:8].decode("latin-1"), 8
        if size == 1:
            size, content = int.from_bytes(head[8:], "big"), 16
        size = size or end - begin
        if size < content or begin + size > end:
            return
        if [kind] == list(within[:1]):
            yield from _boxes(file, begin + content, begin + size, within[1:])
        else:
            yield kind, begin + content
        begin += size


class _VideoResponse(FileResponse):
    """A file with some bytes replaced, whose refusals (no such range) are in the form of all others."""

    def __init__(self, path: Path, edits: Sequence[tuple[int, bytes]], **how: Any) -> None:
        super().__init__(path, **how)
        self._edits = edits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: Response | None = None
        at = 0  # of the file, where the next bytes come from

        async def send_or_refuse(message: Message) -> None:
            nonlocal refused, at
            if message["type"] == "http.response.start":
                found = MutableHeaders(raw=message["headers"]).get("content-range")
                if message["status"] >= 400:
                    refused = refusal(message["status"], "Range: ask for bytes=FIRST-LAST within the file")
                    if found:
                        refused.headers["content-range"] = found
                    await refused(scope, receive, send)
                    return
                at = int(found.removeprefix("bytes ").partition("-")[0]) if found else 0
            if refused is not None:
                return
            if self._edits and message.get("body"):
                body = _edited(message["body"], at, self._edits)
                at += len(body)
                message = {**message, "body": body}
            await send(message)

        await super().__call__(scope, receive, send_or_refuse)


def _edited(part: bytes, at: int, edits: Sequence[tuple[int, bytes]]) -> bytes:
    """A part of a file, which begins at a place of it, with the bytes of edits in it."""
    edited = bytearray(part)
    for place, content in edits:
        for number, byte in enumerate(content, start=place - at):
            if 0 <= number < len(edited):
                edited[number] = byte
    return bytes(edited)
