"""Encoded videos against the feature files that they would be encoded from now: which of them are outdated.

Files that nobody has touched since are known by their stamps. Of others, what each video has is compared by digests,
once: what was found the same is kept beside the encodings. Files that are not there say nothing, and nor do those that
lack a video: encodings are used without them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from method_tvr.dataset.annotations import Video
from method_tvr.dataset.feature_store import rows_digest
from method_tvr.search.corpus_store import CorpusRecipe, CorpusStore, Part, write_seen
from utils.basic_utils import InputError, first_few, progress
from utils.feature_files.feature_file import FeatureFile, file_identity


@dataclass
class Outdated:
    """What was found of the videos asked for, as far as an encoded corpus has them; numbers are those of parts."""

    changed: dict[str, int] = field(default_factory=dict)  # whose features are not those that were encoded
    unknown: dict[str, int] = field(default_factory=dict)  # by an earlier version, before the files were last changed
    files: set[Path] = field(default_factory=set)  # the feature files that say so


def find_outdated(store: CorpusStore, videos: Sequence[Video], paths: Mapping[str, Path]) -> Outdated:
    """Compare encoded videos with feature files {modality: path}; an `InputError` if one cannot be read."""
    found, asked = Outdated(), _names_by_part(store, videos)
    if not all(path.is_file() for path in paths.values()):
        return found
    stamps = {m: file_identity(path) for m, path in paths.items()}
    last_change = max(stamp["ctime_ns"] for stamp in stamps.values())
    with ExitStack() as opened:
        files: dict[str, FeatureFile] = {}
        for number, names in asked.items():
            part = store.parts[number]
            if part.seen_in(stamps) if part.features else last_change <= part.written_ns():
                continue
            files = files or {m: opened.enter_context(FeatureFile(path)) for m, path in paths.items()}
            differing = _differing(part, store.recipe, files)
            found.changed |= {name: number for name in names if name in differing}
            found.files |= {path for name in names for path in differing.get(name, ())}
            if not part.features:
                found.unknown |= {name: number for name in names if name not in differing}
            elif not differing:
                with suppress(OSError, InputError):  # nobody may write there: they are compared again the next time
                    write_seen(part.folder, {m: file.stamp for m, file in files.items()})
    return found


def _names_by_part(store: CorpusStore, videos: Sequence[Video]) -> dict[int, list[str]]:
    asked: dict[int, list[str]] = {}
    for video in videos:
        if video.vid_name in store.where:
            asked.setdefault(store.where[video.vid_name][0], []).append(video.vid_name)
    return asked


def _differing(part: Part, recipe: CorpusRecipe, files: Mapping[str, FeatureFile]) -> dict[str, list[Path]]:
    """{video of a part: the files in which it differs}, by its digest, or its number of clips where there is none."""
    differing: dict[str, list[Path]] = {}
    for m, file in files.items():
        absent = set(file.missing(part.names))
        for place, name in enumerate(progress(part.names, f"comparing encoded videos with {file.path.name}")):
            if name in absent:
                continue
            if part.features is None:
                n_clips = file.form(name)[0]
                same = part.n_clips[place] == (n_clips if recipe.windows else min(n_clips, recipe.max_ctx_l))
            else:
                same = rows_digest(file.read(name)) == part.features[m][place]
            if not same:
                differing.setdefault(name, []).append(file.path)
    return differing


def refuse_outdated(store: CorpusStore, videos: Sequence[Video], paths: Mapping[str, Path]) -> None:
    """Refuse an encoded corpus whose videos have other features now; say which cannot be compared."""
    found = find_outdated(store, videos, paths)
    if found.changed:
        raise InputError(
            f"{store.folder}: {len(found.changed)} of {len(videos)} videos were encoded from other features than "
            f"{_listed(found.files)} has now: {first_few(list(found.changed))}: give the features that they were "
            f"encoded from, or remove the folders {_folders(store, found.changed)} and run encode.sh again, which "
            "encodes their videos anew"
        )
    if found.unknown:
        print(
            f"note: {store.folder}: {len(found.unknown)} of {len(videos)} videos cannot be compared with their "
            f"features, which have been written to since: an earlier version encoded them, and kept no digests. If "
            f"they have changed, remove the folders {_folders(store, found.unknown)} and run encode.sh again",
            file=sys.stderr,
        )


def parts_to_renew(store: CorpusStore, videos: Sequence[Video], paths: Mapping[str, Path]) -> list[Path]:
    """The folders of the parts with outdated videos, and with ones that cannot be compared; said on stderr."""
    found = find_outdated(store, videos, paths)
    for video in videos:
        number, place = store.where.get(video.vid_name, (None, 0))
        if number is not None and store.parts[number].durations[place] != video.duration:
            found.changed[video.vid_name] = number
    numbers = {*found.changed.values(), *found.unknown.values()}
    if found.changed:
        names = first_few(list(found.changed))
        print(
            f"note: {store.folder}: {len(found.changed)} of {len(videos)} videos have changed since they were encoded: "
            f"{names}: encoding again",
            file=sys.stderr,
        )
    if found.unknown:
        print(
            f"note: {store.folder}: of {len(found.unknown)} of {len(videos)} videos the features were written to since "
            "an earlier version encoded them, which kept no digests: encoding again",
            file=sys.stderr,
        )
    return [store.parts[number].folder for number in sorted(numbers)]


def _listed(files: set[Path]) -> str:
    return " or ".join(sorted(map(str, files)))


def _folders(store: CorpusStore, numbers: Mapping[str, int]) -> str:
    return first_few([store.parts[number].folder.name for number in sorted(set(numbers.values()))])
