"""Videos whose pictures say which they are, and whose sound says when it is: a tone in every other second."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.support.video_files import HEIGHT, WIDTH, numbered_frame
from utils.video_feature.decoding import start_of

RATE = 25
SOUND_RATE = 48_000
# per container: encoders of pictures and sound, options of the former: a key frame every 2 s
H264 = ("libx264", "aac", {"preset": "ultrafast", "g": "50"})
ENCODERS = {
    "mp4": H264,
    "mov": H264,
    "mkv": H264,
    "ts": H264,
    "webm": ("libvpx-vp9", "libopus", {"g": "50", "deadline": "realtime", "cpu-used": "8"}),
    "avi": ("mpeg4", "libmp3lame", {"g": "50"}),
}


def write_sounding_video(
    path: Path, n_frames: int = 150, first: float = 0.0, options: dict[str, str] | None = None
) -> Path:
    """25 numbered frames a second, with a tone in seconds 1, 3, 5, …; its clock begins at `first` seconds.

    `options` are the encoder's in place of the container's usual ones.
    """
    pictures, sound, usual = ENCODERS[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(pictures, rate=RATE, options=options or usual)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = container.add_stream(sound, rate=SOUND_RATE, layout="mono")
        packets = []
        for number in range(n_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = number + round(first * RATE), Fraction(1, RATE)
            packets += video.encode(frame)
        packets += video.encode(None)
        seconds = np.arange(n_frames * SOUND_RATE // RATE) / SOUND_RATE
        wave = np.where(seconds.astype(int) % 2, np.sin(2 * np.pi * 440 * seconds) / 2, 0).astype(np.float32)
        for begin in range(0, len(wave), 4096):
            frame = av.AudioFrame.from_ndarray(wave[None, begin : begin + 4096], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
            frame.pts = begin + round(first * SOUND_RATE)
            packets += audio.encode(frame)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def tone_in(path: Path) -> tuple[float, float, float]:
    """Seconds of a video at which its sound begins, and at which the tone is first and last heard."""
    times, loudness = [], []
    with av.open(str(path)) as container:
        zero = start_of(container, container.streams.video[0])
        resampler = av.AudioResampler("fltp", "mono", SOUND_RATE)
        for frame in container.decode(audio=0):
            begin = float(frame.pts * frame.time_base) - zero
            for made in resampler.resample(frame):
                times.append(begin + np.arange(made.samples) / SOUND_RATE)
                loudness.append(abs(made.to_ndarray()[0]))
    at, loud = np.concatenate(times), np.concatenate(loudness) > 0.1
    return float(at[0]), float(at[loud].min()), float(at[loud].max())
