"""PyAV in between: from files to frames with their times, and from frames to RGB arrays. Nothing else uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from utils.basic_utils import InputError, first_line, read_bytes
from utils.video_feature.sampling import Resize

# None where it is not installed, which is said when a video is opened: not all who look for files need it
av: Any = import_module("av") if find_spec("av") else None

_PICTURES = {b"\xff\xd8": "jpeg_pipe", b"\x89PNG": "png_pipe"}  # how they begin, and what the decoder calls them
# containers that hold a video themselves: playlists and scripts, which name other files and addresses, are not among
# them, whatever suffix they hide behind
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,h264,hevc,m4v,mpegvideo,mxf,ivf,gif,nut"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
LONGEST_STILL_S = 3600.0  # one frame shown for longer than this is a damaged timestamp


def check_decoder() -> None:
    """Raise `InputError` when there is no PyAV."""
    if av is None:
        raise InputError(
            "decoding videos and pictures needs PyAV: "
            "pip install -r utils/video_feature/requirements.txt -c constraints.txt"
        )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make what the decoder raises an error that names the file."""
    try:
        yield
    except av.FFmpegError as err:
        reason = err.strerror or first_line(err)
        raise InputError(f"{path}: cannot be decoded ({reason}): the file is damaged or no video") from err


@contextmanager
def opened(path: Path, threads: int) -> Iterator[tuple[Any, Any]]:
    """The container in a file and its video stream, which `threads` threads decode, 0 for as many as there are cores.

    An `InputError` if the file is damaged, or holds no video that can be decoded; inside the block likewise.
    """
    # titles and the like are taken in any encoding, as by PyAV 19 itself, which has no such option
    lenient = {"metadata_errors": "ignore"} if hasattr(av.container.Container, "metadata_errors") else {}
    url = f"file:{os.path.abspath(path)}"
    with _naming(path), av.open(url, container_options=_OPTIONS, **lenient) as container:
        if not container.streams.video:
            raise InputError(f"{path}: has no video in it")
        stream = container.streams.best("video") or container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{path}: there is no decoder for its codec: convert it")
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        yield container, stream


class Reader:
    """Decodes a stream from its beginning to its end.

    Args:
        path: for messages.
        start: second of the container at which a player begins.
        declared: seconds that the file says it is long, 0 if it does not say it.
    """

    def __init__(self, path: Path, container: Any, stream: Any, start: float, declared: float) -> None:
        self._path, self._container, self._stream, self._start = path, container, stream, start
        self._period = frame_period(stream)
        # lengths that are estimated from bit rates are wrong too, but not by so much
        self._latest = 2 * declared + LONGEST_STILL_S if declared > 0 else inf
        self._last_packet = (0.0, 0.0)  # (time, duration) of the one that is shown last
        self.end = 0.0  # second at which the last frame so far is no longer shown
        self.last_packet_end = 0.0  # of all that was read so far, sound too
        self.n_frames = 0
        self.finished = False  # whether the end was reached

    def frames(self) -> Iterator[tuple[float, Any]]:
        """(time, frame) in the order in which they are shown."""
        time = -self._period
        for frame in self._decoded():
            previous = time
            time = previous + self._period if frame.pts is None else float(frame.pts * frame.time_base) - self._start
            time = max(time, previous)
            if self.n_frames and time - previous > LONGEST_STILL_S:
                raise InputError(f"{self._path}: its timestamps jump from {previous:.0f} s to {time:.0f} s: damaged")
            if time > self._latest:
                raise InputError(f"{self._path}: has a frame at {time:.0f} s, long after its declared end: damaged")
            if frame.is_corrupt:
                raise InputError(f"{self._path}: the frame at {time:.2f} s is damaged: copy or download the file again")
            self.n_frames += 1
            self.end = time + self._period
            yield time, frame
        if self.n_frames and self._last_packet[0] == time and self._last_packet[1] > 0:
            self.end = time + self._last_packet[1]
        if self.end - max(time, 0) > LONGEST_STILL_S or self.end > self._latest:
            raise InputError(f"{self._path}: its last frame should be shown until {self.end:.0f} s: damaged")
        self.finished = True

    def _decoded(self) -> Iterator[Any]:
        # sound is read too, but not decoded, where only the length of the whole is known
        streams = [] if self._stream.duration is None else [self._stream]
        for packet in self._container.demux(*streams):
            if packet.pts is not None and packet.time_base:
                time = float(packet.pts * packet.time_base) - self._start
                duration = float((packet.duration or 0) * packet.time_base)
                self.last_packet_end = max(self.last_packet_end, time + duration)
                if packet.stream.index == self._stream.index:
                    self._last_packet = max(self._last_packet, (time, duration))
            if packet.stream.index == self._stream.index:
                yield from packet.decode()


def frame_period(stream: Any) -> float:
    """Seconds between frames, about."""
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else 0.04


class Picture:
    """Makes RGB arrays of decoded frames, of the size in which they are stored if there is no `resize`.

    The scaler is made once for all frames of a size. `pixel_aspect` is the width of a pixel over its height.
    """

    def __init__(self, resize: Resize | None, pixel_aspect: Any = None) -> None:
        self._resize = resize
        self._pixel_aspect = float(pixel_aspect) if pixel_aspect and 0.1 < pixel_aspect < 10 else 1.0
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._last: tuple[Any, np.ndarray] | None = None

    def of(self, frame: Any) -> np.ndarray:
        """(H, W, 3) uint8; the same array for the same frame as before."""
        if self._last is None or self._last[0] is not frame:
            self._last = frame, self._convert(frame)
        return self._last[1]

    def _convert(self, frame: Any) -> np.ndarray:
        matrix = _display_matrix(frame)
        transposed = matrix is not None and matrix[0, 0] == 0
        width, height = self._stored_size(frame, transposed)
        how = "BILINEAR" if self._resize is None else self._resize.interpolation.upper()
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=how).to_ndarray()
        return rgb if matrix is None else _turned(rgb, matrix)

    def _stored_size(self, frame: Any, transposed: bool) -> tuple[int, int]:
        """(width, height) to scale to, before the frame is turned."""
        if self._resize is None:
            return frame.width, frame.height
        seen_width = frame.width * self._pixel_aspect
        if transposed:
            height, width = self._resize.size(frame.height, seen_width)
            return width, height
        return self._resize.size(seen_width, frame.height)


def _display_matrix(frame: Any) -> np.ndarray | None:
    """How the file asks for frames to be turned, [[a, b], [c, d]]: (x, y) goes to (a·x + c·y, b·x + d·y).

    None for as they are, and for angles that are no multiple of 90 degrees.
    """
    data = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    if data is None:
        return None
    matrix = np.sign(np.frombuffer(bytes(data), "<i4")[:9].reshape(3, 3)[:2, :2])
    if abs(matrix).tolist() not in ([[1, 0], [0, 1]], [[0, 1], [1, 0]]) or (matrix == np.eye(2)).all():
        return None
    return matrix


def _turned(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    if matrix[0, 0] == 0:
        rgb = rgb.transpose(1, 0, 2)
    to_right, to_bottom = matrix.sum(0)  # of the one thing that decides each axis: its direction
    return np.ascontiguousarray(rgb[:: int(to_bottom), :: int(to_right)])


def read_picture(path: Path) -> Any:
    """The frame in a picture file; `InputError` when it cannot be read, or is no picture."""
    content = read_bytes(path)
    kinds = [kind for beginning, kind in _PICTURES.items() if content.startswith(beginning)]
    if not kinds:
        raise InputError(f"{path}: is neither a JPEG nor a PNG picture: remove it, or write it again")
    with _naming(path), av.open(BytesIO(content), format=kinds[0]) as container:
        for frame in container.decode(video=0):
            return frame
    raise InputError(f"{path}: holds no picture: the file is damaged")
