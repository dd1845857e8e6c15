"""ResNet and I3D clip features, each L2-normalised, side by side: the features of the paper's setting.

python utils/video_feature/normalize_and_concat.py --resnet_h5_file resnet_max.h5 --i3d_h5_file i3d_aligned.h5 \\
    --tgt_h5_file resnet_i3d_cat.h5

Train with them with --no_norm_vfeat.
"""

from __future__ import annotations

import argparse
import sys
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
from utils.feature_files.feature_array import normalized
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.feature_files.provenance import joined, made_from, properties
from utils.feature_files.several_files import refuse_other_clip_length

SCRIPT = "utils/video_feature/normalize_and_concat.py"


def concat(resnet: np.ndarray, i3d: np.ndarray) -> np.ndarray:
    """(L, D1) and (L, D2) -> (L, D1 + D2), each half L2-normalised, ResNet first."""
    return np.concatenate([normalized(resnet), normalized(i3d)], axis=1)


def normalize_and_concat(resnet_h5: StrPath, i3d_h5: StrPath, tgt_h5: StrPath) -> int:
    """Write `{vid_name: (L, D1 + D2)}`, whole or not at all, of two `{vid_name: (L, D)}`; returns how many videos.

    One video is in memory at a time.

    Raises:
        InputError: a file cannot be read, or they differ in their videos, numbers of clips or clip length.
    """
    refuse_input_as_output("--tgt_h5_file", tgt_h5, [resnet_h5, i3d_h5])
    with FeatureFile(resnet_h5) as resnet, FeatureFile(i3d_h5) as i3d:
        records = [resnet.made_by(), i3d.made_by()]
        refuse_other_clip_length(resnet_h5, records[0], i3d_h5, records[1])
        names = resnet.feature_keys()
        for one, other in ((resnet, i3d), (i3d, resnet)):
            if missing := other.missing(one.feature_keys()):
                raise InputError(
                    f"{other.path}: lacks videos of {one.path}: {first_few(missing)}: run merge_align_i3d.py"
                )
        sizes = resnet.width(), i3d.width()
        about = {**joined(*map(properties, records)), "normalised": "L2 per half"}
        with new_feature_file(tgt_h5, **made_from(records, SCRIPT, "video", ["numpy"], **about)) as out:
            for name in progress(names, "joining"):
                halves = resnet.read(name, sizes[0]), i3d.read(name, sizes[1])
                if len(halves[0]) != len(halves[1]):
                    raise InputError(
                        f"{i3d_h5}, key {name}: has {len(halves[1])} clips, {resnet_h5} has {len(halves[0])}: run "
                        "merge_align_i3d.py"
                    )
                out.put(name, concat(*halves))
    return len(names)


@command_line
def main() -> None:
    parser = argparse.ArgumentParser(description="ResNet and I3D clip features, each L2-normalised, side by side")
    parser.add_argument("--resnet_h5_file", required=True, help="first half, {vid_name: (clips, size)}")
    parser.add_argument("--i3d_h5_file", required=True, help="second half, of merge_align_i3d.py")
    parser.add_argument("--tgt_h5_file", required=True, help="h5 file to write")
    parser.add_argument("--debug", action=RefusedOption, why=NO_DEBUG)
    opt = parser.parse_args()
    n = normalize_and_concat(opt.resnet_h5_file, opt.i3d_h5_file, opt.tgt_h5_file)
    print(f"{opt.tgt_h5_file}: {n} videos")


if __name__ == "__main__":
    main()
