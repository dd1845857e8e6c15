"""One feature file of a corpus, looked at closely: keys, shapes, types, values, numbers of clips."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

from method_tvr.dataset.defects import Defects
from utils.basic_utils import InputError, first_few, progress
from utils.feature_files.feature_file import FeatureError, FeatureFile
from utils.tables import aligned

MASK_SUFFIX = "-mask"
CLIPS_APART = 1  # rounding at a video's end
CLIPS_APART_SHARE = 0.1  # beyond it, the clips are not those of this video or not of this length


@dataclass
class Source:
    """A feature file, and what was found in it.

    Attributes:
        kind: what the tables call it.
        path: where it should lie.
        keys: {split: the keys it should have}.
        needed: whether the run asked for reads it; what is wrong with another one is only noted.
        needed_by: what other runs read it, if this one does not.
        missing: {split: number of keys it lacks}; None when it could not be opened.
        rows: {key: number of clips or tokens} of the keys that are as they should be.
    """

    kind: str
    path: str
    keys: dict[str, list[str]]
    needed: bool
    needed_by: str = ""
    missing: dict[str, int] | None = None
    rows: dict[str, int] = field(default_factory=dict)
    n_keys: int = 0
    n_masks: int = 0
    width: int | None = None
    dtypes: Counter[str] = field(default_factory=Counter)
    values: str = "-"
    made_by: str = "-"

    @property
    def name(self) -> str:
        return Path(self.path).name


def check_source(
    source: Source, remedy: str, clip_length: float | str, needed_splits: set[str], quick: bool, defects: Defects
) -> None:
    """Look at one feature file: its keys, then shapes and types, then (unless `quick`) all values.

    Args:
        source: the file; is told what is found.
        remedy: what to do about a defect.
        clip_length: of the dataset, see `ClipTimes`.
        needed_splits: those that training or inference can be run on.
        quick: do not read values.
        defects: is told what is wrong.
    """
    if not Path(source.path).exists() and not source.needed:
        return
    if not defects.is_there(source.path, remedy):
        return
    try:
        file = FeatureFile(source.path)
    except InputError as err:
        defects.add(str(err), remedy, source.needed)
        return
    with file:
        _check_file(source, file, remedy, clip_length, needed_splits, quick, defects)


def _check_file(
    source: Source,
    file: FeatureFile,
    remedy: str,
    expected: float | str,
    needed_splits: set[str],
    quick: bool,
    defects: Defects,
) -> None:
    try:
        made_by, keys = file.made_by(), file.keys()
        source.missing = {}
        for split, wanted in source.keys.items():
            lacking = file.missing(wanted)
            source.missing[split] = len(lacking)
            if lacking:
                what = "desc_ids" if source.kind == "query" else "videos"
                text = f"has no features for {len(lacking)} of {len(wanted)} {split} {what}: {first_few(lacking, 3)}"
                defects.add(f"{source.path}: {text}", remedy, source.needed and split in needed_splits)
    except InputError as err:
        defects.add(str(err), remedy, source.needed)
        return
    source.made_by = str(made_by.get("made_by", "no record"))
    masks = [key for key in keys if key.endswith(MASK_SUFFIX)]
    source.n_keys, source.n_masks = len(keys) - len(masks), len(masks)
    there = set(keys)
    owners = {key: split for split, wanted in source.keys.items() for key in wanted if key in there}
    bad = _check_arrays(source, file, owners, quick or not source.needed)
    for reason, faulty in bad.items():
        # a fault in a split without queries stops nobody
        for blocking in (True, False):
            named = [key for key in faulty if (owners[key] in needed_splits) == blocking]
            if named:
                defects.add(f"{source.path}: {first_few(named)}: {reason}", remedy, source.needed and blocking)
    clip_length = made_by.get("clip_length")
    if isinstance(clip_length, Real) and not isinstance(expected, str) and not math.isclose(clip_length, expected):
        text = f"{source.path}: was made with clips of {clip_length} s, not {expected} s"
        defects.add(text, f"{remedy}, or give --clip_length {clip_length}", source.needed)


def _check_arrays(source: Source, file: FeatureFile, keys: Iterable[str], quick: bool) -> dict[str, list[str]]:
    """Fill in the source's rows, width, types and values; returns {what is wrong: keys}."""
    bad: dict[str, list[str]] = defaultdict(list)
    widths = {}
    for key in progress(list(keys), f"shapes of {source.kind}"):
        try:
            source.rows[key], widths[key], dtype = file.form(key)
            source.dtypes[dtype] += 1
        except InputError as err:
            bad[_reason(err)].append(key)
    if not widths:
        return bad
    source.width = Counter(widths.values()).most_common(1)[0][0]
    n_sound = 0
    # A width of its own is found in the form; only values have to be read.
    suspects = [key for key, width in widths.items() if width != source.width] if quick else list(widths)
    for key in progress(suspects, f"values of {source.kind}"):
        try:
            file.read(key, source.width)
            n_sound += 1
        except InputError as err:
            bad[_reason(err)].append(key)
    source.values = "not read" if quick else "finite" if n_sound == len(widths) else f"{len(widths) - n_sound} BAD"
    return bad


def _reason(err: InputError) -> str:
    # Only keys that the file lists are asked for: one it then denies has lost its array.
    return err.reason if isinstance(err, FeatureError) else "is listed but not there: the file is damaged"


def check_clip_counts(
    remedy: str,
    clip_length: float | str,
    durations: Mapping[str, float],
    needed_videos: set[str],
    sources: Sequence[Source],
    defects: Defects,
) -> None:
    """Compare numbers of clips with the durations and between video and subtitle files, and print what was found.

    Args:
        remedy, clip_length: see `check_source`.
        durations: {vid_name: seconds}, as far as known.
        needed_videos: those of splits that training or inference can be run on; of others, all is only noted.
        sources: checked feature files.
        defects: is told what is wrong.
    """
    context = [source for source in sources if source.kind != "query" and source.rows]
    expected: dict[str, int] = {}
    caption = "each video's clips last its duration divided by their number"
    if not isinstance(clip_length, str):
        expected = {name: math.ceil(duration / clip_length) for name, duration in durations.items()}
        caption = f"ceil(duration / {clip_length} s) is expected"
    table = [["features", "videos", "as expected", "1 apart", "more", "largest difference", "as many as sub"]]
    subtitles = next((source for source in context if source.kind == "sub"), None)
    sub = subtitles.rows if subtitles else {}
    for source in context:
        apart = {name: abs(n - expected[name]) for name, n in source.rows.items() if name in expected}
        more = [name for name, difference in apart.items() if difference > CLIPS_APART]
        _report_apart(source, remedy, expected, more, needed_videos, defects)
        shared = [name for name in source.rows if name in sub]
        unequal = [name for name in shared if source.rows[name] != sub[name]]
        if unequal:
            named = first_few([f"{name} ({source.rows[name]} and {sub[name]})" for name in unequal])
            defects.add(
                f"{source.path}: numbers of clips differ from those of the subtitles for {named}",
                f"both must be of one release and one clip length: {remedy}",
                source.needed and subtitles is not None and subtitles.needed and not needed_videos.isdisjoint(unequal),
            )
        counts = Counter(min(difference, CLIPS_APART + 1) for difference in apart.values())
        differences = [str(counts[0]), str(counts[1]), str(len(more)), str(max(apart.values()))] if apart else ["-"] * 4
        equal = f"{len(shared) - len(unequal)} of {len(shared)}" if subtitles not in (None, source) else "-"
        table.append([source.kind, str(len(source.rows)), *differences, equal])
    if context:
        print(f"\nNumbers of clips: {caption}\n{aligned(table)}")


def _report_apart(
    source: Source,
    remedy: str,
    expected: dict[str, int],
    more: list[str],
    needed_videos: set[str],
    defects: Defects,
) -> None:
    """Tell of videos with other numbers of clips than their durations ask for: far off is a defect, near is a note."""
    far = [name for name in more if abs(source.rows[name] - expected[name]) > CLIPS_APART_SHARE * expected[name]]
    for names, is_far in ((far, True), ([name for name in more if name not in set(far)], False)):
        if not names:
            continue
        shown = first_few([f"{name} ({source.rows[name]}, expected {expected[name]})" for name in names])
        defects.add(
            f"{source.path}: numbers of clips do not fit the durations for {shown}",
            f"other clip length or other videos? {remedy}" if is_far else "times may be slightly off",
            is_far and source.needed and not needed_videos.isdisjoint(names),
        )
