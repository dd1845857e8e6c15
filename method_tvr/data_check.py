"""Is a corpus whole? `bash data/check.sh [tvr|mini|DIR]` lists what is there, what is missing and what to do about it.

Defects are what training or inference would stumble over; notes are all else worth knowing. One defective file never
hides what is wrong with another. Every value is read, in search of NaN and Inf, unless `--quick` is given.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

import numpy as np

from method_tvr.config import OPTIONS
from method_tvr.dataset.annotations import (
    Query,
    Video,
    about_exclusive_moments,
    load_videos,
    outside_split,
)
from method_tvr.dataset.check_features import FeatureCheck, Source
from method_tvr.dataset.clip_times import AUTO
from method_tvr.dataset.defects import Defects
from method_tvr.dataset.ranked_pairs import load_asked_queries, load_training_queries
from method_tvr.dataset.split_facts import Reach, Split, facts
from method_tvr.dset_configs import DATASETS, VID_FEAT_TYPES, DatasetConfig
from method_tvr.options.row import TRAIN, NumberOr, options_of
from method_tvr.options.values import CTX_MODES
from standalone_eval.metrics import LEAST_RIGHT, Rule
from standalone_eval.ranking.ndcg import RankedTruth
from utils.annotations.public_files import has_lines
from utils.basic_utils import BAD_INPUT_EXIT_CODE, PROJECT_ROOT, InputError, command_line, first_few, read_json
from utils.dataset_files import manifest_path
from utils.recognise import recognise
from utils.tables import aligned, file_size, size_text

CORPUS_FILES = ("_video2dur_idx.json", "_train_release.jsonl", "_val_release.jsonl", "_feature_release")  # after P
LEARNT_SPLITS = ("train", "val")  # training reads both, with their moments


def find_corpus(name: str) -> DatasetConfig:
    """The dataset that `name` means: one of this project's, or a folder with one corpus of any prefix."""
    with_files = {known: dataset.root for known, dataset in DATASETS.items() if dataset.root is not None}
    if name in with_files:
        return replace(DATASETS[name], root=str(PROJECT_ROOT / with_files[name]))
    folder = Path(name)
    if not folder.is_dir():
        raise InputError(f"{name}: is no folder and none of {', '.join(with_files)}: give one of these")
    for ending in CORPUS_FILES:
        prefixes = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
        if len(prefixes) > 1:
            raise InputError(
                f"{name}: holds several corpora ({', '.join(prefixes)}): give each a folder of its own "
                "(links to the files will do)"
            )
        if prefixes:
            return _as_found(replace(_known(folder, prefixes[0]), root=str(folder)))
    alone = _by_durations(folder)
    if alone is not None:
        return alone
    raise InputError(f"{name}: holds no corpus: PREFIX_video2dur_idx.json names its videos, see data/README.md")


def _by_durations(folder: Path) -> DatasetConfig | None:
    """A dataset whose file of durations is in a folder, called as its own is; best one called as the folder is."""
    known = sorted(DATASETS.values(), key=lambda dataset: dataset.name != folder.resolve().name)
    there = (replace(dataset, root=str(folder)) for dataset in known if dataset.root is not None)
    return next((dataset for dataset in there if Path(dataset.video_duration_idx_path).is_file()), None)


def _known(folder: Path, prefix: str) -> DatasetConfig:
    """The properties of a corpus: those of the dataset that it was converted from, or that is called so; else TVR's."""
    record = manifest_path(folder, prefix)
    said = read_json(record) if record.is_file() else None
    name = str(said["dataset"]) if isinstance(said, dict) and "dataset" in said else prefix
    known = DATASETS.get(name)
    if known is None or known.root is None:
        return DatasetConfig(prefix, None, prefix, several=DATASETS["custom"].several)
    return replace(known, name=prefix, prefix=prefix)


def _as_found(corpus: DatasetConfig) -> DatasetConfig:
    """A corpus in a folder, with the names that its files have there."""
    alone = replace(corpus, query_only_features=True)
    of_queries = [Path(alone.query_feature_path(with_sub)) for with_sub in (False, True)]
    query_only = of_queries[0].exists() or (corpus.query_only_features and not of_queries[1].exists())
    test_split = "test" if Path(corpus.annotation_path("test")).exists() else corpus.test_split
    return replace(corpus, query_only_features=query_only, test_split=test_split)


@dataclass
class Annotations:
    """What the annotations name, as far as they could be read."""

    videos: dict[str, dict[str, Video]] | None  # by split and name; None when durations could not be read
    queries: dict[str, list[Query]]  # by split; one whose file is missing or defective is left out
    graded: dict[str, RankedTruth | None]  # by split: graded moments of its queries, where they have such
    splits: list[str]  # what is checked, in order
    needed: set[str]  # those of `splits` that training or inference can be run on: the others only have videos

    def vid_names(self, split: str) -> list[str]:
        if self.videos is not None:
            return list(self.videos.get(split, {}))
        return list(dict.fromkeys(query.vid_name for query in self.queries.get(split, []) if query.vid_name))


def read_annotations(dataset: DatasetConfig, only: list[str] | None, defects: Defects) -> Annotations:
    """Read and check durations and the annotation files of all splits, or of some `only`; print what they hold."""
    rows = [["file", "size", "holds"]]
    remedy = dataset.annotation_remedy
    path = dataset.video_duration_idx_path
    videos, holds = None, _unread(path)
    if defects.is_there(path, remedy):
        with defects.collecting(remedy):
            videos = load_videos(path)
            holds = "videos: " + ", ".join(f"{split} {len(entries)}" for split, entries in videos.items())
    rows.append([Path(path).name, file_size(path), holds])

    found = Annotations(videos, {}, {}, *_choose_splits(dataset, only, videos))
    for split in found.splits:
        path = dataset.annotation_path(split)
        if split not in found.needed:
            rows.append([Path(path).name, "-", "not there: this split only has videos"])
            continue
        if defects.is_there(path, remedy):
            with defects.collecting(remedy):
                if split == LEARNT_SPLITS[0]:
                    found.queries[split] = load_training_queries(Path(path), videos)
                else:
                    found.queries[split], found.graded[split] = load_asked_queries(Path(path), videos)
                _check_queries(found, split, path, remedy, defects)
                _check_moments(found.queries[split], path, dataset.several, defects)
        queries = found.queries.get(split)
        rows.append([Path(path).name, file_size(path), _unread(path) if queries is None else _holds(found, split)])
    print("\nAnnotations\n" + aligned(rows))
    return found


def _choose_splits(
    dataset: DatasetConfig, only: list[str] | None, videos: dict[str, dict[str, Video]] | None
) -> tuple[list[str], set[str]]:
    """The splits to check, and those of them that must have queries: not such as TVR's test_challenge."""
    candidates = only or list(dict.fromkeys([*LEARNT_SPLITS, dataset.test_split, *(videos or {})]))
    with_videos = {split for split, entries in (videos or {}).items() if entries}
    needed = {
        split
        for split in candidates
        if split in LEARNT_SPLITS
        or Path(dataset.annotation_path(split)).exists()
        or (split == dataset.test_split and (split in with_videos or videos is None))
        or (only and split not in with_videos)  # asked for by name, and there is nothing of it
    }
    return [split for split in candidates if split in needed | with_videos], needed


def _unread(path: str) -> str:
    return "DEFECTIVE" if Path(path).exists() else "MISSING"


def _check_queries(found: Annotations, split: str, path: str, remedy: str, defects: Defects) -> None:
    queries = found.queries[split]
    if split in LEARNT_SPLITS and not queries[0].has_moment and found.graded.get(split) is None:
        defects.add(f"{path}: has no ground truth (vid_name and ts)", remedy)
    if found.videos is None:
        return
    if not found.videos.get(split):
        defects.add(f"{path}: the video2dur_idx file has no videos of split {split} to search in", remedy)
    elif outside := outside_split(queries, found.videos[split]):
        ids = first_few([query.desc_id for query in outside])
        defects.add(f"{path}: the video is not in split {split} of video2dur_idx for desc_id {ids}", remedy)


def _check_moments(queries: list[Query], path: str, several: str, defects: Defects) -> None:
    rule = Rule(least_right=LEAST_RIGHT[several])
    warning = about_exclusive_moments(queries, rule) if queries[0].has_moment else None
    if warning:
        defects.add(f"{path}: {warning}", "give train.sh --several any, if they are", blocking=False)


def _holds(found: Annotations, split: str) -> str:
    queries, graded = found.queries[split], found.graded.get(split)
    text = f"{len(queries)} queries"
    if graded is not None:
        return f"{text}, {np.isfinite(graded.video).sum()} graded moments"
    if not queries[0].has_moment:
        return f"{text}, without moments"
    if queries[0].item_weight is not None:
        text = f"{len(queries)} pairs of {len({query.desc_id for query in queries})} queries,"
    types = Counter(query.type for query in queries if query.type)
    named = ", ".join(f"{name} {n}" for name, n in types.most_common())
    return f"{text} of {len({query.vid_name for query in queries})} videos" + (f": {named}" if named else "")


def feature_sources(
    dataset: DatasetConfig, found: Annotations, vid_feat_types: list[str], ctx_mode: str
) -> list[Source]:
    """The feature files of a corpus; those that a run of other video types or another `ctx_mode` reads are optional."""
    clips = {split: found.vid_names(split) for split in found.splits}
    tokens = {split: [str(query.desc_id) for query in found.queries.get(split, [])] for split in found.splits}
    parts = ctx_mode.split("_")
    video, with_sub = "video" in parts, "sub" in parts
    needed_by = {name: f"--vid_feat_type {name}" if video else "--ctx_mode with video" for name in dataset.video_files}
    sources = [
        Source(name, dataset.video_feature_path(name), clips, video and name in vid_feat_types, needed_by[name])
        for name in sorted(dataset.video_files, key=lambda name: name not in vid_feat_types)
    ]
    if dataset.subtitles or with_sub:
        sources.append(Source("sub", dataset.sub_feature_path, clips, with_sub, "--ctx_mode with sub"))
    return [*sources, Source("query", dataset.query_feature_path(with_sub), tokens, needed=True)]


def print_facts(dataset: DatasetConfig, found: Annotations, sources: list[Source]) -> None:
    """Name moments and videos that training and inference with the dataset's options cannot get right."""
    context = next((source for source in sources if source.needed and source.kind != "query" and source.rows), None)
    if context is None or found.videos is None:
        return
    max_ctx_l = dataset.recipe.get("max_ctx_l", options_of(OPTIONS, TRAIN)["max_ctx_l"].default)
    reach = Reach.of(vars(dataset) | {"max_ctx_l": max_ctx_l})
    splits = []
    for name in found.splits:
        videos = [video for video in found.videos.get(name, {}).values() if video.vid_name in context.rows]
        counts = [context.rows[video.vid_name] for video in videos]
        split = Split.of(name, videos, counts, found.queries.get(name, ()))
        splits.append(replace(split, judged=name != LEARNT_SPLITS[0]))
    for fact in facts(splits, reach):
        print(f"\nnote: {fact}")


def print_sources(dataset: DatasetConfig, found: Annotations, sources: list[Source]) -> None:
    """Print a table of the feature files and one of the splits they cover."""
    table = [["features", "file", "size", "keys", "shape", "dtype", "values", "made by"]]
    for source in sources:
        if source.missing is None:
            state = _unread(source.path) if source.needed else f"not there: only for {source.needed_by}"
            table.append([source.kind, source.name, file_size(source.path), state])
            continue
        keys = f"{source.n_keys}" + (f" + {source.n_masks} masks" if source.n_masks else "")
        spread = f"{min(source.rows.values())}..{max(source.rows.values())}" if source.rows else "?"
        dtypes = ", ".join(sorted(source.dtypes)) or "?"
        shape = f"({spread}, {source.width or '?'})"
        size = file_size(source.path)
        table.append([source.kind, source.name, size, keys, shape, dtypes, source.values, source.made_by])
    print("\nFeature files\n" + aligned(table))

    shown = [source for source in sources if source.needed or source.missing is not None]
    table = [["split", "videos", "queries", *(source.kind for source in shown)]]
    for split in found.splits:
        queries = str(len(found.queries[split])) if split in found.queries else "-"
        row = [split, str(len(found.vid_names(split))), queries]
        for source in shown:
            n_keys = len(source.keys[split])
            lacking = n_keys if source.missing is None else source.missing[split]
            row.append(f"{n_keys - lacking} of {n_keys}" if n_keys else "-")
        table.append(row)
    print("\nSplits: how many of their videos and queries have features\n" + aligned(table))
    total = sum(Path(source.path).stat().st_size for source in sources if source.missing is not None)
    print(f"\n{size_text(total)} of features in {dataset.features}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = "tvr (default), another dataset's name, a folder with a corpus, or any file or folder: what it is"
    parser.add_argument("corpus", nargs="?", default="tvr", help=known)
    parser.add_argument("--quick", action="store_true", help="do not read values: no search for NaN and Inf")
    parser.add_argument("--splits", nargs="+", help="look at these splits only (default: all)")
    parser.add_argument(
        "--vid_feat_type",
        nargs="+",
        choices=VID_FEAT_TYPES,
        help="video features that must be there (default: the dataset's first, resnet_i3d for TVR)",
    )
    parser.add_argument(
        "--ctx_mode",
        choices=CTX_MODES,
        help=f"context that must be there (default: {CTX_MODES[0]}, or video_tef where there are no subtitles)",
    )
    parser.add_argument(
        "--clip_length",
        type=NumberOr(AUTO),
        metavar="SECONDS",
        help=f"seconds of a clip, or {AUTO}: each video's own (default: the dataset's)",
    )
    return parser.parse_args()


def _wanted(args: argparse.Namespace, dataset: DatasetConfig) -> tuple[list[str], str]:
    """The video features and the context that must be there."""
    vid_feat_types = args.vid_feat_type or [next(iter(dataset.video_files))]
    unknown = [name for name in vid_feat_types if name not in dataset.video_files]
    if unknown:
        known = ", ".join(dataset.video_files)
        raise InputError(f"--vid_feat_type {unknown[0]}: {dataset.name} has {known}: give one of these")
    return vid_feat_types, args.ctx_mode or dataset.recipe.get("ctx_mode", CTX_MODES[0])


def _is_corpus(name: str) -> bool:
    """Whether it is a dataset's name, or a folder with files called as those of a corpus, if not in others' form."""
    folder = Path(name)
    if name in DATASETS or not folder.is_dir():
        return name in DATASETS
    found = [ending for ending in CORPUS_FILES if any(folder.glob(f"*{ending}"))]
    return CORPUS_FILES[0] in found or _by_durations(folder) is not None or (bool(found) and not has_lines(folder))


@command_line
def main() -> None:
    """Command line of the data check; exit code 2 when there are defects."""
    args = _parse()
    if not _is_corpus(args.corpus) and Path(args.corpus).exists() and (brought := recognise(Path(args.corpus))):
        print(f"{args.corpus} {brought}")
        return
    dataset = find_corpus(args.corpus)
    if args.clip_length is not None:
        if args.clip_length != AUTO and not 0 < args.clip_length < math.inf:
            raise InputError(f"--clip_length {args.clip_length}: must be a positive number of seconds")
        dataset = replace(dataset, clip_length=args.clip_length)
    only = list(dict.fromkeys(map(dataset.split_name, args.splits))) if args.splits else None
    vid_feat_types, ctx_mode = _wanted(args, dataset)
    defects = Defects(str(dataset.root))
    length = "of a length of each video's own" if dataset.clip_length == AUTO else f"of {dataset.clip_length} s"
    print(f"Corpus {dataset.name} in {dataset.root}, clips {length}")
    found = read_annotations(dataset, only, defects)
    sources = feature_sources(dataset, found, vid_feat_types, ctx_mode)
    needed_videos = {name for split in found.needed for name in found.vid_names(split)}
    check = FeatureCheck(dataset.feature_remedy, dataset.clip_length, found.needed, needed_videos, args.quick, defects)
    for source in sources:
        check.look_at(source)
    print_sources(dataset, found, sources)
    durations = {name: video.duration for entries in (found.videos or {}).values() for name, video in entries.items()}
    check.compare_clip_counts(durations, sources)
    print_facts(dataset, found, sources)
    whom = f"work on {', '.join(found.splits)}" if only else "training and inference"
    what = list(vid_feat_types) if "video" in ctx_mode else []
    what += [f"--ctx_mode {ctx_mode}"] if ctx_mode != CTX_MODES[0] else []
    defects.print_all(f"{whom} with {' and '.join(what)}")
    if defects.blocking:
        sys.exit(BAD_INPUT_EXIT_CODE)


if __name__ == "__main__":
    main()
