"""Public annotation files to the forms that training, inference and evaluation read (data/README.md).

    python utils/annotations/convert.py anet_cap --in DIR --out data/anet_cap

`utils/annotations/README.md` says what DIR holds: a dataset's own files, or others' of one query a line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.annotations import anet_cap, charades_sta, didemo, query_lines
from utils.annotations.public_files import SPLITS, has_lines
from utils.annotations.reading import Query, Reader, Source, Split, with_val
from utils.basic_utils import InputError, command_line, first_few, json_bytes, put_jsonl, whole_file
from utils.dataset_files import durations_path, manifest_path, named_folder, read_durations, release_path
from utils.feature_files.feature_file import FeatureFile
from utils.tables import aligned

SCRIPT = "utils/annotations/convert.py"
OWN_FORMS = {"anet_cap": anet_cap, "charades_sta": charades_sta, "didemo": didemo}
DATASETS = (*OWN_FORMS, "qvhighlights", "tacos", "tvr", "custom")
WITHOUT_VAL = ("charades_sta", "custom")  # which may have none: of others it is known
# what a dataset's files are called where others lie beside them that are for something else
NAMES = {"qvhighlights": {f"highlight_{split}_release.jsonl": split for split in SPLITS}}
VAL_SHARE = 0.1
SHOWN = 10


def read(
    dataset: str,
    folder: Path,
    val_share: float = VAL_SHARE,
    durations: Mapping[str, float] | None = None,
    language: str = "en",
) -> tuple[Reader, dict[str, Split]]:
    """Read and check the annotation files of one of `DATASETS` in a folder: its own, or else those of a query a line.

    Where there is no val, about `val_share` of the training videos of those `WITHOUT_VAL` become it. `durations` and
    `language` are those of `query_lines.read`. `InputError` when no file is there, or one is of no known form.
    """
    if not folder.is_dir():
        raise InputError(f"--in {folder}: is not a folder: give the one with the annotation files")
    reader = Reader()
    own = OWN_FORMS.get(dataset)
    if own is not None and (any((folder / name).exists() for name in own.FILES) or not has_lines(folder)):
        splits = own.read(folder, reader)
    else:
        splits = query_lines.read(folder, reader, NAMES.get(dataset, {}), durations or {}, language)
    reader.check()
    empty = [str(source.path) for source in reader.sources if not source.queries]
    if empty:
        why = first_few(_left_out(reader.sources), 3) or "it has no queries"
        raise InputError(f"{', '.join(empty)}: there is nothing to write for it: {why}")
    return reader, with_val(splits, val_share) if dataset in WITHOUT_VAL else splits


def keep_with_features(splits: Mapping[str, Split], path: Path) -> tuple[dict[str, Split], list[str]]:
    """Splits without the videos that a feature file lacks, and without their queries; and the names of these videos.

    `InputError` when the file cannot be read, or has no video of a split.
    """
    with FeatureFile(path) as features:
        lacking = features.missing(_videos(splits))
    gone = set(lacking)
    kept = {name: split.about(lambda video: video not in gone) for name, split in splits.items()}
    for name, split in splits.items():
        if not kept[name].queries:
            raise InputError(f"--features {path}: has none of the videos of {name}, such as {first_few(split.videos)}")
    return kept, lacking


def write(
    dataset: str, out: Path, reader: Reader, splits: Mapping[str, Split], without_features: Sequence[str] = ()
) -> list[Path]:
    """Write queries, durations and a record, all or none of them; returns the files.

    The name of the folder `out`, which is there, begins theirs. Those of an earlier conversion are replaced.
    `InputError` when files of another making are there, or there is no room.
    """
    idx_of = {name: idx for idx, name in enumerate(dict.fromkeys(_videos(splits)))}
    durations = {
        split: {name: [reader.durations[name], idx_of[name]] for name in content.videos}
        for split, content in splits.items()
    }
    releases = {split: release_path(out, out.name, split) for split in splits}
    paths = [*releases.values(), durations_path(out, out.name), manifest_path(out, out.name)]
    others = [path.name for path in paths if path.exists()]
    if others and not manifest_path(out, out.name).exists():
        raise InputError(f"{out}: {first_few(others)}: is of no conversion, and would be replaced: give another --out")
    with ExitStack() as stack:
        # the last to be entered is the first to get its name: the record comes when all else is there
        parts = {path: stack.enter_context(whole_file(path)) for path in reversed(paths)}
        for split, path in releases.items():
            rows = (_row(query, reader.durations, dataset == "didemo") for query in splits[split].queries)
            put_jsonl(rows, parts[path])
        parts[durations_path(out, out.name)].write_bytes(json_bytes(durations))
        record = json_bytes(_record(dataset, reader, splits, without_features), indent=True)
        parts[manifest_path(out, out.name)].write_bytes(record)
    return paths


def _videos(splits: Mapping[str, Split]) -> Iterator[str]:
    return (name for split in splits.values() for name in split.videos)


def _row(query: Query, durations: Mapping[str, float], several: bool) -> dict[str, Any]:
    """A line of a release file; `several`: queries of this dataset have a moment from each of several people."""
    about = {"desc_id": query.desc_id, "desc": query.desc, "vid_name": query.vid_name}
    moments = [list(moment) for moment in query.moments]
    answer = {"ts": moments if several or len(moments) > 1 else moments[0]} if moments else {}
    return {**about, "duration": durations[query.vid_name], **answer, **query.also}


def _record(dataset: str, reader: Reader, splits: Mapping[str, Split], lacking: Sequence[str]) -> dict[str, Any]:
    """What was made of what: counts, and all that was left out."""
    read_files = {
        source.path.name: {
            "queries": source.n_read,
            "kept": len(source.queries),
            "moments_clamped": source.n_clamped,
            "clamped_by_at_most": round(source.furthest, 3),
            "left_out": [{"where": where, "why": why} for where, why in source.left_out],
        }
        for source in reader.sources
    }
    written = {name: {"videos": len(split.videos), "queries": len(split.queries)} for name, split in splits.items()}
    about = {"made_by": SCRIPT, "dataset": dataset}
    return {**about, "read": read_files, "written": written, "without_features": list(lacking)}


def _left_out(sources: Sequence[Source]) -> list[str]:
    return [f"{where}: {why}" for source in sources for where, why in source.left_out]


def _say(out: Path, reader: Reader, splits: Mapping[str, Split]) -> None:
    rows = [["read", "queries", "kept", "moments clamped", "by at most"]]
    for source in reader.sources:
        counts = [source.n_read, len(source.queries), source.n_clamped]
        rows.append([source.path.name, *(f"{count:,}" for count in counts), f"{source.furthest:.2f} s"])
    print(aligned(rows))
    left_out = _left_out(reader.sources)
    for line in left_out[:SHOWN]:
        print(f"left out: {line}")
    if len(left_out) > SHOWN:
        print(f"left out: … {len(left_out) - SHOWN} more, see {manifest_path(out, out.name)}")
    if reader.differing:
        print(f"note: files differ in the duration of {first_few(list(reader.differing))}; the first one holds")
    for path, form in reader.unread:
        print(f"note: {path}: is not read: {form}")
    rows = [["written", "videos", "queries"]]
    for name, split in splits.items():
        rows.append([release_path(out, out.name, name).name, f"{len(split.videos):,}", f"{len(split.queries):,}"])
    print(f"\n{aligned(rows)}\n{durations_path(out, out.name).name} and the record {manifest_path(out, out.name).name}")
    for name in SPLITS:
        if name not in splits:
            path = release_path(out, out.name, name)
            stale = f"; {path} is of an earlier run: remove it" if path.exists() else ""
            print(f"note: there is no split {name}{stale}")
    videos = {name: set(splits[name].videos) if name in splits else set() for name in SPLITS}
    for name in ("val", "test"):
        if both := sorted(videos["train"] & videos[name]):
            print(f"warning: videos of train are in {name} too: {first_few(both)}")


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dataset", choices=DATASETS)
    add("--in", dest="folder", required=True, metavar="DIR", help="folder of the public files")
    add(
        "--out",
        required=True,
        help="folder to write into, such as data/anet_cap; an earlier conversion in it is replaced",
    )
    val = "of charades_sta and custom, without val: share of training videos that become it (default: %(default)s)"
    add("--val_share", type=float, default=VAL_SHARE, help=val)
    add("--durations", metavar="FILE.json", help="where files do not say how long videos are: a video2dur_idx file")
    add("--language", default="en", help="of mTVR's sentences (default: %(default)s)")
    add("--features", metavar="FILE.h5", help="leave out videos that this feature file lacks, and their queries")
    args = parser.parse_args(argv)
    if not 0 <= args.val_share < 1:
        raise InputError(f"--val_share {args.val_share}: must be at least 0 and below 1")
    durations = None if args.durations is None else read_durations(args.durations)
    reader, splits = read(args.dataset, Path(args.folder), args.val_share, durations, args.language)
    lacking: list[str] = []
    if args.features is not None:
        splits, lacking = keep_with_features(splits, Path(args.features))
    out = named_folder(args.out)
    write(args.dataset, out, reader, splits, lacking)
    _say(out, reader, splits)
    if lacking:
        print(f"left out: {len(lacking)} videos without features in {args.features}: {first_few(lacking)}")


if __name__ == "__main__":
    main()
