"""The files of a new dataset besides features: queries of each split, and durations; and the agreement of all files."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.basic_utils import InputError, first_few, read_json, write_json, write_jsonl
from utils.feature_files.feature_file import FeatureFile
from utils.own_corpus.layout import ALL, TEST, TRAIN, VAL, Layout
from utils.own_corpus.queries import Query
from utils.own_corpus.splits import Split
from utils.pretrained.names import place_of
from utils.text_feature.text_rows import MASK_SUFFIX

PLACES = ("videos", "subtitles", "text_model", "image_weights", "i3d_weights")  # options that name files
AGAIN = "run the same command again"
UNTYPED = {"split", "type"}  # what a query's row leaves out where not all queries have a type


def recorded_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they go on record: folders and files that are there by their whole paths, to be found again."""
    return {name: _whole_path(value) if name in PLACES and value else value for name, value in options.items()}


def _whole_path(value: str) -> str:
    place = place_of(value)
    return os.path.abspath(place) if os.path.exists(place) else value


def refuse_others_files(layout: Layout) -> None:
    """An `InputError` if annotations would be replaced that no earlier run wrote, or that were changed since."""
    if layout.unfinished.exists():  # a run was stopped while it wrote them
        return
    sizes = earlier_record(layout, "files") or {}
    names = [layout.durations.name, *(layout.release(split).name for split in (TRAIN, VAL, TEST, ALL))]
    others = [name for name in names if _is_other(layout.out / name, sizes.get(name))]
    if others:
        raise InputError(
            f"{layout.out}: {first_few(others)}: changed since an earlier run wrote it, or never written by one, and "
            "would be replaced: move it away, or give another --out"
        )


def earlier_record(layout: Layout, name: str) -> Any:
    """What an earlier run put on record under a name; None without any."""
    record = read_json(layout.manifest, f"remove it, and {AGAIN}") if layout.manifest.is_file() else None
    return record.get(name) if isinstance(record, dict) else None


def _is_other(path: Path, size: int | None) -> bool:
    """Whether a file is there, and is not of the size that it was written with, if it ever was."""
    return path.is_file() and path.stat().st_size != size


def write_annotations(layout: Layout, splits: Mapping[str, Split], durations: Mapping[str, float]) -> list[Path]:
    """Write the queries of each split and the videos' durations; returns the files.

    A video's index is its place among all names, sorted. Queries of splits that an earlier run wrote and this one does
    not have are removed.
    """
    layout.unfinished.touch()
    left_out = {"split"} if has_types([query for split in splits.values() for query in split.queries]) else UNTYPED
    idx_of = {name: idx for idx, name in enumerate(sorted(durations))}
    written = []
    for name, split in splits.items():
        if split.queries:
            write_jsonl((_row(query, durations, left_out) for query in split.queries), layout.release(name))
            written.append(layout.release(name))
    of_splits = {
        name: {vid_name: [durations[vid_name], idx_of[vid_name]] for vid_name in split.videos}
        for name, split in splits.items()
    }
    write_json(of_splits, layout.durations)
    for name in earlier_record(layout, "files") or {}:
        if name.endswith("_release.jsonl") and "/" not in name and layout.out / name not in written:
            (layout.out / name).unlink(missing_ok=True)
    return [*written, layout.durations]


def has_types(queries: Sequence[Query]) -> bool:
    """Whether all queries have a type: the evaluator takes those of all, or none."""
    return all(query.content.get("type") is not None for query in queries)


def _row(query: Query, durations: Mapping[str, float], left_out: Collection[str]) -> dict[str, Any]:
    row = {key: value for key, value in query.content.items() if key not in left_out}
    row["desc_id"] = query.desc_id
    if query.vid_name is not None:
        row["duration"] = durations[query.vid_name]
    return row


def check_agreement(layout: Layout, splits: Mapping[str, Split], durations: Mapping[str, float]) -> dict[str, int]:
    """Number of clips by vid_name; `InputError` when not all files speak of the same videos, clips and queries."""
    names = sorted(durations)
    n_clips = {}
    with FeatureFile(layout.video) as video, FeatureFile(layout.sub) as sub:
        _same_keys(video, names)
        _same_keys(sub, names)
        for name in names:
            n_clips[name] = video.form(name)[0]
            n_sub, n_mask = sub.form(name)[0], sub.shape(name + MASK_SUFFIX)
            if n_sub != n_clips[name] or n_mask != (n_sub,):
                raise InputError(f"{sub.path}: {name} has {n_sub} clips, its video {n_clips[name]}: {AGAIN}")
    ids = [str(query.desc_id) for split in splits.values() for query in split.queries]
    if ids:
        with FeatureFile(layout.query) as query_file:
            _same_keys(query_file, ids)
    return n_clips


def check_sentences(layout: Layout, n_clips: Mapping[str, int], desc_ids: Sequence[str]) -> list[Path]:
    """The files of sentence vectors; `InputError` when they do not speak of the same clips and queries."""
    with FeatureFile(layout.sub_sentences) as sub:
        _same_keys(sub, sorted(n_clips))
        for name, n in n_clips.items():
            if (found := sub.form(name)[0]) != n:
                raise InputError(f"{sub.path}: {name} has {found} clips, its video {n}: {AGAIN}")
    if not desc_ids:
        return [layout.sub_sentences]
    with FeatureFile(layout.query_sentences) as queries:
        _same_keys(queries, list(desc_ids))
    return [layout.query_sentences, layout.sub_sentences]


def _same_keys(file: FeatureFile, names: list[str]) -> None:
    there = file.feature_keys()
    lacking, more = file.missing(names), sorted(set(there) - set(names))
    if lacking or more:
        what = f"lacks {first_few(lacking)}" if lacking else f"also has {first_few(more)}"
        raise InputError(f"{file.path}: {what}: {AGAIN}")
