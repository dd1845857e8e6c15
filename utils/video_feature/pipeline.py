"""From many videos to one feature file: decoding runs ahead of the model, and what is done survives a kill."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.basic_utils import InputError, progress
from utils.feature_files.resumable_features import Extraction, Scalar, file_stamp
from utils.video_feature.ahead import ahead
from utils.video_feature.frames import open_video
from utils.video_feature.sampling import Resize

_WAITING_BATCHES = 2


@dataclass(frozen=True)
class Looking:
    """How videos are looked at.

    Args:
        frame_rate: frames a second.
        resize: in which size.
        batches: makes batches for the model out of a video's frames (H, W, 3), as they come.
        folder_rate: pictures a second in folders of frames; frame_rate if None.
        decode_threads: threads that decode, 0 for as many as there are cores.
    """

    frame_rate: float
    resize: Resize
    batches: Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]
    folder_rate: float | None = None
    decode_threads: int = 0

    def __post_init__(self) -> None:
        for name in ("frame_rate", "folder_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate <= 1000:
                raise InputError(f"--{name} {rate}: give frames a second, more than 0")
        if self.decode_threads < 0:
            raise InputError(f"--decode_threads {self.decode_threads}: give 0 (as many as cores) or more")


@dataclass
class Report:
    """What became of the videos.

    Args:
        done: videos in the feature file, those of earlier runs too.
        failed: {name: reason} of those that are not.
        durations: {name: seconds} of those that are done.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ended:
    """The last that is heard of a video: how long it is, or why it failed."""

    duration: float = 0.0
    failure: str = ""


def extract_each(
    videos: Mapping[str, str | os.PathLike[str]],
    looking: Looking,
    encode: Callable[[np.ndarray], np.ndarray],
    out_h5: str | os.PathLike[str],
    recipe: Mapping[str, Scalar],
    attributes: Mapping[str, Scalar],
) -> Report:
    """Write `{name: (rows, D)}` float32 of all videos that can be read; the others are skipped, and say why.

    Args:
        videos: {name: file or folder of pictures}.
        looking: at what.
        encode: gives rows (n, D) for a batch.
        out_h5, recipe, attributes: see `Extraction`.

    Raises:
        InputError: nothing can be written there, or another process does.
    """
    report = Report()
    stamps = {name: _stamp(path) for name, path in videos.items()}
    with Extraction(out_h5, recipe, attributes) as features:
        waiting = {name: Path(path) for name, path in videos.items() if not features.done(name, stamps[name])}
        report.durations = {name: features.about(name)["duration"] for name in videos if name not in waiting}
        with closing(_encoded(waiting, looking, encode)) as encoded:
            for name, rows, ended in progress(encoded, "videos", total=len(waiting)):
                if rows is None or ended.failure:
                    features.failed(name, ended.failure)
                    print(f"skipped: {ended.failure}", file=sys.stderr, flush=True)
                else:
                    features.put(name, {name: rows}, stamps[name], {"duration": ended.duration})
                    report.durations[name] = ended.duration
        report.failed = dict(features.failures)
    report.done = [name for name in videos if name in report.durations]
    return report


def _stamp(path: str | os.PathLike[str]) -> str:
    try:
        return file_stamp(path)
    except InputError:  # said when the video's turn comes
        return "missing"


def _encoded(
    videos: Mapping[str, Path], looking: Looking, encode: Callable[[np.ndarray], np.ndarray]
) -> Generator[tuple[str, np.ndarray | None, _Ended], None, None]:
    """(name, its rows, how it ended) of each video; no rows without a failure."""
    rows: list[np.ndarray] = []
    with closing(ahead(_decoded(videos, looking), _WAITING_BATCHES)) as decoded:
        for name, found in decoded:
            if not isinstance(found, _Ended):
                rows.append(encode(found))
                continue
            features = np.concatenate(rows) if rows else None
            rows = []
            if features is not None and not np.isfinite(features).all():
                found = _Ended(failure=f"{videos[name]}: its features are not finite numbers: check the weights")
            yield name, features, found


def _decoded(videos: Mapping[str, Path], looking: Looking) -> Generator[tuple[str, np.ndarray | _Ended], None, None]:
    """(name, batch) of all videos, one after the other, and (name, `_Ended`) after each one's last batch."""
    for name, path in videos.items():
        try:
            video = open_video(path, looking.folder_rate or looking.frame_rate, looking.decode_threads)
            with closing(video.frames(looking.frame_rate, looking.resize)) as frames:
                for batch in looking.batches(frame for _, frame in frames):
                    yield name, batch
            yield name, _Ended(video.duration)
        except InputError as err:
            yield name, _Ended(failure=str(err))
