"""Token features of subtitles -> one feature a clip, as in TVRetrieval.

    python utils/text_feature/convert_sub_feature_word_to_clip.py --src_h5_file sub_tokens.h5 \\
        --sub_meta_path subtitles.jsonl --vid_clip_h5_file video.h5 --tgt_h5_file sub_max_cl-1.5.h5

A line belongs to the clips that it overlaps in time; a clip pools the tokens from its first line to its last.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
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
from utils.feature_files.feature_file import FeatureError, FeatureFile, new_feature_file
from utils.feature_files.provenance import made_with, properties
from utils.text_feature.text_rows import LENGTHS_SUFFIX, MASK_SUFFIX, Rows, refuse_clashes, subtitle_lines

POOLS = ("max", "avg")
SCRIPT = "utils/text_feature/convert_sub_feature_word_to_clip.py"


@dataclass
class Report:
    """What became of the videos."""

    unused: list[str]  # have subtitles but no clips
    done: list[str] = field(default_factory=list)  # written
    silent: list[str] = field(default_factory=list)  # those among them without subtitles: all their clips are zero
    failed: dict[str, str] = field(default_factory=dict)  # reasons of those that are not in the file
    past_the_end: dict[str, int] = field(default_factory=dict)  # lines that begin after the last clip and are in none


def clip_lines(lines: Sequence[Mapping[str, Any]], n_clips: int, clip_length: float) -> list[tuple[int, int] | None]:
    """First and last line of each clip, None where nobody speaks.

    Args:
        lines: with `start` and `end`, in seconds as `clip_length`; a line is in clips floor(start / clip_length) to
            ceil(end / clip_length) - 1.
        n_clips: of the video; lines beyond are in no clip.
    """
    spans: list[tuple[int, int] | None] = [None] * n_clips
    for i, line in enumerate(lines):
        first = max(0, math.floor(line["start"] / clip_length))
        for clip in range(first, min(n_clips, math.ceil(line["end"] / clip_length))):
            span = spans[clip]
            spans[clip] = (i if span is None else span[0], i)
    return spans


def pool_clips(
    tokens: np.ndarray, lengths: np.ndarray, spans: Sequence[tuple[int, int] | None], pool: str
) -> tuple[np.ndarray, np.ndarray]:
    """Pool ("max" or "avg") the tokens of each clip.

    Args:
        tokens: (n_tokens, D) float32, those of all lines one after the other.
        lengths: (n_lines,) tokens of each line; lines beyond count as the last one, as in TVRetrieval.
        spans: first and last line of each clip, or None.

    Returns:
        (n_clips, D) float32, zero where nothing was pooled, and the mask (n_clips,) float32, 1 where something was.
    """
    features = np.zeros((len(spans), tokens.shape[1]), np.float32)
    mask = np.zeros(len(spans), np.float32)
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    last_line = len(lengths) - 1
    for clip, span in enumerate(spans):
        if span is None or last_line < 0:
            continue
        rows = tokens[bounds[min(span[0], last_line)] : bounds[min(span[1], last_line) + 1]]
        if len(rows):
            features[clip] = rows.max(axis=0) if pool == "max" else rows.mean(axis=0)
            mask[clip] = 1.0
    return features, mask


def convert(
    token_h5: StrPath, subs_jsonl: Rows, video_h5: StrPath, out_h5: StrPath, clip_length: float = 1.5, pool: str = "max"
) -> Report:
    """Write `{vid_name}: (n_clips, D)` and `{vid_name}-mask: (n_clips,)`, whole or not at all.

    Args:
        token_h5: `{vid_name}: (tokens, D)` and `{vid_name}-lengths: (lines,)` tokens of each line.
        subs_jsonl: `{"vid_name", "sub": [{"text", "start", "end"}, …]}` the tokens were made from, or such rows; there
            may be more lines than `lengths`. A video that is not in it is silent.
        video_h5: `{vid_name}: (n_clips, …)`, the video features.
        clip_length, pool: see `clip_lines` and `pool_clips`.

    Raises:
        InputError: a file cannot be read, no video has subtitles, or the options make no sense.
    """
    if pool not in POOLS:
        raise InputError(f"--pool_type {pool}: expected one of {', '.join(POOLS)}")
    if not (math.isfinite(clip_length) and clip_length > 0):
        raise InputError(f"--clip_length {clip_length}: expected seconds, more than 0")
    lines_of = subtitle_lines(subs_jsonl)
    with FeatureFile(video_h5) as video:
        n_clips = {name: video.form(name)[0] for name in video.feature_keys()}
    refuse_clashes(n_clips)
    if not any(name in lines_of for name in n_clips):
        where = subs_jsonl if isinstance(subs_jsonl, str | os.PathLike) else "subtitles"
        raise InputError(f"{where}: no subtitles of any video, such as {next(iter(n_clips))}: other names?")
    report = Report(unused=[name for name in lines_of if name not in n_clips])
    with FeatureFile(token_h5) as source, ExitStack() as opened:
        width, keys = source.width(), set(source.keys())
        about = {**properties(source.made_by()), "clip_length": clip_length, "pooling": pool}
        out = opened.enter_context(new_feature_file(out_h5, **made_with(SCRIPT, "sub", ["numpy"], **about)))
        for name in progress(n_clips, "subtitles to clips", len(n_clips)):
            lines = lines_of.get(name, [])
            try:
                tokens, lengths = _tokens_of(name, lines, source, keys, width)
            except FeatureError as err:
                report.failed[name] = err.reason
                continue
            features, mask = pool_clips(tokens, lengths, clip_lines(lines, n_clips[name], clip_length), pool)
            out.put(name, features)
            out.put(name + MASK_SUFFIX, mask)
            report.done.append(name)
            if not mask.any():
                report.silent.append(name)
            if late := sum(line["start"] >= n_clips[name] * clip_length for line in lines):
                report.past_the_end[name] = late
        if not report.done:
            name, reason = next(iter(report.failed.items()))
            raise InputError(f"{token_h5}: has features of none of the videos ({name}: {reason}): extract them first")
    return report


def _tokens_of(
    name: str, lines: Sequence[Mapping[str, Any]], source: FeatureFile, keys: set[str], width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (n_tokens, D) and lengths (n_lines,) of a video, both empty for one without a word."""
    nothing = np.zeros((0, width), np.float32), np.zeros(0, np.int64)
    if name not in keys:
        if not any(line["text"].strip() for line in lines):
            return nothing
        raise FeatureError(source.path, name, "has subtitles, but no token features: extract them")
    if name + LENGTHS_SUFFIX not in keys:
        raise FeatureError(source.path, name, f"has tokens, but no {name}{LENGTHS_SUFFIX}: extract it again")
    lengths = source.numbers(name + LENGTHS_SUFFIX)
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or (lengths < 0).any():
        found = f"{lengths.dtype} {lengths.shape}"
        raise FeatureError(source.path, name + LENGTHS_SUFFIX, f"expected a row of lengths, found {found}")
    lengths = lengths.astype(np.int64)
    if len(lengths) > len(lines):
        raise FeatureError(
            source.path, name, f"has tokens of {len(lengths)} lines, the subtitles have {len(lines)}: other subtitles?"
        )
    if not lengths.sum():
        return nothing
    tokens = source.read(name, width)
    if lengths.sum() != len(tokens):
        raise FeatureError(source.path, name, f"has {len(tokens)} tokens, its lengths sum to {lengths.sum()}")
    return tokens, lengths


def _tell(report: Report) -> None:
    for name, reason in report.failed.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if report.past_the_end:
        late = f"{sum(report.past_the_end.values())} lines begin after the last clip of their video and are in none"
        print(f"note: {late}: {first_few(list(report.past_the_end))}", file=sys.stderr)
    if report.unused:
        print(f"note: subtitles of videos without clips: {first_few(report.unused)}", file=sys.stderr)
    if report.silent:
        print(f"note: no clip with subtitles, all zero: {first_few(report.silent)}", file=sys.stderr)
    print(f"{len(report.done)} videos written, {len(report.silent)} silent, {len(report.failed)} left out")


@command_line
def main() -> None:
    parser = argparse.ArgumentParser(description="Token features of subtitles -> one feature a clip")
    parser.add_argument("--src_h5_file", required=True, help="token features and lengths, of extract_text_features.py")
    parser.add_argument("--tgt_h5_file", required=True, help="h5 file to write")
    parser.add_argument("--sub_meta_path", required=True, help="jsonl of preprocess_subtitles.py")
    parser.add_argument("--vid_clip_h5_file", required=True, help="video features, which say how many clips there are")
    parser.add_argument("--clip_length", type=float, default=1.5, help="seconds (default %(default)s)")
    parser.add_argument("--pool_type", choices=POOLS, default="max", help="(default %(default)s)")
    parser.add_argument("--debug", action=RefusedOption, why=NO_DEBUG)
    opt = parser.parse_args()
    read = opt.src_h5_file, opt.sub_meta_path, opt.vid_clip_h5_file
    refuse_input_as_output("--tgt_h5_file", opt.tgt_h5_file, read)
    _tell(convert(*read, opt.tgt_h5_file, opt.clip_length, opt.pool_type))


if __name__ == "__main__":
    main()
