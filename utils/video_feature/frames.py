"""Frames of videos with their times: decoded files, and folders of pictures.

    for second, frame in open_video("a.mp4").frames(3.0):  # three a second; frame: (H, W, 3) uint8, RGB
        …

Seconds count from where a player begins. A file that is damaged, or ends more than a second before it says it does, is
an error, even if most of it could be decoded.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from utils.basic_utils import InputError, first_few, first_line, read_bytes
from utils.video_feature.sampling import Resize, sample_times, shown_at

# None where it is not installed, which is said when a video is opened: not all who look for files need it
av: Any = import_module("av") if find_spec("av") else None

VIDEO_SUFFIXES = frozenset(
    (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv")
)
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))
_PICTURES = {b"\xff\xd8": "jpeg_pipe", b"\x89PNG": "png_pipe"}  # how they begin, and what the decoder calls them
# containers that hold a video themselves: playlists and scripts, which name other files and addresses, are not among
# them, whatever suffix they hide behind
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,h264,hevc,m4v,mpegvideo,mxf,ivf,gif,nut"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
EARLY_END_S = 1.0
LONGEST_STILL_S = 3600.0  # one frame shown for longer than this is a damaged timestamp
_US = 1_000_000  # containers count in microseconds

Frames = Generator[tuple[float, np.ndarray], None, None]


def _check_decoder() -> None:
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


def _lenient() -> dict[str, str]:
    """Makes PyAV take titles and the like in any encoding, as PyAV 19, which has no such option, does by itself."""
    return {"metadata_errors": "ignore"} if hasattr(av.container.Container, "metadata_errors") else {}


def open_video(
    path: str | os.PathLike[str], folder_rate: float | None = None, decode_threads: int = 0
) -> VideoFile | FrameFolder:
    """A video file, or a folder of pictures that are its frames.

    Args:
        path: of the file or folder.
        folder_rate: pictures a second, for folders.
        decode_threads: threads that decode a file, 0 for as many as there are cores.

    Raises:
        InputError: it is missing, empty, damaged or holds no video; the message names it.
    """
    if os.path.isdir(path):
        return FrameFolder(path, folder_rate)
    return VideoFile(path, decode_threads)


class VideoFile:
    """A video in a file.

    Args:
        path: of the file.
        decode_threads: 0 for as many as there are cores.

    Attributes:
        duration: seconds from where a player begins to the end of the last frame. What the file says, until all frames
            have been read: then, what was there.

    Raises:
        InputError: as `open_video`.
    """

    def __init__(self, path: str | os.PathLike[str], decode_threads: int = 0) -> None:
        _check_decoder()
        self.path = Path(path)
        self._threads = decode_threads
        self._check_file()
        with self._opened() as (container, stream):
            self._start = max(container.start_time or 0, 0) / _US
            self._declared = self._declared_end(stream)
            whole = None if container.duration is None else container.duration / _US
        if self._declared is None and whole is None:
            whole = self._last_packet_end()
        self._declared_whole = whole
        self.duration = float(whole or 0.0) if self._declared is None else self._declared

    def frames(self, at: float | Sequence[float], resize: Resize | None = None) -> Frames:
        """Decode the frames that are shown at some times.

        Frames are turned as the file asks for. With `resize`, their pixels are square.

        Args:
            at: frames a second (frame k at (k + 0.3) / rate, until the video ends), or rising times in seconds.
            resize: how large they come out; as they are stored if None.

        Yields:
            (time in seconds, (H, W, 3) uint8 RGB). The same array comes again when no other frame is shown.

        Raises:
            InputError: the file is damaged or ends early. What has been yielded until then was right.
        """
        times = sample_times(at) if isinstance(at, int | float) else at
        with self._opened() as (container, stream):
            reader = _Reader(self.path, container, stream, self._start, self.duration)
            picture = _Picture(resize, stream.sample_aspect_ratio)
            for time, frame in shown_at(times, reader.frames(), lambda: reader.end):
                yield time, picture.of(frame)
            if not reader.finished:
                return
        self._check_end(reader)
        self.duration = reader.end

    def _check_file(self) -> None:
        try:
            found = self.path.stat()
        except OSError as err:
            raise InputError(f"{self.path}: cannot be read ({err.strerror}): check the path") from err
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{self.path}: is neither a file nor a folder of frames")
        if found.st_size == 0:
            raise InputError(f"{self.path}: is empty (0 bytes): copy or download it again")

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The container and its video stream."""
        with (
            _naming(self.path),
            av.open(f"file:{os.path.abspath(self.path)}", container_options=_OPTIONS, **_lenient()) as container,
        ):
            if not container.streams.video:
                raise InputError(f"{self.path}: has no video in it")
            stream = container.streams.best("video") or container.streams.video[0]
            if stream.codec_context is None:
                raise InputError(f"{self.path}: there is no decoder for its codec: convert it")
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.thread_count = self._threads
            yield container, stream

    def _declared_end(self, stream: Any) -> float | None:
        if stream.duration is None:
            return None
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - self._start

    def _last_packet_end(self) -> float:
        """The end of the video in a file that does not say it: all of it is read, nothing decoded."""
        end, n_packets, period = 0.0, 0, 0.0
        with self._opened() as (container, stream):
            period = _period(stream)
            for packet in container.demux(stream):
                n_packets += bool(packet.size)
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        return end - self._start if end else n_packets * period

    def _check_end(self, reader: _Reader) -> None:
        """Compare where the frames ended with what the file says of the stream, or else of the whole."""
        if not reader.n_frames:
            raise InputError(f"{self.path}: holds no frame that can be decoded: the file is damaged")
        declared, end = self._declared, reader.end
        if declared is None and self._declared_whole is not None:
            # sound may go on after the pictures, and some formats count from 0 where others count from the beginning
            declared, end = self._declared_whole, max(reader.end, reader.last_packet_end) + self._start
        if declared is not None and end < declared - EARLY_END_S:
            raise InputError(
                f"{self.path}: ends at {end:.1f} s, but should be {declared:.1f} s long: "
                "the file is truncated or damaged, copy or download it again"
            )


class _Reader:
    """Decodes a stream from its beginning to its end.

    Args:
        path: of the file, for messages.
        container, stream: opened.
        start: second of the container at which a player begins.
        declared: seconds that the file says it is long, 0 if it does not say it.

    Attributes:
        end: second at which the last frame so far is no longer shown.
        last_packet_end: the end of all that was read so far, sound too.
        n_frames: frames decoded.
        finished: whether the end was reached.
    """

    def __init__(self, path: Path, container: Any, stream: Any, start: float, declared: float) -> None:
        self._path, self._container, self._stream, self._start = path, container, stream, start
        self._period = _period(stream)
        # lengths that are estimated from bit rates are wrong too, but not by so much
        self._latest = 2 * declared + LONGEST_STILL_S if declared > 0 else inf
        self._last_packet = (0.0, 0.0)  # (time, duration) of the one that is shown last
        self.end = self.last_packet_end = 0.0
        self.n_frames = 0
        self.finished = False

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


def _period(stream: Any) -> float:
    """Seconds between frames, about."""
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else 0.04


class _Picture:
    """Makes RGB arrays of decoded frames; the scaler is made once for all frames of a size.

    Args:
        resize: their size, or None for that in which they are stored.
        pixel_aspect: width of a pixel over its height, if it is known.
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


class FrameFolder:
    """A video as a folder of pictures, in the order of the numbers in their names.

    Args:
        path: the folder.
        rate: pictures a second.

    Attributes:
        duration: seconds.

    Raises:
        InputError: there are no pictures, or the rate is not known.
    """

    def __init__(self, path: str | os.PathLike[str], rate: float | None) -> None:
        _check_decoder()
        self.path = Path(path)
        if not rate:
            raise InputError(f"{path}: is a folder: say how many pictures a second it has, --folder_rate")
        self._pictures = pictures_in(self.path)
        if not self._pictures:
            raise InputError(f"{path}: holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
        self._rate = rate
        self.duration = len(self._pictures) / rate

    def frames(self, at: float | Sequence[float], resize: Resize | None = None) -> Frames:
        """As `VideoFile.frames`: picture k is shown from k / rate on."""
        times = sample_times(at) if isinstance(at, int | float) else at
        starts = ((number / self._rate, path) for number, path in enumerate(self._pictures))
        picture, last = _Picture(resize), None
        for time, path in shown_at(times, starts, lambda: self.duration):
            if last is None or last[0] is not path:
                last = path, picture.of(_read_picture(path))
            yield time, last[1]


def _read_picture(path: Path) -> Any:
    content = read_bytes(path)
    kinds = [kind for beginning, kind in _PICTURES.items() if content.startswith(beginning)]
    if not kinds:
        raise InputError(f"{path}: is neither a JPEG nor a PNG picture: remove it, or write it again")
    with _naming(path), av.open(BytesIO(content), format=kinds[0]) as container:
        for frame in container.decode(video=0):
            return frame
    raise InputError(f"{path}: holds no picture: the file is damaged")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of the numbers in their names.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "."]
    except OSError as err:
        raise InputError(f"{folder}: cannot be read ({err.strerror}): check its permissions") from err
    return sorted(paths, key=lambda path: [int(part) if part.isdecimal() else part for part in _parts(path.name)])


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _holds_pictures(folder: Path) -> bool:
    try:
        return bool(pictures_in(folder))
    except InputError as err:  # such as lost+found
        print(f"note: {err}; passed over", file=sys.stderr, flush=True)
        return False


def find_videos(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The videos of a corpus, by name: files of video suffixes without those, and folders that hold pictures.

    Folders in it that cannot be read are passed over, with a note.

    Raises:
        InputError: there is no such folder, nothing in it, or two videos of one name.
    """
    path = Path(folder)
    try:
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror}): give the folder with the videos") from err
    folders = [entry for entry in entries if os.path.isdir(entry)]
    videos = [entry for entry in entries if entry.suffix.lower() in VIDEO_SUFFIXES and not os.path.isdir(entry)]
    named = [(entry.stem, entry) for entry in videos]
    named += [(entry.name, entry) for entry in folders if _holds_pictures(entry)]
    named.sort()
    twice = [f"{one[1].name} and {other[1].name}" for one, other in pairwise(named) if one[0] == other[0]]
    if twice:
        raise InputError(f"{path}: {first_few(twice)} would have one name: rename one")
    odd = [entry for name, entry in named if not name.isprintable()]  # bytes that are no text, and control characters
    if odd:
        raise InputError(f"{path}: {odd[0].name!r} is no name that a feature file can hold: rename it")
    if not named:
        raise InputError(f"{path}: holds no videos ({' '.join(sorted(VIDEO_SUFFIXES))}) and no folders of pictures")
    return dict(named)
