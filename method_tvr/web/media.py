"""Files of videos in a folder, found once, and served by the names of the videos alone; and how browsers play them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from method_tvr.web.answers import refusal
from utils.basic_utils import InputError, first_few
from utils.folders import files_below
from utils.video_feature.frames import VIDEO_SUFFIXES, clock_start

# by suffix, those first that more browsers play
MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
}

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

        Of several for a video, that of the type that most browsers play is taken. Links that lead out of the folder
        are passed over.

        Raises:
            InputError: the folder cannot be listed.
        """
        root, wanted, suffixes = Path(os.path.realpath(folder)), set(vid_names), list(MEDIA_TYPES)
        found: dict[str, Path] = {}
        listed = files_below(root, _is_video, "--videos: name a folder that can be read")
        playable = [path for path in listed if path.suffix.lower() in MEDIA_TYPES]
        for path in sorted(playable, key=lambda path: suffixes.index(path.suffix.lower())):
            for name in ({path.stem, path.name} & wanted) - found.keys():
                target = Path(os.path.realpath(path))
                if target.is_relative_to(root) and target.is_file() and target.suffix.lower() in MEDIA_TYPES:
                    found[name] = target
        files = cls(found)
        others = {name: path for path in sorted(set(listed) - set(playable)) for name in (path.stem, path.name)}
        files.unplayable = {name: others[name] for name in sorted((others.keys() & wanted) - found.keys())}
        return files

    def _file(self, vid_name: str) -> Path | None:
        path = self.get(vid_name)
        if path is None or os.path.realpath(path) != str(path) or not path.is_file():  # a link may lie there since
            return None
        return path

    def response(self, vid_name: str) -> Response:
        """The file of a video, or the part of it that is asked for; 404 when there is none."""
        path = self._file(vid_name)
        if path is None:
            return refusal(404, "there is no file of this video")
        headers = {CLOCK_START: f"{self.clock_start(vid_name):.3f}"}
        return _VideoResponse(path, headers=headers, media_type=MEDIA_TYPES[path.suffix.lower()])

    def clock_start(self, vid_name: str) -> float:
        """What a browser's player shows, in seconds, when the video begins; 0 without a file that can be read."""
        path = self._file(vid_name)
        if path is None:
            return 0.0
        found = path.stat()
        return _clock_start(path, found.st_size, found.st_mtime_ns)

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


@lru_cache(maxsize=10_000)
def _clock_start(path: Path, _size: int, _changed: int) -> float:
    """Once for each file, as long as its size and time stay."""
    try:
        return clock_start(path)
    except InputError:  # the browser tells who wants to play it; without PyAV, as most files have it
        return 0.0


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES | MEDIA_TYPES.keys()


class _VideoResponse(FileResponse):
    """A file whose refusals (no such range) are in the form of all others."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: Response | None = None

        async def send_or_refuse(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = refusal(message["status"], "Range: ask for bytes=FIRST-LAST within the file")
                found = MutableHeaders(raw=message["headers"]).get("content-range")
                if found:
                    refused.headers["content-range"] = found
                await refused(scope, receive, send)
            elif refused is None:
                await send(message)

        await super().__call__(scope, receive, send_or_refuse)
