"""The options that all programs have which make features of videos."""

from __future__ import annotations

import argparse


def add_video_options(parser: argparse.ArgumentParser, frame_rate: float, batch_size: int, batch: str) -> None:
    """Add the options that say which videos, how they are looked at, and where features go.

    `batch` says what a batch is made of.
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
