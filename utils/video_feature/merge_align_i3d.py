"""I3D features of several files, such as one a show, merged into one with as many clips as the ResNet features have.

python utils/video_feature/merge_align_i3d.py --src_h5_files i3d_bbt.h5 i3d_friends.h5 --resnet_h5_file resnet.h5 \\
    --tgt_h5_file i3d_cl-1.5.h5
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec

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
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.feature_files.provenance import Property, contradictions, joined, made_from, properties
from utils.feature_files.several_files import file_of_each, refuse_different

SCRIPT = "utils/video_feature/merge_align_i3d.py"
FEW_CLIPS, FEW_SHARE = 3, 0.1  # what two ways of counting clips differ by; more is another clip length or video


@dataclass
class Report:
    """What became of the videos."""

    only_i3d: list[str]  # not in the other, and not written
    only_resnet: list[str]
    done: list[str] = field(default_factory=list)
    far_apart: dict[str, tuple[int, int]] = field(
        default_factory=dict
    )  # clips of I3D and ResNet where they differ much


def align(features: np.ndarray, n_clips: int) -> np.ndarray:
    """(L, D) cut to, or filled up with zero rows to, (n_clips, D)."""
    missing = n_clips - len(features)
    return features[:n_clips] if missing <= 0 else np.pad(features, ((0, missing), (0, 0)))


def merge_align(src_h5s: Sequence[StrPath], resnet_h5: StrPath, tgt_h5: StrPath) -> Report:
    """Write `{vid_name: (n_clips, D)}` of all files, whole or not at all; one video is in memory at a time.

    Args:
        src_h5s: files of `{vid_name: (L, D)}`, no video in two of them.
        resnet_h5: features of the same videos, which say how many clips each has.

    Raises:
        InputError: a file cannot be read, files do not go together, or no video is in both.
    """
    refuse_input_as_output("--tgt_h5_file", tgt_h5, [*src_h5s, resnet_h5])
    with ExitStack() as opened:
        resnet = opened.enter_context(FeatureFile(resnet_h5))
        sources = [opened.enter_context(FeatureFile(path)) for path in src_h5s]
        refuse_different(sources)
        _check_clip_length(sources, resnet)
        source_of = file_of_each(sources)
        there = dict.fromkeys(resnet.feature_keys())
        report = Report(
            only_i3d=[name for name in source_of if name not in there],
            only_resnet=[name for name in there if name not in source_of],
        )
        names = sorted(there.keys() & source_of.keys())
        if not names:
            raise InputError(
                f"{resnet_h5}: has none of the videos, such as {first_few(report.only_i3d, 1)}: other names?"
            )
        width = source_of[names[0]].width()
        attributes = [source.made_by() for source in sources]
        known = functools.reduce(joined, attributes, properties(attributes[0]))
        known |= _clip_length(resnet)  # which rows that are cut or filled up stand beside
        with new_feature_file(tgt_h5, **made_from(attributes, SCRIPT, "video", ["numpy"], **known)) as out:
            for name in progress(names, "aligning"):
                features, n_clips = source_of[name].read(name, width), resnet.form(name)[0]
                out.put(name, align(features, n_clips))
                report.done.append(name)
                if abs(len(features) - n_clips) > max(FEW_CLIPS, FEW_SHARE * n_clips):
                    report.far_apart[name] = len(features), n_clips
    return report


def _check_clip_length(sources: Sequence[FeatureFile], resnet: FeatureFile) -> None:
    """Refuse clips of another length than those they are aligned with."""
    for source in sources:
        for _, here, there in contradictions(source.made_by(), _clip_length(resnet)):
            raise InputError(
                f"{source.path}: has clips of {here} s, {resnet.path} of {there} s: make both with one clip length"
            )


def _clip_length(file: FeatureFile) -> dict[str, Property]:
    """What a file says of the length of its clips."""
    return {name: value for name, value in properties(file.made_by()).items() if name == "clip_length"}


@command_line
def main() -> None:
    parser = argparse.ArgumentParser(description="I3D features of several files, merged and aligned with ResNet's")
    parser.add_argument("--src_h5_files", required=True, nargs="+", help="I3D features, {vid_name: (clips, size)}")
    clips = "clip features that say how many clips there are"
    parser.add_argument("--resnet_h5_file", "--align_h5_file", required=True, help=clips)
    parser.add_argument("--tgt_h5_file", required=True, help="h5 file to write")
    parser.add_argument("--debug", action=RefusedOption, why=NO_DEBUG)
    opt = parser.parse_args()
    report = merge_align(opt.src_h5_files, opt.resnet_h5_file, opt.tgt_h5_file)
    for names, where in ((report.only_i3d, "ResNet"), (report.only_resnet, "I3D")):
        if names:
            print(f"left out, without {where} features: {first_few(names)}", file=sys.stderr)
    if report.far_apart:
        named = first_few([f"{name} ({i3d} and {resnet})" for name, (i3d, resnet) in report.far_apart.items()])
        differ = "I3D and ResNet differ much in their numbers of clips; another clip length?"
        print(f"warning: {differ} {named}", file=sys.stderr)
    print(f"{opt.tgt_h5_file}: {len(report.done)} videos")


if __name__ == "__main__":
    main()
