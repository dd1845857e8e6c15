"""Public features to the h5 form that training and inference read, `{vid_name: (rows, size)}`, and out of it again.

    python utils/annotations/convert_features.py --src i3d_npy --out video.h5
    python utils/annotations/convert_features.py --src clip_npz slowfast_npz --normalise_parts --out video.h5
    python utils/annotations/convert_features.py --src text_npz --queries val.jsonl --out query.h5
    python utils/annotations/convert_features.py --src video.h5 --to npz --out video_npz

A source is a folder of `.npy`, `.npz` or `.pt` files, one for each video; an LMDB; a BigFile; one `.pt` file; or an h5
file with a dataset for each video. `utils/feature_forms/README.md` has them all. One video is in memory at a time.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.basic_utils import InputError, command_line, first_few, read_json, refuse_input_as_output
from utils.dataset_files import usable_folder
from utils.feature_files.provenance import DECISIVE, KINDS, Plain
from utils.feature_forms.conversion import Chosen, Rename, Report, choose, convert, renamed
from utils.feature_forms.joined import JoinedSource
from utils.feature_forms.open_source import open_source
from utils.feature_forms.output.forms import FORMS, check_out
from utils.feature_forms.query_keys import desc_id_of, desc_ids_of

NUMBERS = ("frame_rate", "clip_length", "max_length")  # properties that are numbers


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


def _asked(args: argparse.Namespace) -> tuple[Rename, list[str] | None]:
    """How keys are renamed, and which of the new ones are asked for; None for all."""
    prefixes = functools.partial(renamed, add_prefix=args.add_prefix, remove_prefix=args.remove_prefix)
    if args.videos is not None and args.queries is not None:
        raise InputError("--videos and --queries: features are of one or the other: give one of them")
    if args.queries is None:
        return prefixes, None if args.videos is None else videos_of(args.videos)
    desc_ids = desc_ids_of(args.queries)
    return lambda key: desc_id_of(prefixes(key), desc_ids), list(desc_ids.values())


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--src", required=True, nargs="+", help="folder or file of features; of several, those of a video are joined")
    dataset = "name of the array in each npz, dict or group of an h5 file, such as c3d_features"
    add("--dataset", help=dataset)
    parts = "divide each row of each source by its L2 norm, as Moment-DETR does before it joins them"
    add("--normalise_parts", action="store_true", help=parts)
    add("--to", choices=FORMS, default="h5", help="form to write (default: %(default)s)")
    add("--out", required=True, help="file, or for npz folder, to write")
    add("--add_prefix", default="", help="put before the names that lack it, such as v_")
    add("--remove_prefix", default="", help="taken from the names that have it")
    add("--videos", help="video2dur_idx json: convert its videos only, and list those without features")
    queries = "annotation files: convert their queries only, named by qid, to desc_ids, and list those without features"
    add("--queries", nargs="+", metavar="FILE.jsonl", help=queries)
    add("--kind", choices=KINDS, help="what they are of (default: video; query with --queries)")
    about = f"what is known of what made them, kept in the file: {', '.join(DECISIVE)}"
    add("--about", nargs="+", default=[], metavar="NAME=VALUE", help=about)
    args = parser.parse_args(argv)
    args.kind = args.kind or ("video" if args.queries is None else "query")
    return args


def _say(args: argparse.Namespace, report: Report, chosen: Chosen, not_in_all: Sequence[str]) -> None:
    """Print what was written, and what was not; of `not_in_all`, keys that some sources have, what is not lacking."""
    least, most = report.rows
    types = "" if report.types == ["float32"] else f", from {' and '.join(report.types)}"
    print(f"{args.out}: {len(report.done):,} written, {least} to {most} rows each, {report.width} wide{types}")
    if not_in_all:
        print(f"note: left out, because they are not in all sources: {first_few(not_in_all)}")
    if chosen.not_asked:
        named = args.videos or first_few(args.queries)
        print(f"left out: {chosen.not_asked:,} of {' and '.join(args.src)} that {named} does not name")
    if chosen.lacking:
        print(f"warning: {len(chosen.lacking):,} {_what(args)} have no features: {first_few(chosen.lacking)}")


def _what(args: argparse.Namespace) -> str:
    return "videos" if args.queries is None else "queries"


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    args = _parse(argv)
    out = Path(args.out)
    refuse_input_as_output("--out", out, [*args.src, args.videos, *(args.queries or ())])
    check_out(args.to, out)
    usable_folder(out.parent)
    known = _properties(args.about)
    rename, asked = _asked(args)
    not_in_all: list[str] = []
    with ExitStack() as stack:
        sources = [stack.enter_context(open_source(Path(path), args.dataset)) for path in args.src]
        joined = JoinedSource(sources, args.normalise_parts) if len(sources) > 1 or args.normalise_parts else None
        source = joined or sources[0]
        chosen = choose(source, rename, asked, _what(args))
        if joined is not None:
            joined.refuse_uneven(chosen.keys.values())
            lacking = set(chosen.lacking)
            not_in_all = [key for key in joined.not_in_all if rename(key) not in lacking]
        report = convert(source, chosen.keys, out, args.to, args.kind, known)
    _say(args, report, chosen, not_in_all)


if __name__ == "__main__":
    main()
