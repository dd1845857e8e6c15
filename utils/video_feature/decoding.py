"""PyAV in between: from files to frames with their times, and from frames to RGB arrays. Only `cutting` uses it too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from itertools import filterfalse
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from utils.basic_utils import InputError, first_few, first_line, read_bytes
from utils.video_feature.sampling import Sizing


class _PyAV:
    """PyAV, imported when something of it is first asked for: not all who look for files need it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module("av"), name)


# None where it is not installed, which is said when a video is opened
av: Any = _PyAV() if find_spec("av") else None

_PICTURES = {b"\xff\xd8": "jpeg_pipe", b"\x89PNG": "png_pipe"}  # how they begin, and what the decoder calls them
# containers that hold a video themselves: playlists and scripts, which name other files and addresses, are not among
# them, whatever suffix they hide behind
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,h264,hevc,m4v,mpegvideo,mxf,ivf,gif,nut"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
LONGEST_STILL_S = 3600.0  # one frame shown for longer than this is a damaged timestamp
US = 1_000_000  # containers count in microseconds
_WARM_UP_S = 0.2
_ATTACHED_PICTURE = 0x400  # FFmpeg's flag of streams that are the cover of sound
_TS_DISCONT = 0x200  # FFmpeg's flag of formats whose clocks may begin anywhere
_LEAP_S, _BACK_S = 10.0, 0.1  # by which FFmpeg tells a clock that has begun anew


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
        if _is_cover(stream):
            stream = next(filterfalse(_is_cover, container.streams.video), None)
        if stream is None:
            raise InputError(f"{path}: is sound with a cover picture, and has no video in it: leave it out")
        if stream.codec_context is None:
            raise InputError(f"{path}: there is no decoder for its codec: convert it")
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        yield container, stream


def _is_cover(stream: Any) -> bool:
    flags = getattr(stream, "disposition", 0)
    return bool(getattr(flags, "value", flags) & _ATTACHED_PICTURE)  # in PyAV 15 they are no number


class Clock:
    """Lets the timestamps of a stream go on where another recording was joined to it, as FFmpeg does when it copies.

    Where a clock goes back, what follows begins when the last packet ends. So it does after a leap in formats whose
    clocks may begin anywhere (.ts, .mpg, .ogv); shorter gaps, in which nothing was recorded, are kept.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._may_leap = bool(int(container.format.flags) & _TS_DISCONT)
        self._unit, period = float(stream.time_base), frame_period(stream)
        self._period = max(1, round(period / self._unit))
        # where decoding times are not stored, they are guessed from the frames', which are in another order
        self._furthest_back = _BACK_S if self._may_leap else max(1.0, 20 * period)
        self._shift = 0  # of timestamps, in units of the stream
        self._last: int | None = None  # decoding time of the last packet
        self._next = self._next_shown = 0  # when it ends, and when what is shown until then does
        self.n_joins = 0  # how often the clock has begun anew

    def follow(self, packet: Any) -> None:
        """Move the timestamps of the stream's next packet."""
        if packet.dts is not None:
            self._meet(packet)
            packet.dts = self._last = packet.dts + self._shift
            self._next = packet.dts + (packet.duration or self._period)
        if packet.pts is not None:
            packet.pts += self._shift
            self._next_shown = max(self._next_shown, packet.pts + (packet.duration or self._period))

    def _meet(self, packet: Any) -> None:
        if self._last is None:
            return
        dts = packet.dts + self._shift
        ahead, back = dts - self._next, self._last - dts
        if back * self._unit > self._furthest_back or (self._may_leap and ahead * self._unit > _LEAP_S):
            guessed = not self._may_leap and packet.pts is not None
            self._shift -= packet.pts + self._shift - self._next_shown if guessed else ahead
            self.n_joins += 1


class Reader:
    """Decodes a stream from its beginning to its end; what is damaged is passed over, and counted.

    Args:
        path: for messages.
        start: second of the container at which a player begins.
        declared: seconds that the file says it is long, 0 if it does not say it.
    """

    def __init__(self, path: Path, container: Any, stream: Any, start: float, declared: float) -> None:
        self._path, self._container, self._stream, self._start = path, container, stream, start
        self._clock = Clock(container, stream)
        self._period = frame_period(stream)
        # lengths that are estimated from bit rates are wrong too, but not by so much
        self._declared_latest = 2 * declared + LONGEST_STILL_S if declared > 0 else inf
        self._last_packet = (0.0, 0.0)  # (time, duration) of the one that is shown last
        self._incomplete: list[float] = []  # times of packets of which something is missing
        self._pictureless_end = 0.0  # of packets without a picture of their own: repetitions, damaged ones
        self.end = 0.0  # second at which the last frame so far is no longer shown
        self.last_packet_end = 0.0  # of all that was read so far, sound too
        self.n_frames = 0
        self.damage = Damage()
        self.finished = False  # whether the end was reached

    @property
    def joined(self) -> bool:
        """Whether recordings were joined in the file: what it says of its length is of one of them."""
        return self._clock.n_joins > 0

    @property
    def _latest(self) -> float:
        return inf if self.joined else self._declared_latest

    def frames(self) -> Iterator[tuple[float, Any]]:
        """(time, frame) in the order in which they are shown."""
        time, after_untimed = -self._period, False
        for frame in self._decoded():
            previous, at = time, time + self._period
            if frame.pts is not None:
                at = self._time_of(frame, at, after_untimed)
            after_untimed = frame.pts is None
            if frame.is_corrupt:
                self._lose(at, "damaged picture")
                continue
            time = max(at, previous)
            if self.n_frames and time - previous > LONGEST_STILL_S:
                raise InputError(f"{self._path}: its timestamps jump from {previous:.0f} s to {time:.0f} s: damaged")
            if time > self._latest:
                raise InputError(f"{self._path}: has a frame at {time:.0f} s, long after its declared end: damaged")
            self.n_frames += 1
            self.end = time + self._period
            yield time, frame
        self._find_end(time)
        for incomplete in self._incomplete:
            self.damage.add(incomplete, "data is missing", n_pictures=0)
        self.finished = True

    def _time_of(self, frame: Any, expected: float, after_untimed: bool) -> float:
        time = float(frame.pts * self._stream.time_base) - self._start
        if after_untimed and time < expected - 1:  # those before had times below 0, which Matroska cannot hold
            self._start -= expected - time
            return expected
        return time

    def _find_end(self, time: float) -> None:
        """Of the frame that came last, at a time."""
        if self.n_frames and self._last_packet[0] == time and self._last_packet[1] > 0:
            self.end = time + self._last_packet[1]
        self.end = max(self.end, self._pictureless_end)
        if self.end - max(time, 0) > LONGEST_STILL_S or self.end > self._latest:
            raise InputError(f"{self._path}: its last frame should be shown until {self.end:.0f} s: damaged")

    def _lose(self, time: float, reason: str, period: float | None = None) -> None:
        self.damage.add(time, reason)
        self._pictureless_end = max(self._pictureless_end, time + (self._period if period is None else period))

    def _decoded(self) -> Iterator[Any]:
        time = 0.0
        for packet in self._packets():
            seconds = float((packet.duration or 0) * packet.time_base)
            ours = packet.stream.index == self._stream.index
            if ours:
                self._follow(packet)
            if packet.pts is not None:
                time = float(packet.pts * packet.time_base) - self._start
                self.last_packet_end = max(self.last_packet_end, time + seconds)
                if ours and not packet.is_discard:
                    self._last_packet = max(self._last_packet, (time, seconds))
            if ours and packet.size:
                yield from self._frames_of(packet, time, seconds)
            elif ours and packet.pts is not None:  # the picture before is shown again; a decoder takes it for the end
                self._pictureless_end = max(self._pictureless_end, time + seconds)
        yield from self._frames_of(None, time, 0.0)

    def _follow(self, packet: Any) -> None:
        """Put a packet at its time; and note where the counters of a transport stream say that some are missing."""
        n_joins = self._clock.n_joins
        self._clock.follow(packet)
        if packet.pts is None:
            return
        time = float(packet.pts * packet.time_base) - self._start
        if self._clock.n_joins > n_joins:  # they begin anew as well
            self._incomplete = [earlier for earlier in self._incomplete if earlier < time - 5 * self._period]
        elif packet.is_corrupt:
            self._incomplete.append(time)

    def _packets(self) -> Iterator[Any]:
        # sound is read too, but not decoded, where only the length of the whole is known
        streams = [] if self._stream.duration is None else [self._stream]
        try:
            yield from filterfalse(is_theora_header, self._container.demux(*streams))
        except av.FFmpegError as err:  # as FFmpeg itself, which ends there: where that is too early, the end is told
            self.damage.add(self.end, err.strerror or first_line(err))

    def _frames_of(self, packet: Any, time: float, seconds: float) -> list[Any]:
        """What the decoder gives for a packet, or for None: what it has kept until the end."""
        try:
            found: list[Any] = self._stream.codec_context.decode(packet)
        except av.FFmpegError as err:
            self._lose(time, err.strerror or first_line(err), seconds)
            return []
        return found


def is_theora_header(packet: Any) -> bool:
    """Whether it is what begins another recording in an .ogv: no picture."""
    context = packet.stream.codec_context
    return packet.size > 0 and context is not None and context.name == "theora" and bytes(packet)[0] >= 0x80


@dataclass
class Damage:
    """What of a video is damaged."""

    n_pictures: int = 0  # that cannot be decoded
    seconds: set[int] = field(default_factory=set)
    reason: str = ""  # the first one

    def add(self, time: float, reason: str, n_pictures: int = 1) -> None:
        """More of it, at a time in seconds."""
        self.n_pictures += n_pictures
        self.seconds.add(max(int(time), 0))
        self.reason = self.reason or reason

    def told(self, n_decoded: int) -> str:
        """Such as "at second 5 to 6: 3 of 300 pictures, why"; empty without damage. `n_decoded` pictures are right."""
        if not self.seconds:
            return ""
        spans: list[list[int]] = []
        for second in sorted(self.seconds):
            if spans and second == spans[-1][1] + 1:
                spans[-1][1] = second
            else:
                spans.append([second, second])
        where = first_few([f"{first}" if first == last else f"{first} to {last}" for first, last in spans], 5)
        pictures = f"{self.n_pictures} of {self.n_pictures + n_decoded} pictures, " if self.n_pictures else ""
        return f"at second {where}: {pictures}{self.reason}"


def start_of(container: Any, stream: Any) -> float:
    """The second of a container's clock from which the times of its video count.

    Where a player begins and FFmpeg's copy, with the first picture or with sound before it. Sound may begin a little
    before 0, to warm up its decoder, and is not heard there.
    """
    start = (container.start_time or 0) / US
    if -_WARM_UP_S < start < 0:
        return min(0.0, float((stream.start_time or 0) * stream.time_base))
    return start


def frame_period(stream: Any) -> float:
    """Seconds between frames, about."""
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else 0.04


class Picture:
    """Makes RGB arrays of decoded frames, of the size in which they are stored if there is no `resize`.

    The scaler is made once for all frames of a size. `pixel_aspect` is the width of a pixel over its height.
    """

    def __init__(self, resize: Sizing | None, pixel_aspect: Any = None) -> None:
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
        matrix = display_matrix(frame)
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


def display_matrix(frame: Any) -> np.ndarray | None:
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
