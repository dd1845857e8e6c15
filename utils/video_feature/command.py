"""What the commands that extract features from videos have in common."""

from __future__ import annotations

import argparse

from utils.basic_utils import InputError, first_few, write_json
from utils.video_feature.pipeline import Report


def add_video_options(parser: argparse.ArgumentParser, frame_rate: float, batch_size: int, batch: str) -> None:
    """Add the options that say which videos, how they are looked at, and where features go.

    Args:
        parser: gets them.
        frame_rate, batch_size: defaults.
        batch: what a batch is made of.
    """
    add = parser.add_argument_group("videos").add_argument
    add("--videos", required=True, metavar="DIR", help="folder with video files, or with folders of frames (jpg, png)")
    add("--out", required=True, metavar="FILE.h5", help="feature file; what is done lies in FILE.h5.partial until then")
    add("--durations", metavar="FILE.json", help="also write {video: seconds}")
    add("--frame_rate", type=float, default=frame_rate, help=f"frames a second to look at; default {frame_rate:g}")
    add("--folder_rate", type=float, help="pictures a second in folders of frames; default: --frame_rate")
    add("--decode_threads", type=int, default=0, help="threads that decode; default 0: as many as there are cores")
    add("--batch_size", type=int, default=batch_size, help=f"{batch}; default {batch_size}")
    add("--device", type=int, default=0, help="CUDA device, -1 for the CPU; default 0")


def check_batch_size(batch_size: int) -> None:
    """Raise `InputError` when there is nothing in a batch."""
    if batch_size < 1:
        raise InputError(f"--batch_size {batch_size}: needs at least 1")


def finish(report: Report, out: str, durations: str | None) -> None:
    """Print what became of the videos, and write their durations if a file is named.

    Raises:
        InputError: there are no features of any video.
    """
    if not report.done:
        raise InputError(f"{out}: not written, none of {len(report.failed)} videos could be read (reasons are above)")
    if durations:
        write_json(report.durations, durations, indent=True)
    hours = sum(report.durations.values()) / 3600
    print(f"{out}: {len(report.done)} videos, {hours:.2f} h")
    if report.failed:
        print(f"not in it, {len(report.failed)}: {first_few(list(report.failed), 20)}")
        for reason in report.failed.values():
            print(f"  {reason}")
        print("The same command tries them again, and only them.")
