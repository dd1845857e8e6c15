"""From many videos to one feature file: decoding runs ahead of the model, and what is done survives a kill.

What the commands that extract features from videos have in common, their options too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from utils.basic_utils import InputError, Meter, StrPath, first_few, progress, write_json
from utils.dataset_files import FOLDER_SUFFIX
from utils.feature_files.provenance import made_with
from utils.feature_files.resumable_features import Extraction, Scalar, file_stamp
from utils.inventory.video_folder import find_videos
from utils.video_feature.ahead import ahead
from utils.video_feature.frames import open_video
from utils.video_feature.sampling import Sizing

Videos: TypeAlias = Mapping[str, StrPath]  # {name: file, or folder of pictures}

_WAITING_BATCHES = 2


@dataclass(frozen=True)
class Looking:
    """How videos are looked at; numbers without a meaning are an `InputError`."""

    frame_rate: float  # frames a second
    batch_size: int  # frames, or windows of them, that go through the model at once
    folder_rate: float | None = None  # pictures a second in folders of frames; frame_rate if None
    decode_threads: int = 0  # 0 for as many as there are cores

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"--batch_size {self.batch_size}: needs at least 1")
        for name in ("frame_rate", "folder_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate <= 1000:
                raise InputError(f"--{name} {rate}: give frames a second, more than 0")
        if self.decode_threads < 0:
            raise InputError(f"--decode_threads {self.decode_threads}: give 0 (as many as cores) or more")

    @classmethod
    def of(cls, args: argparse.Namespace) -> Looking:
        """As the options of `add_video_options` say."""
        return cls(args.frame_rate, args.batch_size, args.folder_rate, args.decode_threads)


@dataclass(frozen=True)
class Extractor:
    """What makes features of the frames of a video.

    `pieces` makes what the model takes in out of a video's frames (H, W, 3), as they come: crops, windows. `encode`
    gives rows (n, D) for a batch of n of them.
    """

    script: str
    packages: Sequence[str]  # whose versions matter
    properties: Mapping[str, Scalar]  # that decide the features, for the file's record
    resize: Sizing
    pieces: Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]
    encode: Callable[[np.ndarray], np.ndarray]
    also: Mapping[str, Scalar] = field(default_factory=dict)  # what decides them too, but is not in the record


@dataclass
class Report:
    """What became of the videos."""

    done: list[str] = field(default_factory=list)  # in the feature file, those of earlier runs too
    failed: dict[str, str] = field(default_factory=dict)  # reasons of those that are not
    durations: dict[str, float] = field(default_factory=dict)  # seconds of those that are done
    damaged: dict[str, str] = field(default_factory=dict)  # where, of those that are done


def extract_each(
    videos: Videos, extractor: Extractor, looking: Looking, out_h5: StrPath, parts: Sequence[StrPath] = ()
) -> Report:
    """Write `{name: (rows, D)}` float32 of all videos that can be read; the others are skipped, and say why.

    Another run with the same extractor and rates goes on with the file. `parts`: see `Extraction`.

    Raises:
        InputError: nothing can be written there, or another process does.
    """
    folder_rate = float(looking.folder_rate or looking.frame_rate)
    recipe = {**extractor.properties, "folder_rate": folder_rate, **extractor.also}
    attributes = made_with(extractor.script, "video", extractor.packages, **extractor.properties)
    report = Report()
    stamps = {name: _stamp(path) for name, path in videos.items()}
    with Extraction(out_h5, recipe, attributes, parts) as features:
        waiting = {name: Path(path) for name, path in videos.items() if not features.done(name, stamps[name])}
        report.durations = {name: features.about(name)["duration"] for name in videos if name not in waiting}
        damaged = {name: features.about(name).get("damage", "") for name in report.durations}
        with closing(_encoded(waiting, extractor, looking)) as encoded:
            for name, found in progress(encoded, "videos", total=len(waiting)):
                if isinstance(found, str):
                    features.failed(name, found)
                    print(f"skipped: {found}", file=sys.stderr, flush=True)
                else:
                    rows, about = found
                    features.put(name, {name: rows}, stamps[name], about)
                    report.durations[name], damaged[name] = about["duration"], about.get("damage", "")
        report.failed = dict(features.failures)
    report.damaged = {name: damage for name, damage in damaged.items() if damage}
    report.done = [name for name in videos if name in report.durations]
    return report


def _stamp(path: StrPath) -> str:
    try:
        return file_stamp(path)
    except InputError:  # said when the video's turn comes
        return "missing"


@dataclass(frozen=True)
class _Batch:
    """What goes through the model at once; each piece came `times` in a row, the same to the byte."""

    pieces: np.ndarray
    times: list[int]


_About: TypeAlias = dict[str, Any]  # "duration" in seconds, and "damage" where there is some


def _encoded(
    videos: Mapping[str, Path], extractor: Extractor, looking: Looking
) -> Generator[tuple[str, tuple[np.ndarray, _About] | str], None, None]:
    """(name, (its rows, what is known about it)) of each video, or (name, why it failed)."""
    rows: list[np.ndarray] = []
    with closing(ahead(_decoded(videos, extractor, looking), _WAITING_BATCHES)) as decoded:
        for name, found in decoded:
            if isinstance(found, _Batch):
                rows.append(np.repeat(extractor.encode(found.pieces), found.times, axis=0))
                continue
            if isinstance(found, str):
                yield name, found
            elif not np.isfinite(features := np.concatenate(rows)).all():
                yield name, f"{videos[name]}: its features are not finite numbers: check the weights"
            else:
                yield name, (features, found)
            rows = []


def _decoded(
    videos: Mapping[str, Path], extractor: Extractor, looking: Looking
) -> Generator[tuple[str, _Batch | _About | str], None, None]:
    """(name, batch) of all videos, one after the other; after each one's last batch what is known, or why it failed."""
    for name, path in videos.items():
        try:
            video = open_video(path, looking.folder_rate or looking.frame_rate, looking.decode_threads)
            with (
                closing(video.frames(looking.frame_rate, extractor.resize)) as frames,
                closing(Meter(name, video.duration, "s of video")) as meter,
            ):
                runs = _runs(extractor.pieces(_metered(frames, meter)))
                while batch := list(islice(runs, looking.batch_size)):
                    for _, alike in groupby(batch, lambda run: np.shape(run[0])):
                        pieces, times = zip(*alike, strict=True)
                        yield name, _Batch(np.stack(pieces), list(times))
            yield name, {"duration": video.duration} | ({"damage": video.damage} if video.damage else {})
        except InputError as err:
            yield name, str(err)


def _metered(frames: Iterator[tuple[float, np.ndarray]], meter: Meter) -> Iterator[np.ndarray]:
    for second, frame in frames:
        meter.reach(second)
        yield frame


def _runs(pieces: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """(piece, how often it comes in a row): what stands still goes through the model once."""
    last, times = None, 0
    for piece in pieces:
        if last is not None and np.array_equal(piece, last):
            times += 1
            continue
        if last is not None:
            yield last, times
        last, times = piece, 1
    if last is not None:
        yield last, times


def videos_of(args: argparse.Namespace) -> dict[str, Path]:
    """The videos that the options of `add_video_options` name, by name; what else lies there is said."""
    return find_videos(args.videos, [path for path in (args.out, args.out + FOLDER_SUFFIX, args.durations) if path])


def finish(report: Report, out: str, durations: str | None) -> None:
    """Print what became of the videos, and write their durations if a file is named; `InputError` without any."""
    if not report.done:
        raise InputError(f"{out}: not written, none of {len(report.failed)} videos could be read (reasons are above)")
    if durations:
        write_json(report.durations, durations, indent=True)
    hours = sum(report.durations.values()) / 3600
    print(f"{out}: {len(report.done)} videos, {hours:.2f} h")
    if report.damaged:
        print(damage_note(report.damaged))
    if report.failed:
        print(f"not in it, {len(report.failed)}: {first_few(list(report.failed), 20)}")
        for reason in report.failed.values():
            print(f"  {reason}")
        print("The same command tries them again, and only them.")


def damage_note(damaged: Mapping[str, str]) -> str:
    """A note on {video: where it is damaged}."""
    which = first_few([f"{name} ({damage})" for name, damage in damaged.items()])
    return f"videos that are damaged in places, where the picture before is taken ({len(damaged)}): {which}"
