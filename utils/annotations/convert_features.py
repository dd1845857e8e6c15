"""Public features to the h5 form that training and inference read: `{vid_name: (rows, size)}`, data/README.md.

    python utils/annotations/convert_features.py --src i3d_npy --out video.h5
    python utils/annotations/convert_features.py --src c3d.hdf5 --dataset c3d_features --out video.h5 --add_prefix v_

The source is a folder of `.npy` files, one for each video; an h5 file with a dataset for each; or, with --dataset, an
h5 file with a group for each and features in the dataset of that name. One video is in memory at a time.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.annotations.npy_folder import NpyFolder
from utils.basic_utils import (
    InputError,
    command_line,
    first_few,
    is_name,
    progress,
    read_json,
    refuse_input_as_output,
)
from utils.dataset_files import usable_folder
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.feature_files.provenance import DECISIVE, KINDS, Plain, made_from, properties
from utils.tables import indented

SCRIPT = "utils/annotations/convert_features.py"
NUMBERS = ("frame_rate", "clip_length", "max_length")  # properties that are numbers


@dataclass(frozen=True)
class Report:
    """What became of the features."""

    done: list[str]  # keys written
    rows: tuple[int, int]  # least and most of one of them
    width: int
    not_asked: int  # how many of the source's were not among the videos
    lacking: list[str]  # videos that the source does not have


def renamed(key: str, add_prefix: str = "", remove_prefix: str = "") -> str:
    """A key without `remove_prefix` and with `add_prefix`, unless it has that already."""
    key = key.removeprefix(remove_prefix)
    return key if key.startswith(add_prefix) else add_prefix + key


def convert(
    source: FeatureFile | NpyFolder,
    out: Path,
    rename: Callable[[str], str] = renamed,
    videos: Sequence[str] | None = None,
    kind: str = "video",
    known: Mapping[str, Plain] | None = None,
) -> Report:
    """Write the features of a source to the h5 file `out`, whole or not at all.

    Args:
        rename: from the source's keys to those in `out`.
        videos: the only keys of `out` to write; all if None.
        kind: see `utils.feature_files.provenance`.
        known: properties of `utils.feature_files.provenance.DECISIVE`, which go before what the source says of itself.

    Raises:
        InputError: two keys become one, no video is in the source, or an array cannot be read or is of another size.
    """
    source_keys = _keys(source, rename)
    asked = list(source_keys) if videos is None else [key for key in dict.fromkeys(videos) if key in source_keys]
    if not asked:
        few = first_few(list(source_keys), 3)
        raise InputError(
            f"{source.path}: has none of the videos such as {first_few(list(videos or ()), 3)}, but {few}: "
            "do --add_prefix or --remove_prefix make them alike?"
        )
    attributes = source.made_by()
    about = {**properties(attributes), **(known or {})}
    wrong: list[str] = []
    width, n_rows = None, []
    with new_feature_file(out, **made_from([attributes], SCRIPT, kind, ["numpy", "h5py"], **about)) as writer:
        for key in progress(asked, "converting"):
            try:
                features = source.read(source_keys[key], width)
            except InputError as err:
                wrong.append(str(err))
                continue
            width = features.shape[1]
            n_rows.append(features.shape[0])
            writer.put(key, features)
        if width is None or wrong:
            raise InputError(f"nothing is written:{indented(wrong)}")
    lacking = [] if videos is None else [key for key in dict.fromkeys(videos) if key not in source_keys]
    return Report(asked, (min(n_rows), max(n_rows)), width, len(source_keys) - len(asked), lacking)


def _keys(source: FeatureFile | NpyFolder, rename: Callable[[str], str]) -> dict[str, str]:
    """The source's key by the new one, in the source's order."""
    source_keys: dict[str, str] = {}
    for key in source.feature_keys():
        new = rename(key)
        if not is_name(new) or not new.strip() or "/" in new:
            raise InputError(f"{source.path}, key {key}: would be {new!r}, which names no video: change the prefixes")
        other = source_keys.setdefault(new, key)
        if other != key:
            raise InputError(f"{source.path}: {other} and {key} would both be {new}: change the prefixes")
    return source_keys


def videos_of(path: str) -> list[str]:
    """Names of all videos in a video2dur_idx file; `InputError` when it is not of that form."""
    content = read_json(path, "give the video2dur_idx file that convert.py wrote")
    if not isinstance(content, dict) or not all(isinstance(entries, dict) for entries in content.values()):
        raise InputError(f"{path}: expected {{split: {{vid_name: [duration, video_idx]}}}}: is this the right file?")
    return [name for entries in content.values() for name in entries]


def _properties(texts: Sequence[str]) -> dict[str, Plain]:
    known: dict[str, Plain] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in DECISIVE or not value:
            raise InputError(f"--about {text}: expected NAME=VALUE with one of the names {', '.join(DECISIVE)}")
        try:
            known[name] = float(value) if name in NUMBERS else value
        except ValueError as err:
            raise InputError(f"--about {text}: {value} is not a number") from err
    return known


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--src", required=True, help="folder of .npy files, or an h5 file")
    add("--dataset", help="name of the dataset in each group of the h5 file, such as c3d_features")
    add("--out", required=True, help="h5 file to write")
    add("--add_prefix", default="", help="put before the names that lack it, such as v_")
    add("--remove_prefix", default="", help="taken from the names that have it")
    add("--videos", help="video2dur_idx json: convert its videos only, and list those without features")
    add("--kind", choices=KINDS, default="video", help="what they are of (default: %(default)s)")
    about = f"what is known of what made them, kept in the file: {', '.join(DECISIVE)}"
    add("--about", nargs="+", default=[], metavar="NAME=VALUE", help=about)
    return parser.parse_args(argv)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    src, out = Path(args.src), Path(args.out)
    if src.is_dir() and args.dataset:
        raise InputError(f"--dataset {args.dataset}: is for h5 files, {src} is a folder of .npy files: leave it out")
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder: give the h5 file to write")
    refuse_input_as_output("--out", out, [src, args.videos])
    usable_folder(out.parent)
    known = _properties(args.about)
    videos = None if args.videos is None else videos_of(args.videos)
    rename = functools.partial(renamed, add_prefix=args.add_prefix, remove_prefix=args.remove_prefix)
    with NpyFolder(src) if src.is_dir() else FeatureFile(src, args.dataset) as source:
        report = convert(source, out, rename, videos, args.kind, known)
    least, most = report.rows
    print(f"{out}: {len(report.done):,} written, {least} to {most} rows each, {report.width} wide")
    if report.not_asked:
        print(f"left out: {report.not_asked:,} of {src} that {args.videos} does not name")
    if report.lacking:
        print(f"warning: {len(report.lacking):,} videos have no features: {first_few(report.lacking)}")


if __name__ == "__main__":
    main()
