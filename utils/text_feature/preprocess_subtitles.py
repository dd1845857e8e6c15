"""Subtitle files of a dataset -> one jsonl, as `tvqa_preprocessed_subtitles.jsonl` of TVRetrieval.

    python utils/text_feature/preprocess_subtitles.py --srt_dir SUBTITLES --save_path subtitles.jsonl

Each line is `{"vid_name": str, "sub": [{"text": str, "start": seconds, "end": seconds}, …]}`, lines by start.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.basic_utils import (
    InputError,
    command_line,
    first_few,
    progress,
    read_bytes,
    refuse_input_as_output,
    write_json,
    write_jsonl,
)
from utils.storage.folders import entries_of
from utils.text_feature.decode_text import check_encoding
from utils.text_feature.subtitle_files import SUFFIXES, read_cues
from utils.text_feature.subtitle_names import choose, lies_beside, not_read, without_container
from utils.text_feature.subtitles.cue import Problems
from utils.text_feature.text_rows import named_rows

# "show.en.srt", "show.pt-BR.vtt", "show.en_US.srt"
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*|[A-Za-z]{2,3}_[A-Za-z]{2,4}")
LANGUAGE_NAME = re.compile(
    "arabic|bengali|bulgarian|catalan|chinese|croatian|czech|danish|dutch|english|estonian|farsi|finnish|french|german|"
    "greek|hebrew|hindi|hungarian|icelandic|indonesian|italian|japanese|korean|latvian|lithuanian|malay|norwegian|"
    "persian|polish|portuguese|romanian|russian|serbian|slovak|slovenian|spanish|swedish|tamil|thai|turkish|ukrainian|"
    "urdu|vietnamese",
    re.IGNORECASE,
)
_FORMS = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
KINDS = frozenset(("forced", "sdh", "cc", "hi", "default"))  # may follow the language: "show.en.sdh.srt"


@dataclass
class Cause:
    """What is wrong in one way: the first sentence that tells it, in which files, and how often in all."""

    sentence: str
    files: list[str] = field(default_factory=list)
    n: int = 0

    def told(self) -> str:
        if self.n == 1:
            return self.sentence
        others = f", in {first_few(self.files)}" if len(self.files) > 1 else ""
        return f"{self.sentence} (and {self.n - 1} more such{others})"


@dataclass
class Report:
    """What became of a folder of subtitles."""

    n_lines: dict[str, int] = field(default_factory=dict)  # by vid_name, 0 for a silent video
    taken: dict[str, str] = field(default_factory=dict)  # file by vid_name
    problems: dict[str, list[str]] = field(default_factory=dict)  # sentences by vid_name, of videos that have some
    missing: list[str] = field(default_factory=list)  # videos that were asked for and have no file; they have no lines
    unused: list[str] = field(default_factory=list)  # files that belong to none of the videos asked for
    further: list[str] = field(default_factory=list)  # files of videos of which another was taken
    not_read: dict[str, list[str]] = field(default_factory=dict)  # by the reason, of files called as missing videos
    not_looked_at: list[str] = field(default_factory=list)  # what else is in the folder
    causes: dict[str, Cause] = field(default_factory=dict)  # by what the problems say without place and example

    def add(self, vid_name: str, cause: str, sentence: str) -> None:
        """Take what is wrong with the files of a video."""
        self.problems.setdefault(vid_name, []).append(sentence)
        self._count(vid_name, cause, sentence, 1)

    def add_all(self, vid_name: str, problems: Problems) -> None:
        """Take what is wrong inside the file of a video."""
        if problems.told:
            self.problems.setdefault(vid_name, []).extend(problems.all())
        for cause, sentence in problems.first.items():
            self._count(vid_name, cause, sentence, problems.count[cause])

    def _count(self, vid_name: str, cause: str, sentence: str, n: int) -> None:
        found = self.causes.setdefault(cause, Cause(sentence))
        found.files.append(self.taken[vid_name])
        found.n += n

    def summary(self) -> list[str]:
        """What was taken and what was not, in a line for each cause."""
        forms = Counter(Path(name).suffix.lower() for name in self.taken.values())
        lines = [f"subtitle files taken: {', '.join(f'{n} {form}' for form, n in sorted(forms.items())) or 'none'}"]
        if self.not_looked_at:
            lines[0] += f"; not looked at: {first_few(self.not_looked_at)}"
        if self.further:
            lines.append(f"subtitle files not taken, since one called shorter was: {first_few(self.further)}")
        for reason, names in self.not_read.items():
            lines.append(f"silent, though there is {first_few(names)} ({reason})")
        lines += [cause.told() for cause in self.causes.values()]
        return lines


def preprocess(
    folder: str | Path, vid_names: Sequence[str] | None, out_jsonl: str | Path, encoding: str | None = None
) -> Report:
    """Clean the subtitle files of a folder into one jsonl, written whole or not at all.

    Args:
        folder: with one `vid_name.srt` or `.vtt` a video, or another form of `SUFFIXES`; `vid_name.mp4.srt` or
            `vid_name.en.srt` is taken when it is the only one, and one that differs in case when it is no other's.
        vid_names: the videos, in the order wanted; one without a file gets a row without lines and is reported. None
            for one video a file, by name, `.json` aside.
        encoding: of all files; None to find out for each.

    Raises:
        InputError: there is no such folder or encoding, no subtitle file in it, or none of any of the videos.
    """
    if encoding is not None:
        check_encoding(encoding)
    files, others = _subtitle_files(Path(folder))
    names = _names_of(files) if vid_names is None else list(dict.fromkeys(vid_names))
    in_a_language = _by_name_without_language(files)
    ways = (files, without_container(files), in_a_language, without_container(in_a_language))
    chosen = choose(names, ways)
    report = Report(missing=[name for name in names if not chosen[name]])
    used = {path for paths in chosen.values() for path in paths}
    rest = [path for paths in files.values() for path in paths if path not in used]
    further = {path for way in ways for name in names for path in way.get(name, ())}
    _take_stock(report, [path for path in rest if path not in further], others)
    report.further = sorted(path.name for path in further - used)
    if names and len(report.missing) == len(names):
        raise InputError(
            f"{folder}: has no subtitle file of any of the videos, such as {names[0]}.srt: "
            f"files are found by the videos' names; there are {first_few([path.name for path in (*rest, *others)])}"
        )
    refuse_input_as_output("--save_path", out_jsonl, [path for paths in files.values() for path in paths])
    rows = (_row(name, chosen[name], encoding, report) for name in progress(names, "subtitles", len(names)))
    write_jsonl(rows, out_jsonl)
    return report


def _take_stock(report: Report, rest: Sequence[Path], others: Sequence[Path]) -> None:
    """Note what was not taken: of the `rest` of the files that could be read, and of the `others`."""
    report.not_read = not_read(report.missing, [*rest, *others])
    told = {name for found in report.not_read.values() for name in found}
    left = [path for path in (*rest, *others) if path.name not in told]
    report.unused = sorted(path.name for path in left if path.suffix.lower() in SUFFIXES and not _is_json(path))
    unused = set(report.unused)
    unseen = (path.name for path in left if path.name not in unused and not lies_beside(path))
    report.not_looked_at = sorted(unseen)


def _subtitle_files(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Files by name without suffix, and what else is there."""
    files: dict[str, list[Path]] = {}
    others = []
    for path in entries_of(folder, f"give a folder of {_FORMS} files"):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in SUFFIXES:
            files.setdefault(path.stem, []).append(path)  # what is no file is told of when its turn comes
        else:
            others.append(path)
    if not files:
        there = [path.name for path in others if not lies_beside(path)]
        raise InputError(
            f"{folder}: has no {_FORMS} file: " + (f"there is {first_few(there)}" if there else "check the path")
        )
    return files, others


def _names_of(files: Mapping[str, list[Path]]) -> list[str]:
    """A video a file; but `.json` may be anything."""
    return sorted(stem for stem, paths in files.items() if not all(map(_is_json, paths)))


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _by_name_without_language(files: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    """The files whose names end with a language, by what comes before it."""
    found: dict[str, list[Path]] = {}
    for stem, paths in files.items():
        name, dot, last = stem.rpartition(".")  # a language has no dot in it
        if dot and _is_language(last):
            found.setdefault(name, []).extend(paths)
        if dot and last.lower() in KINDS:
            name, dot, last = name.rpartition(".")
            if dot and _is_language(last):
                found.setdefault(name, []).extend(paths)
    return found


def _is_language(part: str) -> bool:
    return (LANGUAGE.fullmatch(part) or LANGUAGE_NAME.fullmatch(part)) is not None


def _row(vid_name: str, paths: Sequence[Path], encoding: str | None, report: Report) -> dict[str, Any]:
    """The lines of a video that has some files, the first of which is read; what is wrong goes into the report."""
    lines: list[dict[str, Any]] = []
    if paths:
        report.taken[vid_name] = paths[0].name
    if len(paths) > 1:
        several = f"taken for {vid_name}, which has several files: {first_few([path.name for path in paths])}"
        report.add(vid_name, "several files", f"{paths[0]}: {several}")
    if paths:
        try:
            lines, problems = read_cues(paths[0], encoding)
            report.add_all(vid_name, problems)
        except InputError as err:
            cause = str(err).removeprefix(f"{paths[0]}: ").partition(" (byte")[0]
            report.add(vid_name, cause, str(err))
    report.n_lines[vid_name] = len(lines)
    return {"vid_name": vid_name, "sub": lines}


def read_vid_names(path: str | Path) -> list[str]:
    """Names of videos, each once, from a jsonl whose rows all have `vid_name` or a text file with one name a line."""
    if Path(path).suffix == ".jsonl":
        names = []
        for where, row in named_rows(path):
            if not isinstance(row.get("vid_name"), str):
                raise InputError(f"{where}: has no vid_name: give a file whose rows name their videos")
            names.append(row["vid_name"])
    else:
        try:
            names = read_bytes(path).decode("utf-8-sig").split("\n")
        except UnicodeDecodeError as err:
            raise InputError(f"{path}: is not UTF-8: give one vid_name a line") from err
    found = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not found:
        raise InputError(f"{path}: names no video: give one vid_name a line")
    return found


def _tell(report: Report) -> None:
    taken, *notes = report.summary()
    if report.missing:
        notes.append(f"no subtitle file, taken for silent: {first_few(report.missing)}")
    if report.unused:
        notes.append(f"files of no video asked for: {first_few(report.unused)}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(taken)
    silent = sum(n == 0 for n in report.n_lines.values())
    print(f"{len(report.n_lines)} videos, {silent} of them without lines; {sum(report.n_lines.values())} lines")


@command_line
def main() -> None:
    parser = argparse.ArgumentParser(description="Subtitle files of a corpus -> one jsonl")
    add = parser.add_argument
    add("--srt_dir", "-srt_dir", required=True, help=f"folder with one {_FORMS} a video, named by vid_name")
    add("--save_path", "-save_path", required=True, help="jsonl to write")
    add("--vid_names", help="jsonl with vid_name, or text file, of the videos wanted; default all files")
    add("--encoding", help="of all files; default: UTF-8, byte order mark, else a guess for each")
    add("--report_file", help="JSON to write: lines, problems, missing and unused files")
    opt = parser.parse_args()
    refuse_input_as_output("--save_path", opt.save_path, [opt.vid_names, opt.report_file])
    vid_names = None if opt.vid_names is None else read_vid_names(opt.vid_names)
    report = preprocess(opt.srt_dir, vid_names, opt.save_path, opt.encoding)
    if opt.report_file:
        write_json(vars(report), opt.report_file, indent=True)
    _tell(report)


if __name__ == "__main__":
    main()
