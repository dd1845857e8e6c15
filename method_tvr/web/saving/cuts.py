"""Clips cut out of the videos' files for visitors, as many at a time and as much of each as the limits say."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore
from typing import BinaryIO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from method_tvr.ask.export import clip_name
from method_tvr.ask.moments import Moment
from method_tvr.web.answers import refusal
from method_tvr.web.batching import Busy
from method_tvr.web.limits import Limits
from method_tvr.web.media import MediaFiles
from utils.basic_utils import InputError
from utils.cutting.clip import cut_clip
from utils.inventory.video_files import MEDIA_TYPES
from utils.video_feature.decoding import av

LOG = logging.getLogger(__name__)
_AT_ONCE = 1 << 16  # bytes


class _TooMuchError(Exception):
    """A clip takes too long, or too much room."""


class Cuts:
    """Cuts clips; threads may share it."""

    def __init__(self, media: MediaFiles, limits: Limits) -> None:
        self._media, self._limits = media, limits
        self._free = BoundedSemaphore(limits.max_cuts)

    def response(self, vid_name: str, start: float, end: float) -> Response:
        """The seconds from `start` to `end` of a video as a file to be saved, or why there is none.

        Raises:
            Busy: others' are being cut.
        """
        path = self._media.file_to_cut(vid_name)
        if path is None:
            return refusal(404, "there is no file of this video")
        if not 0 < end - start <= self._limits.max_clip_s:
            return refusal(422, f"end: must be after start, by {self._limits.max_clip_s:g} s at most")
        if not self._free.acquire(blocking=False):
            raise Busy("other clips are being cut: ask again in a few seconds")
        try:
            return self._cut(path, Moment(vid_name, start, end))
        except _TooMuchError:
            return refusal(422, "this clip takes too long, or is too large, for this server: ask for less of the video")
        except InputError as err:
            LOG.warning("no clip: %s", err)  # visitors need not know where the file lies
            return refusal(422, "this moment cannot be cut out of its file: the server's log says why")
        finally:
            self._free.release()

    def _cut(self, path: Path, moment: Moment) -> Response:
        until = time.monotonic() + self._limits.clip_timeout
        with TemporaryDirectory(prefix="clip-", ignore_cleanup_errors=True) as folder:

            def check() -> None:
                size = sum(part.stat().st_size for part in Path(folder).iterdir())
                if time.monotonic() > until or size > self._limits.max_clip_bytes:
                    raise _TooMuchError

            clip = cut_clip(path, moment.start, moment.end, Path(folder, "clip"), check).path
            check()
            name, size = f"{clip_name(moment)}{clip.suffix}", clip.stat().st_size
            file = open(clip, "rb")  # noqa: SIM115 (is sent once its folder is gone, so that nothing is ever left)
        headers = {"Content-Length": str(size), "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
        return StreamingResponse(_parts(file), headers=headers, media_type=MEDIA_TYPES.get(clip.suffix, "video/mp2t"))


def _parts(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while part := file.read(_AT_ONCE):
            yield part


def clip_url(media: MediaFiles, moment: Moment) -> str | None:
    """Where the page asks for the clip of a moment; None where there is no file, or nothing to cut it with."""
    if av is None or media.file_to_cut(moment.vid_name) is None:
        return None
    return f"/api/clips/{quote(moment.vid_name, safe='')}?start={moment.start:.3f}&end={moment.end:.3f}"
