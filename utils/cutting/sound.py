"""The sound of a moment, decoded and encoded anew, sample by sample at its time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from utils.cutting.looking import Packets
from utils.video_feature.decoding import av

_WARM_UP_S = 0.2  # decoded before the start: a decoder needs what comes before
_USUAL_RATE = 48_000  # that all encoders take
_SAME_S = 0.02  # sound that is off by less goes on where the last ended: times are rounded
_PLANES = "fltp"


def add_sound(made: Any, sound: Any, encoder: str) -> Any:
    """A stream of a file that is written for the sound of another; more than two channels become two."""
    rates = av.codec.Codec(encoder, "w").audio_rates
    rate = sound.rate if not rates or sound.rate in rates else _USUAL_RATE
    return made.add_stream(encoder, rate=rate, layout="mono" if sound.codec_context.channels == 1 else "stereo")


def sound_packets(container: Any, sound: Any, packets: Packets, start: float, end: float, heard: Any) -> Iterator[Any]:
    """What is heard from `start` to `end`, encoded by the stream `heard`; silence where there is nothing."""
    rate = heard.codec_context.sample_rate
    n_all, n = round((end - start) * rate), 0
    for time, samples in _decoded(container, sound, packets, start, end, heard):
        at = round((time - start) * rate)
        if abs(at - n) > _SAME_S * rate or n == 0:
            if at > n:
                yield from _encoded(heard, np.zeros((len(samples), min(at, n_all) - n), np.float32), n)
                n = min(at, n_all)
            samples = samples[:, max(n - at, 0) :]
        samples = samples[:, : n_all - n]
        yield from _encoded(heard, samples, n)
        n += samples.shape[1]
    yield from heard.encode(None)


def _encoded(heard: Any, samples: np.ndarray, at: int) -> Iterator[Any]:
    """Packets of (channels, n) samples from the one of number `at` on."""
    if not samples.shape[1]:
        return
    context = heard.codec_context
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), _PLANES, context.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = context.sample_rate, at, Fraction(1, context.sample_rate)
    yield from heard.encode(frame)


def _decoded(
    container: Any, sound: Any, packets: Packets, start: float, end: float, heard: Any
) -> Iterator[tuple[float, np.ndarray]]:
    """(second of the video, (channels, n) float32) of the sound around a moment; what is damaged is passed over."""
    context = heard.codec_context
    resampler = av.AudioResampler(_PLANES, context.layout.name, context.sample_rate)
    clock = _SoundClock(packets.shifts, packets.zero)
    for packet in _until_damage(container.demux(sound)):
        time = clock.time_of(packet)
        if time >= end:
            return
        if time < start - _WARM_UP_S:
            continue
        try:
            frames = sound.codec_context.decode(packet)
        except av.FFmpegError:  # silence takes its place, as players do
            continue
        for frame in frames:
            begin = time if frame.pts is None else time + float((frame.pts - packet.pts) * packet.time_base)
            for made in resampler.resample(frame):
                yield begin, made.to_ndarray()
                begin += made.samples / context.sample_rate


def _until_damage(packets: Iterator[Any]) -> Iterator[Any]:
    """Packets that have times, up to where a file cannot be read any further."""
    try:
        yield from (packet for packet in packets if packet.pts is not None)
    except av.FFmpegError:  # of the pictures it is told
        return


class _SoundClock:
    """Lets sound go on where recordings were joined, by what was added to the clock of the pictures."""

    def __init__(self, shifts: list[float], zero: float) -> None:
        self._shifts, self._zero, self._number = shifts, zero, 0
        self._end: float | None = None  # of the last packet

    def time_of(self, packet: Any) -> float:
        """The second of the video at which a packet is heard."""
        raw = float(packet.pts * packet.time_base) - self._zero
        here = raw + self._shifts[self._number]
        if self._end is not None and self._number + 1 < len(self._shifts):
            after_join = raw + self._shifts[self._number + 1]
            if abs(after_join - self._end) < abs(here - self._end):
                self._number, here = self._number + 1, after_join
        self._end = here + float((packet.duration or 0) * packet.time_base)
        return here
