"""Cutting by decoding and encoding anew: exactly the seconds of a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from heapq import merge
from itertools import chain
from pathlib import Path
from typing import Any

from utils.basic_utils import InputError
from utils.cutting.containers import Container, encoder_of, written
from utils.cutting.looking import Packets, sound_of
from utils.cutting.pictures import Upright
from utils.cutting.sound import add_sound, sound_packets
from utils.video_feature.decoding import Reader, opened
from utils.video_feature.sampling import TOLERANCE_S

_UNIT = Fraction(1, 60_000)  # of timestamps; MPEG-4 takes none that is much smaller
_USUAL_RATES = range(10, 241)  # frames a second
_OPTIONS: dict[str, dict[str, str]] = {
    # without bf times begin below 0, which few containers hold
    "libx264": {"crf": "18", "preset": "veryfast", "bf": "0"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"},
    "libvpx": {"crf": "8", "b": "4M", "deadline": "good", "cpu-used": "5"},
    "mpeg4": {"qscale": "3", "flags": "+qscale"},
}


def encode_frames(
    source: Path, packets: Packets, span: tuple[float, float], out: Path, form: Container, check: Callable[[], None]
) -> None:
    """Write what is shown and heard in a span of seconds of the video; `check` is called for each packet.

    Raises:
        InputError: nothing is shown there that can be decoded, or PyAV lacks the encoders.
    """
    start, end = span
    with ExitStack() as files:
        container, stream = files.enter_context(opened(source, threads=0))
        reader = LateReader(source, container, stream, packets, check)
        rate = _rate(stream)
        shown = _shown(reader, start, end, float(1 / rate))
        first = next(shown, None)
        if first is None:
            raise InputError(f"{source}: holds no picture at {start:.2f} s that can be decoded: the file is damaged")
        other, _ = files.enter_context(opened(source, threads=1))
        made = files.enter_context(written(out, form))
        upright = Upright(first[1], stream)
        pictures = _add_pictures(made, stream, upright, encoder_of(form.pictures), rate)
        streams = [_picture_packets(chain([first], shown), pictures, upright)]
        if (sound := sound_of(other)) is not None:
            heard = add_sound(made, sound, encoder_of(form.sound))
            streams.append(sound_packets(other, sound, packets, start, end, heard))
        for packet in merge(*streams, key=lambda packet: packet.dts * packet.time_base):
            if packet.pts >= 0 or form.takes_warm_up:
                made.mux(packet)


class LateReader(Reader):
    """Begins to decode at the key frame of a moment; times are as if all before had been read."""

    def __init__(self, path: Path, container: Any, stream: Any, packets: Packets, check: Callable[[], None]) -> None:
        super().__init__(path, container, stream, packets.zero, 0.0)
        self._n_before, self._check = packets.key, check

    def _packets(self) -> Iterator[Any]:
        number = -1
        for packet in super()._packets():
            self._check()
            ours = packet.stream.index == self._stream.index
            number += bool(ours and packet.size)
            if number >= self._n_before:
                yield packet
            elif ours:
                self._clock.follow(packet)


def _shown(reader: Reader, start: float, end: float, period: float) -> Iterator[tuple[float, Any]]:
    """(second from the start, frame) of a moment, rising: first what is shown at its start.

    The last frame is repeated at the end if it is shown for longer than others.
    """
    held, at, n = None, 0.0, 0
    for time, frame in reader.frames():
        if time >= end - TOLERANCE_S and held is not None:
            break
        if held is not None and time > start + TOLERANCE_S:
            yield at, held
            n += 1
        held, at = frame, max(time - start, 0.0) if n else 0.0
    if held is None:
        return
    yield at, held
    until = min(end, reader.end) if reader.finished else end
    if (last := until - start - period) > at + period / 2:
        yield last, held


def _rate(stream: Any) -> Fraction:
    """Frames a second, for how long the last one is shown; a usual rate where pictures stand for seconds."""
    rate = stream.average_rate or stream.guessed_rate
    return rate if rate and int(rate) in _USUAL_RATES else Fraction(25)


def _add_pictures(made: Any, stream: Any, upright: Upright, encoder: str, rate: Fraction) -> Any:
    pictures = made.add_stream(encoder, rate=rate, options=_OPTIONS.get(encoder, {}))
    pictures.width, pictures.height, pictures.pix_fmt = upright.width, upright.height, upright.FORMAT
    context, source = pictures.codec_context, stream.codec_context
    pictures.time_base = context.time_base = _UNIT
    if upright.pixel_aspect:
        context.sample_aspect_ratio = upright.pixel_aspect
    context.colorspace, context.color_range = source.colorspace, upright.RANGE
    context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
    return pictures


def _picture_packets(shown: Iterator[tuple[float, Any]], pictures: Any, upright: Upright) -> Iterator[Any]:
    last = -1
    for time, frame in shown:
        pts = round(time / _UNIT)
        if pts > last:
            yield from pictures.encode(upright.of(frame, pts, _UNIT))
            last = pts
    yield from pictures.encode(None)
