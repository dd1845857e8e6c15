"""Small pictures out of the videos' files for the page, kept in memory, as many made at a time as the limits say."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
from starlette.responses import Response

from method_tvr.ask.moments import Moment
from method_tvr.web.answers import refusal
from method_tvr.web.batching import Busy
from method_tvr.web.guards import THUMBNAILS
from method_tvr.web.limits import Limits
from method_tvr.web.media import MediaFiles
from utils.basic_utils import InputError
from utils.cutting.still import frame_at
from utils.video_feature.decoding import av
from utils.video_feature.sampling import Within

LOG = logging.getLogger(__name__)
SIZE = Within(320, 180)
STEP_S = 0.1  # of times, so that those of nearly the same moment share a picture
_QUALITY = 80
_NONE = b""  # kept of a file that cannot be decoded

_Key = tuple[Path, int, int, float]  # a file, its size and when it was changed, and seconds


class _TooLongError(Exception):
    """A picture takes too long."""


class Thumbnails:
    """Makes and keeps them; threads may share it."""

    def __init__(self, media: MediaFiles, limits: Limits) -> None:
        self._media, self._limits = media, limits
        self._free = threading.BoundedSemaphore(limits.max_thumbnails)
        self._waiting = threading.BoundedSemaphore(limits.max_thumbnails + limits.max_thumbnail_queue)
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()  # those asked for last come last
        self._lock = threading.Lock()

    def response(self, vid_name: str, second: float) -> Response:
        """What is shown at a second of a video, as a small JPEG, or why there is none.

        Raises:
            Busy: others' are being made.
        """
        path = self._media.file_to_cut(vid_name)
        if path is None:
            return refusal(404, "there is no file of this video")
        try:
            content = self._picture(path, round(round(second / STEP_S) * STEP_S, 3))
        except _TooLongError:
            return refusal(422, "a picture of this video takes too long to make for this server")
        if content == _NONE:
            return refusal(422, "no picture can be taken out of the file of this video: the server's log says why")
        return Response(content, media_type="image/jpeg")

    def _picture(self, path: Path, second: float) -> bytes:
        found = path.stat()
        key = path, found.st_size, found.st_mtime_ns, second
        if (kept := self._kept_of(key)) is not None:
            return kept
        if not self._waiting.acquire(blocking=False):
            raise Busy("other pictures are being made: ask again in a few seconds")
        try:
            if not self._free.acquire(timeout=self._limits.thumbnail_timeout):
                raise Busy("other pictures are being made: ask again in a few seconds")
            try:
                content = self._kept_of(key)  # somebody may have asked for the same meanwhile
                content = self._made(path, second) if content is None else content
            finally:
                self._free.release()
        finally:
            self._waiting.release()
        self._keep(key, content)
        return content

    def _made(self, path: Path, second: float) -> bytes:
        until = time.monotonic() + self._limits.thumbnail_timeout

        def check() -> None:
            if time.monotonic() > until:
                raise _TooLongError

        try:
            return _jpeg(frame_at(path, second, SIZE, check))
        except InputError as err:
            LOG.warning("no picture: %s", err)  # visitors need not know where the file lies
            return _NONE

    def _kept_of(self, key: _Key) -> bytes | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: _Key, content: bytes) -> None:
        with self._lock:
            self._kept[key] = content
            self._kept.move_to_end(key)
            if len(self._kept) > self._limits.max_thumbnails_kept:
                self._kept.popitem(last=False)


def _jpeg(rgb: np.ndarray) -> bytes:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def thumbnail_url(media: MediaFiles, moment: Moment) -> str | None:
    """Where the page asks for a picture of a moment's middle; None where there is no file, or nothing to decode it."""
    if av is None or media.file_to_cut(moment.vid_name) is None:
        return None
    return f"{THUMBNAILS}{quote(moment.vid_name, safe='')}?time={(moment.start + moment.end) / 2:.2f}"
