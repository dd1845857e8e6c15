"""One feature file of a corpus, looked at closely: keys, shapes, types, values, numbers of clips."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

from method_tvr.dataset.defects import Defects
from method_tvr.dataset.split_facts import ROWS_APART, far_apart, rows_apart
from utils.basic_utils import InputError, first_few, progress
from utils.feature_files.feature_file import FeatureError, FeatureFile
from utils.tables import aligned
from utils.text_feature.text_rows import MASK_SUFFIX


@dataclass
class Source:
    """A feature file, and what was found in it."""

    kind: str  # what the tables call it
    path: str  # where it should lie
    keys: dict[str, list[str]]  # of each split, those it should have
    needed: bool  # whether the run asked for reads it; what is wrong with another one is only noted
    needed_by: str = ""  # what other runs read it, if this one does not
    missing: dict[str, int] | None = None  # of each split, number of keys it lacks; None when it could not be opened
    rows: dict[str, int] = field(default_factory=dict)  # clips or tokens of the keys that are as they should be
    n_keys: int = 0
    n_masks: int = 0
    width: int | None = None
    dtypes: Counter[str] = field(default_factory=Counter)
    values: str = "-"
    made_by: str = "-"
    clip_length: float | None = None  # seconds of a row, as the file says

    @property
    def name(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class FeatureCheck:
    """Looks at the feature files of a corpus, and tells `defects` what is wrong."""

    remedy: str  # what to do about a defect
    clip_length: float | str  # of the dataset, see `ClipTimes`
    splits: set[str]  # that training or inference can be run on; of others, all is only noted
    videos: set[str]  # of these splits
    quick: bool  # do not read values
    defects: Defects

    def look_at(self, source: Source) -> None:
        """Look at one file, which is told what is found: its keys, then shapes and types, then all values."""
        if not source.needed and not Path(source.path).exists():
            return
        if self.defects.is_there(source.path, self.remedy):
            with self.defects.collecting(self.remedy, source.needed), FeatureFile(source.path) as file:
                self._look_into(source, file)

    def _look_into(self, source: Source, file: FeatureFile) -> None:
        made_by, keys = file.made_by(), file.keys()
        source.missing = {}
        for split, wanted in source.keys.items():
            lacking = file.missing(wanted)
            source.missing[split] = len(lacking)
            if lacking:
                what = "desc_ids" if source.kind == "query" else "videos"
                text = f"has no features for {len(lacking)} of {len(wanted)} {split} {what}: {first_few(lacking, 3)}"
                self.defects.add(f"{source.path}: {text}", self.remedy, source.needed and split in self.splits)
        source.made_by = str(made_by.get("made_by", "no record"))
        source.n_masks = sum(key.endswith(MASK_SUFFIX) for key in keys)
        source.n_keys = len(keys) - source.n_masks
        there = set(keys)
        owners = {key: split for split, wanted in source.keys.items() for key in wanted if key in there}
        bad = _check_arrays(source, file, owners, self.quick or not source.needed)
        for reason, faulty in bad.items():
            # a fault in a split without queries stops nobody
            for blocking in (True, False):
                named = [key for key in faulty if (owners[key] in self.splits) == blocking]
                if named:
                    text = f"{source.path}: {first_few(named)}: {reason}"
                    self.defects.add(text, self.remedy, source.needed and blocking)
        here, expected = made_by.get("clip_length"), self.clip_length
        source.clip_length = float(here) if isinstance(here, Real) else None
        if isinstance(here, Real) and not isinstance(expected, str) and not math.isclose(here, expected):
            text = f"{source.path}: was made with clips of {here} s, not {expected} s"
            self.defects.add(text, f"{self.remedy}, or give --clip_length {here}", source.needed)

    def compare_clip_counts(self, durations: Mapping[str, float], sources: Sequence[Source]) -> None:
        """Print how numbers of clips compare with durations (seconds, as far as known) and with those of subtitles."""
        context = [source for source in sources if source.kind != "query" and source.rows]
        fixed = None if isinstance(self.clip_length, str) else self.clip_length
        caption = "each video's clips last its duration divided by their number"
        if fixed is not None:
            caption = f"ceil(duration / {fixed} s) is expected"
        table = [["features", "videos", "as expected", "1 apart", "more", "largest difference", "as many as sub"]]
        subtitles = next((source for source in context if source.kind == "sub"), None)
        sub = subtitles.rows if subtitles else {}
        for source in context:
            length = fixed or source.clip_length
            expected = {name: math.ceil(duration / length) for name, duration in durations.items()} if length else {}
            apart = {
                name: rows_apart(n, expected[name], fixed is None)
                for name, n in source.rows.items()
                if name in expected
            }
            self._report_apart(source, apart, expected)
            shared = [name for name in source.rows if name in sub]
            unequal = [name for name in shared if source.rows[name] != sub[name]]
            if unequal:
                named = first_few([f"{name} ({source.rows[name]} and {sub[name]})" for name in unequal])
                self.defects.add(
                    f"{source.path}: numbers of clips differ from those of the subtitles for {named}",
                    f"both must be of one release and one clip length: {self.remedy}",
                    source.needed and subtitles is not None and subtitles.needed and self._blocks(unequal),
                )
            counts = Counter(min(difference, 2) for difference in apart.values())
            differences = [*map(str, (counts[0], counts[1], counts[2], max(apart.values())))] if apart else ["-"] * 4
            equal = f"{len(shared) - len(unequal)} of {len(shared)}" if subtitles not in (None, source) else "-"
            table.append([source.kind, str(len(source.rows)), *differences, equal])
        if context:
            print(f"\nNumbers of clips: {caption}\n{aligned(table)}")

    def _report_apart(self, source: Source, apart: Mapping[str, int], expected: Mapping[str, int]) -> None:
        """Tell of numbers of clips that durations do not ask for: far off is a defect, near is a note."""
        more = [name for name, difference in apart.items() if difference > ROWS_APART]
        far = [name for name in more if far_apart(apart[name], expected[name])]
        for names, is_far in ((far, True), ([name for name in more if name not in set(far)], False)):
            if names:
                shown = first_few([f"{name} ({source.rows[name]}, expected {expected[name]})" for name in names])
                self.defects.add(
                    f"{source.path}: numbers of clips do not fit the durations for {shown}",
                    f"other clip length or other videos? {self.remedy}" if is_far else "times may be slightly off",
                    is_far and source.needed and self._blocks(names),
                )

    def _blocks(self, vid_names: Sequence[str]) -> bool:
        return not self.videos.isdisjoint(vid_names)


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
