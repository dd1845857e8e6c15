"""Frame features -> one feature a clip, as in TVRetrieval.

    python utils/video_feature/convert_feature_frm_to_clip.py --src_h5_file frames.h5 --tgt_h5_file max_cl-1.5.h5 \\
        --pool_type max

A frame belongs to the clip that it lies in; a clip pools its frames. Vectors of models of images and text are made unit
vectors before they are averaged, since their directions are what is compared.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

import numpy as np

from utils.basic_utils import (
    NO_DEBUG,
    InputError,
    RefusedOption,
    StrPath,
    command_line,
    first_few,
    progress,
    refuse_input_as_output,
)
from utils.feature_files.feature_array import normalized
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.feature_files.provenance import Property, contradictions, joined, made_from, properties
from utils.feature_files.several_files import file_of_each, refuse_different
from utils.pretrained.names import PROJECTED
from utils.video_feature.sampling import SAMPLE_OFFSET

SCRIPT = "utils/video_feature/convert_feature_frm_to_clip.py"
POOLS = {"max": np.maximum, "avg": np.add}
TVR_FRAME_RATE = 3.0
ON_THE_EDGE = 1e-6  # clips: a time this close before one, which rounding alone may be, is in it


def frame_times(n_frames: int, frame_rate: float = TVR_FRAME_RATE) -> np.ndarray:
    """(n_frames,) seconds at which frames lie: frame k at (k + 0.3) / frame_rate, see `SAMPLE_OFFSET`."""
    return (np.arange(n_frames) + SAMPLE_OFFSET) / frame_rate


def frames_to_clips(frames: np.ndarray, times: np.ndarray, clip_length: float, pool: str) -> np.ndarray:
    """Pool ("max" or "avg") the frames of each clip of `clip_length` seconds.

    Args:
        frames: (n_frames, …) float32, at least one.
        times: (n_frames,) seconds of each, rising; a frame is in clip floor(time / clip_length).

    Returns:
        (n_clips, …) float32, as many clips as it takes to have the last frame. A clip without a frame takes the frame
        that is nearest to its middle.
    """
    clip_of = np.floor(times / clip_length + ON_THE_EDGE).astype(np.int64)
    filled, starts, counts = np.unique(clip_of, return_index=True, return_counts=True)
    pooled = POOLS[pool].reduceat(frames, starts, axis=0)
    if pool == "avg":
        pooled = pooled / counts.astype(np.float32).reshape(-1, *[1] * (frames.ndim - 1))
    n_clips = int(clip_of[-1]) + 1
    if len(filled) == n_clips:
        return pooled.astype(np.float32, copy=False)
    clips = frames[_nearest(times, (np.arange(n_clips) + 0.5) * clip_length)].astype(np.float32)
    clips[filled] = pooled
    return clips


def _nearest(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """(n,) numbers of the times, which rise, that are nearest to n moments; the earlier of two that are as near."""
    later = np.searchsorted(times, moments).clip(max=len(times) - 1)
    earlier = (later - 1).clip(min=0)
    return np.where(np.abs(times[later] - moments) < np.abs(times[earlier] - moments), later, earlier)


def as_pooled(frames: np.ndarray, record: Mapping[str, Any], pool: str) -> np.ndarray:
    """Frames (n_frames, D) whose file has `record`, as they go into `frames_to_clips`."""
    return normalized(frames) if _counts_directions(record, pool) else frames


def pooled_properties(record: Mapping[str, Any], clip_length: float, pool: str) -> dict[str, Property]:
    """The decisive properties of clips out of frames whose file has `record`."""
    pooled = {**properties(record), "clip_length": clip_length, "pooling": pool}
    if _counts_directions(record, pool):
        return {**pooled, "normalised": "L2 of frames"}
    if pooled.get("normalised") != "none":
        pooled.pop("normalised", None)  # pooled, normalised rows are not normalised any more
    return pooled


def _counts_directions(record: Mapping[str, Any], pool: str) -> bool:
    return pool == "avg" and record.get("layer") == PROJECTED


def convert(
    src_h5s: Sequence[StrPath],
    tgt_h5: StrPath,
    pool: str = "max",
    clip_length: float = 1.5,
    frame_rate: float | None = None,
) -> int:
    """Write `{vid_name: (n_clips, D)}`, whole or not at all, one video in memory at a time; returns how many videos.

    Args:
        src_h5s: files of `{vid_name: (n_frames, D)}`, such as one a show; no video in two of them.
        pool, clip_length: see `frames_to_clips`.
        frame_rate: frames a second in the files; by default what they say of themselves, else 3.

    Raises:
        InputError: a file cannot be read, files do not go together, their frames were not taken at `frame_rate`, or
            options make no sense.
    """
    if pool not in POOLS:
        raise InputError(f"--pool_type {pool}: expected one of {', '.join(POOLS)}")
    if not (math.isfinite(clip_length) and clip_length > 0):
        raise InputError(f"--clip_length {clip_length}: expected seconds, more than 0")
    refuse_input_as_output("--tgt_h5_file", tgt_h5, src_h5s)
    with ExitStack() as opened:
        sources = [opened.enter_context(FeatureFile(path)) for path in src_h5s]
        refuse_different(sources)
        source_of = file_of_each(sources)
        attributes = [source.made_by() for source in sources]
        rates = [_frame_rate(source, its, frame_rate) for source, its in zip(sources, attributes, strict=True)]
        if len(set(rates)) > 1:
            raise InputError(f"{first_few(src_h5s)}: only some say their frame_rate: give --frame_rate, if it is one")
        record = functools.reduce(joined, attributes, properties(attributes[0])) | {"frame_rate": rates[0]}
        known = pooled_properties(record, clip_length, pool)
        width = sources[0].width()
        with new_feature_file(tgt_h5, **made_from(attributes, SCRIPT, "video", ["numpy"], **known)) as out:
            for name, source in progress(source_of.items(), "frames to clips", len(source_of)):
                frames = as_pooled(source.read(name, width), record, pool)
                out.put(name, frames_to_clips(frames, frame_times(len(frames), rates[0]), clip_length, pool))
    return len(source_of)


def _frame_rate(source: FeatureFile, attributes: Mapping[str, Any], typed: float | None) -> float:
    if typed is None:
        recorded = properties(attributes).get("frame_rate", TVR_FRAME_RATE)
        if isinstance(recorded, str) or recorded <= 0:
            raise InputError(f"{source.path}: says that its frame_rate is {recorded}: give --frame_rate")
        return float(recorded)
    if not (math.isfinite(typed) and typed > 0):
        raise InputError(f"--frame_rate {typed}: expected frames a second, more than 0")
    for _, recorded, _ in contradictions(attributes, {"frame_rate": typed}):
        raise InputError(f"{source.path}: was made at {recorded} frames a second, not {typed}: leave --frame_rate out")
    return typed


@command_line
def main() -> None:
    parser = argparse.ArgumentParser(description="Frame features -> one feature a clip")
    frames = "frame features, {vid_name: (frames, size)}; several files, such as one a show, become one"
    parser.add_argument("--src_h5_files", "--src_h5_file", required=True, nargs="+", help=frames)
    parser.add_argument("--tgt_h5_file", required=True, help="h5 file to write")
    parser.add_argument("--pool_type", choices=sorted(POOLS), default="max", help="(default %(default)s)")
    parser.add_argument("--clip_length", type=float, default=1.5, help="seconds (default %(default)s)")
    parser.add_argument("--frame_rate", type=float, help="frames a second (default: what the file says, else 3)")
    parser.add_argument("--debug", action=RefusedOption, why=NO_DEBUG)
    opt = parser.parse_args()
    n = convert(opt.src_h5_files, opt.tgt_h5_file, opt.pool_type, opt.clip_length, opt.frame_rate)
    print(f"{opt.tgt_h5_file}: {n} videos")


if __name__ == "__main__":
    main()
