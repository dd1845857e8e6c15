"""Features for real annotations, at any feature size: videos and queries of TVR's own jsonl files without its 33 GB.

What a clip shows is made from the words of the descriptions that cover it, so a model can learn from these features;
they exist to run the whole pipeline at TVR's real scale, and results on them say nothing about TVR.
"""

from __future__ import annotations

import glob
import random
import reprlib
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from standalone_eval.ground_truth import MAX_MOMENTS, Span, has_moments, is_annotated, spans_of
from utils.basic_utils import InputError, StrPath, first_few, progress, read_json
from utils.dataset_files import (
    durations_path,
    manifest_path,
    read_queries_file,
    release_path,
    usable_folder,
    write_manifest,
)
from utils.mini_corpus.features import ROLES, VideoSpace, n_clips, overlap, subtitle_features
from utils.mini_corpus.files import (
    FeatureSettings,
    count_split,
    feature_paths,
    new_corpus_features,
    refuse_others_files,
    settings_record,
)
from utils.mini_corpus.lexicon import FUNCTION_WORDS, SMALL_TALK
from utils.mini_corpus.word_vectors import LATENT_SIZE, WordVectors, named_seed, tokenise
from utils.mini_corpus.world import QUERY_TYPES, SPLITS, Line

DESCRIPTION_LENGTH = 1.7  # of a description's latent: as long as what a scene of the embedded corpus shows
SAID_SHARE = 0.7  # of a description's words are heard in the moment it describes, in another order
CHATTER_SHARE = 0.6  # of the pieces that no description speaks of somebody says something in; the rest is silent
CHATTER_PIECE = 3.0  # seconds

ANNOTATED_SPLITS = (*SPLITS[:3], "test")  # that annotations can be of, those of TVR first
Row = dict[str, Any]
Durations = dict[str, dict[str, float]]  # {split: {vid_name: seconds}}


def generate_for_annotations(
    annotations: StrPath,
    out: StrPath,
    settings: FeatureSettings,
    prefix: str | None = None,
    splits: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write feature files for real annotations, laid out as TVR's; the annotations stay where they are.

    Args:
        annotations: folder with `P_video2dur_idx.json` and any of `P_{train,val,test_public,test}_release.jsonl`.
        out: folder for `P_feature_release/…`.
        prefix: P, found from the durations file if None.
        splits: which splits, or None for all that have a jsonl file.

    Returns:
        The summary that is also written to `{prefix}_made_by.json`.

    Raises:
        InputError: settings, a file, a row or the folder cannot be used.
    """
    settings.check()
    source = Path(annotations)
    prefix = prefix or _find_prefix(source)
    durations = _read_durations(durations_path(source, prefix))
    names = _choose_splits(source, prefix, splits, durations)
    releases = {split: release_path(source, prefix, split) for split in names}
    rows = {split: _read_rows(path, durations[split]) for split, path in releases.items()}
    _check_ids({path: rows[split] for split, path in releases.items()})

    folder = usable_folder(out)
    refuse_others_files(folder, prefix, feature_paths(folder, prefix, settings))
    manifest_path(folder, prefix).unlink(missing_ok=True)
    words = WordVectors(settings.seed, settings.text_feat_size)
    space = VideoSpace(settings.seed, settings.vid_feat_size)
    with new_corpus_features(folder, prefix, settings) as features:
        for split in names:
            described: dict[str, list[Row]] = defaultdict(list)
            for row in filter(is_annotated, rows[split]):
                described[row["vid_name"]].append(row)
            for vid_name, duration in progress(durations[split].items(), f"{split} videos", len(durations[split])):
                video_feat, subtitles = _features_of(vid_name, duration, described[vid_name], words, space)
                features.put_video(vid_name, video_feat)
                features.put_subtitles(vid_name, *subtitles)
            for row in progress(rows[split], f"{split} queries"):
                features.put_query(row["desc_id"], words.encode(row["desc"]))
    return write_manifest(
        folder,
        prefix,
        feature_paths(folder, prefix, settings),
        **settings_record(settings),
        annotations=[str(path) for path in (durations_path(source, prefix), *releases.values())],
        counts={split: count_split(list(durations[split].values()), rows[split]) for split in names},
    )


def _features_of(
    vid_name: str, duration: float, rows: Sequence[Row], words: WordVectors, space: VideoSpace
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    clips = n_clips(duration)
    shown = np.zeros((clips, len(ROLES), LATENT_SIZE), np.float32)
    seen = [(row, span) for row in rows if _is_about("v", row) for span in spans_of(row["ts"]) or ()]
    if seen:
        latents = np.stack([_description_latent(row["desc"], words) for row, _ in seen])
        shown[:, ROLES.index("words")] = overlap(np.array([span for _, span in seen]), duration) @ latents
    rng = random.Random(named_seed(words.seed, vid_name, "dialogue"))
    heard = [(row["desc"], span) for row in rows if _is_about("t", row) for span in spans_of(row["ts"]) or ()]
    lines = _dialogue(rng, duration, heard)
    return space.clip_features(vid_name, shown), subtitle_features(vid_name, lines, clips, words)


def _is_about(modality: str, row: Row) -> bool:
    """Whether a query's type says that it is about video (v) or text (t); one without a type is about video."""
    return modality in (row.get("type") or "v")


def _content_words(desc: str) -> list[str]:
    tokens = tokenise(desc)
    return [token for token in tokens if token not in FUNCTION_WORDS] or tokens


def _description_latent(desc: str, words: WordVectors) -> np.ndarray:
    meaning = np.sum([words.concept(token) for token in _content_words(desc)], axis=0)
    return DESCRIPTION_LENGTH * meaning / (np.linalg.norm(meaning) + 1e-5)


def _dialogue(rng: random.Random, duration: float, described: Sequence[tuple[str, Span]]) -> list[Line]:
    """Some words of each description while its moment lasts, small talk or silence elsewhere, in time order."""
    lines = []
    for desc, span in described:
        content = _content_words(desc)
        heard = rng.sample(content, max(1, round(SAID_SHARE * len(content))))
        lines.append(Line(" ".join(heard), *span))
    for piece in range(int(duration // CHATTER_PIECE)):
        start, end = piece * CHATTER_PIECE, (piece + 1) * CHATTER_PIECE
        free = all(span[1] <= start or span[0] >= end for _, span in described)
        if free and rng.random() < CHATTER_SHARE:
            lines.append(Line(rng.choice(SMALL_TALK).format(name="you"), start, end))
    return sorted(lines, key=lambda line: (line.start, line.end))


def _find_prefix(source: Path) -> str:
    if not source.is_dir():
        raise InputError(f"--annotations {source}: no such folder: give the one that holds P_video2dur_idx.json")
    found = sorted(path.name for path in source.glob(durations_path(Path(), "*").name))
    if len(found) != 1:
        raise InputError(
            f"--annotations {source}: expected one file P_video2dur_idx.json, found {first_few(found) or 'none'}: "
            "give the folder with TVR's annotations, and --prefix P if it holds several corpora"
        )
    return found[0].removesuffix(durations_path(Path(), "").name)


def _read_durations(path: Path) -> Durations:
    table = read_json(path, "give the folder with the annotations and durations")
    durations: Durations = {}
    try:
        for split, videos in table.items():
            durations[split] = {vid_name: float(entry[0]) for vid_name, entry in videos.items()}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as err:
        raise InputError(f"{path}: is not of the form {{split: {{vid_name: [seconds, index]}}}} ({err!r})") from err
    for split, videos in durations.items():
        for vid_name, duration in videos.items():
            if not 0 < duration < float("inf"):
                raise InputError(f"{path}, {split}, {vid_name}: duration is {duration}, expected seconds above 0")
    return durations


def _choose_splits(source: Path, prefix: str, splits: Sequence[str] | None, durations: Durations) -> list[str]:
    there = [split for split in ANNOTATED_SPLITS if release_path(source, prefix, split).is_file()]
    chosen = list(splits) if splits else there
    known = {release_path(source, prefix, split) for split in (*SPLITS, *ANNOTATED_SPLITS)}
    unread = [] if splits else sorted(set(source.glob(release_path(Path(), glob.escape(prefix), "*").name)) - known)
    if unread:
        names = first_few([path.name for path in unread])
        print(
            f"note: {source}: not read, as they are of none of {', '.join(ANNOTATED_SPLITS)}: {names}", file=sys.stderr
        )
    if not chosen:
        raise InputError(f"{release_path(source, prefix, 'val')}: not found, nor that of any other split")
    for split in chosen:
        if split not in there:
            raise InputError(f"{release_path(source, prefix, split)}: not found: leave {split} out of --splits")
        if split not in durations:
            raise InputError(f"{durations_path(source, prefix)}: has no split {split}: is it of another corpus?")
    return chosen


def _read_rows(path: Path, durations: dict[str, float]) -> list[Row]:
    """The queries of a split, checked; a `ts` that ends past its video is clamped."""
    rows = read_queries_file(path, "give the folder with the annotations")
    answered = has_moments(rows)
    for number, row in enumerate(rows, start=1):
        where = f"{path}, query {number}"
        if type(row.get("desc_id")) is not int or not isinstance(row.get("desc"), str):
            raise InputError(f"{where}: needs desc_id (int) and desc (str): mend or remove it")
        if answered:
            _check_moments(where, row, durations)
    return rows


def _check_moments(where: str, row: Row, durations: dict[str, float]) -> None:
    """Check where a query's answer is said to be."""
    vid_name, spans = row.get("vid_name"), spans_of(row.get("ts"))
    if not isinstance(vid_name, str) or vid_name not in durations:
        raise InputError(f"{where}: video {vid_name} is not in video2dur_idx of this split: is it of another release?")
    if row.get("type") not in (None, *QUERY_TYPES):
        found = reprlib.repr(row["type"])
        raise InputError(f"{where}: type is {found}, expected none, or one of {', '.join(QUERY_TYPES)}")
    duration = durations[vid_name]
    if spans is None or not all(0 <= start <= end and start < duration for start, end in spans):
        raise InputError(
            f"{where}: ts is {reprlib.repr(row.get('ts'))}, expected [start, end] in seconds within the video "
            f"({duration} s), or 1 to {MAX_MOMENTS} of them: mend it"
        )
    clamped = [[start, min(end, duration)] for start, end in spans]
    row["ts"] = clamped if isinstance(row["ts"][0], list) else clamped[0]


def _check_ids(rows: dict[Path, list[Row]]) -> None:
    first: dict[int, Path] = {}
    for path, split_rows in rows.items():
        for row in split_rows:
            if row["desc_id"] in first:
                raise InputError(f"{path}: desc_id {row['desc_id']} was already used in {first[row['desc_id']]}")
            first[row["desc_id"]] = path
