"""Frames of videos with their times: decoded files, and folders of pictures.

    for second, frame in open_video("a.mp4").frames(3.0):  # three a second; frame: (H, W, 3) uint8, RGB
        …

Seconds count from where a player begins, and go on where recordings were joined: as in the copy that
`ffmpeg -i FILE -c copy COPY.mp4` makes. Pictures that cannot be decoded are passed over, which `VideoFile.damage` says.
A file of which hardly any can be, or that ends more than a second before it says it does, is an error.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from utils.basic_utils import InputError, StrPath
from utils.inventory.video_folder import PICTURE_SUFFIXES
from utils.storage.folders import entries_of
from utils.video_feature.decoding import (
    US,
    Clock,
    Picture,
    Reader,
    check_decoder,
    frame_period,
    opened,
    read_picture,
    start_of,
)
from utils.video_feature.sampling import Sizing, sample_times, shown_at

EARLY_END_S = 1.0
LEAST_DECODED = 0.1  # of its pictures, without which a video is no use

Frames = Generator[tuple[float, np.ndarray], None, None]


def open_video(path: StrPath, folder_rate: float | None = None, decode_threads: int = 0) -> VideoFile | FrameFolder:
    """A video file, or a folder of pictures that are its frames.

    Args:
        folder_rate: pictures a second, for folders.
        decode_threads: threads that decode a file, 0 for as many as there are cores.

    Raises:
        InputError: it is missing, empty, damaged or holds no video; the message names it.
    """
    check_decoder()
    if os.path.isdir(path):
        return FrameFolder(Path(path), folder_rate)
    return VideoFile(Path(path), decode_threads)


def clock_start(path: StrPath) -> float:
    """Seconds that a browser's player shows, and counts in `#t=`, when a video file begins: its container's own.

    A player of a browser takes times of a container as they are, but begins at 0 where they begin below that.

    Raises:
        InputError: as for `open_video`.
    """
    check_decoder()
    with opened(Path(path), threads=1) as (container, stream):
        return max(start_of(container, stream), 0.0)


class VideoFile:
    """A video in a file, see `open_video`.

    Attributes:
        duration: seconds from where a player begins to the end of the last frame. What the file says, until all frames
            have been read: then, what was there.
        damage: once all frames have been read, which of them cannot be decoded, in words; else empty.
    """

    def __init__(self, path: Path, decode_threads: int) -> None:
        self.path, self._threads, self.damage = path, decode_threads, ""
        self._check_file()
        with opened(self.path, self._threads) as (container, stream):
            self._start = start_of(container, stream)
            self._declared: float | None = None
            if stream.duration is not None:
                end = ((stream.start_time or 0) + stream.duration) * stream.time_base
                self._declared = float(end) - self._start
            whole = None if container.duration is None else container.duration / US
        if self._declared is None and whole is None:
            whole = self._last_packet_end()
        self._declared_whole = whole
        self.duration = float(whole or 0.0) if self._declared is None else self._declared

    def frames(self, at: float | Sequence[float], resize: Sizing | None = None) -> Frames:
        """Decode the frames that are shown at some times, turned as the file asks for.

        Args:
            at: frames a second (frame k at (k + 0.3) / rate, until the video ends), or rising times in seconds.
            resize: how large they come out, with square pixels; as they are stored if None.

        Yields:
            (time in seconds, (H, W, 3) uint8 RGB). The same array comes again when no other frame is shown.

        Raises:
            InputError: hardly any picture can be decoded, or the file ends early. What has been yielded until then was
                right.
        """
        times = sample_times(at) if isinstance(at, int | float) else at
        with opened(self.path, self._threads) as (container, stream):
            reader = Reader(self.path, container, stream, self._start, self.duration)
            picture = Picture(resize, stream.sample_aspect_ratio)
            for time, frame in shown_at(times, reader.frames(), lambda: reader.end):
                yield time, picture.of(frame)
            if not reader.finished:
                return
        self._check_decoded(reader)
        self._check_end(reader)
        self.duration, self.damage = reader.end, reader.damage.told(reader.n_frames)

    def _check_file(self) -> None:
        try:
            found = self.path.stat()
        except OSError as err:
            raise InputError(f"{self.path}: cannot be read ({err.strerror}): check the path") from err
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{self.path}: is neither a file nor a folder of frames")
        if found.st_size == 0:
            raise InputError(f"{self.path}: is empty (0 bytes): copy or download it again")

    def _last_packet_end(self) -> float:
        """The end of the video in a file that does not say it: all of it is read, nothing decoded."""
        end, n_packets = 0.0, 0
        with opened(self.path, self._threads) as (container, stream):
            period, clock = frame_period(stream), Clock(container, stream)
            for packet in container.demux(stream):
                n_packets += bool(packet.size)
                clock.follow(packet)
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        return end - self._start if end else n_packets * period

    def _check_decoded(self, reader: Reader) -> None:
        n, lost = reader.n_frames, reader.damage
        if not n:
            why = f" ({lost.reason})" if lost.reason else ""
            raise InputError(f"{self.path}: holds no frame that can be decoded{why}: the file is damaged")
        if n < LEAST_DECODED * (n + lost.n_pictures):
            raise InputError(
                f"{self.path}: only {n} of {n + lost.n_pictures} pictures can be decoded ({lost.reason}): the file is "
                "damaged, copy or download it again"
            )

    def _check_end(self, reader: Reader) -> None:
        """Compare where the frames ended with what the file says of the stream, or else of the whole."""
        if reader.joined:
            return
        declared, end = self._declared, reader.end
        if declared is None and self._declared_whole is not None:
            # sound may go on after the pictures, and some formats count from 0 where others count from the beginning
            declared, end = self._declared_whole, max(reader.end, reader.last_packet_end) + max(self._start, 0)
        if declared is not None and end < declared - EARLY_END_S:
            raise InputError(
                f"{self.path}: ends at {end:.1f} s, but should be {declared:.1f} s long: "
                "the file is truncated or damaged, copy or download it again"
            )


class FrameFolder:
    """A video as a folder of pictures, see `open_video`; `duration` is in seconds."""

    def __init__(self, path: Path, rate: float | None) -> None:
        if not rate:
            raise InputError(f"{path}: is a folder: say how many pictures a second it has, --folder_rate")
        self._pictures = pictures_in(path)
        if not self._pictures:
            raise InputError(f"{path}: holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
        self._rate = rate
        self.duration, self.damage = len(self._pictures) / rate, ""

    def frames(self, at: float | Sequence[float], resize: Sizing | None = None) -> Frames:
        """As `VideoFile.frames`: picture k is shown from k / rate on."""
        times = sample_times(at) if isinstance(at, int | float) else at
        starts = ((number / self._rate, path) for number, path in enumerate(self._pictures))
        picture, last = Picture(resize), None
        for time, path in shown_at(times, starts, lambda: self.duration):
            if last is None or last[0] is not path:
                last = path, picture.of(read_picture(path))
            yield time, last[1]


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder that can be read, in the order of the numbers in their names."""
    entries = entries_of(folder, "check its permissions")
    paths = [path for path in entries if path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "."]

    def parts(path: Path) -> list[int | str]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

    return sorted(paths, key=parts)
