"""Files of videos in a folder, found once, and served by the names of the videos alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from method_tvr.web.answers import refusal
from utils.basic_utils import first_few
from utils.folders import files_below
from utils.inventory.names import Names

# by suffix, those first that more browsers play
MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
}


class MediaFiles(dict[str, Path]):
    """{vid_name: its file, without links}. Names are looked up there, never joined to a path."""

    @classmethod
    def in_folder(cls, folder: str | Path, vid_names: Iterable[str]) -> MediaFiles:
        """The files of some videos in a folder or its subfolders, called as the videos, with or without a suffix more.

        Of several for a video, that of the type that most browsers play is taken, and said if folders differ. A name
        may differ in its Unicode form, case or kind of spaces alone. Links that lead out of the folder are passed over.

        Raises:
            InputError: the folder cannot be listed.
        """
        root, wanted, suffixes = Path(os.path.realpath(folder)), Names(vid_names), list(MEDIA_TYPES)
        found: dict[str, Path] = {}
        folders: dict[str, set[Path]] = {}

        def order(path: Path) -> tuple[bool, int]:
            return path.stem not in wanted and path.name not in wanted, suffixes.index(path.suffix.lower())

        for path in sorted(files_below(root, _is_media, "--videos: name a folder that can be read"), key=order):
            for name in filter(None, {wanted.known(path.stem), wanted.known(path.name)}):
                target = Path(os.path.realpath(path))
                if target.is_relative_to(root) and target.is_file() and target.suffix.lower() in MEDIA_TYPES:
                    found.setdefault(name, target)
                    folders.setdefault(name, set()).add(path.parent)
        if several := [name for name, places in folders.items() if len(places) > 1]:
            told = "videos with files in several folders, one of which is shown"
            print(f"note: {root}: {told}: {first_few(several)}", file=sys.stderr, flush=True)
        return cls(found)

    def response(self, vid_name: str) -> Response:
        """The file of a video, or the part of it that is asked for; 404 when there is none."""
        path = self.get(vid_name)
        if path is None or os.path.realpath(path) != str(path) or not path.is_file():  # a link may lie there since
            return refusal(404, "there is no file of this video")
        return _VideoResponse(path, media_type=MEDIA_TYPES[path.suffix.lower()])


def _is_media(name: str) -> bool:
    return Path(name).suffix.lower() in MEDIA_TYPES


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
