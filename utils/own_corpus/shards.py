"""Extraction by several processes or machines at once: each takes a share of the videos, into files of its own.

The run that makes the corpus takes what shards have finished from there, and looks at other videos itself.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.basic_utils import InputError, StrPath, first_few
from utils.own_corpus.layout import Layout
from utils.video_feature import extract_frame_features, extract_i3d_features
from utils.video_feature.extract_i3d_features import I3DModel
from utils.video_feature.image_models import ImageModel
from utils.video_feature.pipeline import Looking, Report, Videos

AUTO = "auto"


@dataclass(frozen=True)
class Shard:
    """One share of several."""

    number: int  # from 1 on
    of: int

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"

    def share(self, videos: Mapping[str, Path]) -> dict[str, Path]:
        """Every `of`-th video in the order of their names, from the `number`-th on."""
        return {name: videos[name] for name in sorted(videos)[self.number - 1 :: self.of]}


def shard_of(asked: str) -> Shard:
    """What `--shard` says: "I/N", or "auto" in a process that torchrun has started; `InputError` for anything else."""
    if asked == AUTO:
        rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
        if not (rank.isdecimal() and size.isdecimal()):
            raise InputError("--shard auto: RANK and WORLD_SIZE are not set, as torchrun sets them: give --shard I/N")
        asked = f"{int(rank) + 1}/{size}"
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", asked)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {asked}: give I/N, the I-th of N shares, such as 1/4 to 4/4, or auto")
    return Shard(int(found[1]), int(found[2]))


def device_of(opt: argparse.Namespace) -> int:
    """The device of this process: with `--shard auto`, the one that torchrun means it to have."""
    local = os.environ.get("LOCAL_RANK", "")
    return int(local) if opt.shard == AUTO and opt.device >= 0 and local.isdecimal() else int(opt.device)


def extract_frames(
    opt: argparse.Namespace, videos: Videos, model: ImageModel, out_h5: Path, parts: Sequence[StrPath] = ()
) -> Report:
    """Features of frames, see `extract_frame_features.extract`, as the options of `utils/extract_features.py` say."""
    looking = Looking(opt.frame_rate, opt.image_batch_size, opt.folder_rate, opt.decode_threads)
    return extract_frame_features.extract(videos, model, out_h5, looking, parts)


def extract_windows(
    opt: argparse.Namespace, videos: Videos, model: I3DModel, out_h5: Path, parts: Sequence[StrPath] = ()
) -> Report:
    """I3D features, likewise."""
    rate, folder_rate = extract_i3d_features.LOOKING.frame_rate, opt.folder_rate or opt.frame_rate
    looking = Looking(rate, opt.i3d_batch_size, folder_rate, opt.decode_threads)
    return extract_i3d_features.extract(videos, model, out_h5, looking, opt.clip_length, parts)


def extract_shard(
    opt: argparse.Namespace, videos: Mapping[str, Path], layout: Layout, image: ImageModel, i3d: I3DModel | None
) -> str:
    """Extract the features of a shard's videos; returns what became of them, as text."""
    shard = shard_of(opt.shard)
    share = shard.share(videos)
    report = extract_frames(opt, share, image, layout.part(layout.frames, str(shard)))
    failed = dict(report.failed)
    if i3d is not None:
        readable = {name: share[name] for name in report.done}
        failed |= extract_windows(opt, readable, i3d, layout.part(layout.i3d_windows, str(shard))).failed
    done = f"shard {shard.number} of {shard.of}: {len(share) - len(failed)} of {len(share)} videos are done"
    left = f"; {first_few(list(failed))}: tried again by the run without --shard" if failed else ""
    return f"{done}{left}\nOnce all shards are done, the same command without --shard makes the corpus of them."


def finished_parts(layout: Layout, features: Path) -> list[Path]:
    """What shards have extracted of a file of features; those that are not finished are said."""
    for folder in layout.unfinished_parts(features):
        print(
            f"note: {folder}: this shard is not finished, and its videos are extracted here: stop this run and finish "
            "the shard first, if it is to do them",
            file=sys.stderr,
            flush=True,
        )
    return layout.parts(features)
