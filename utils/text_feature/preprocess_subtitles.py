"""Subtitle files of a dataset -> one jsonl, as `tvqa_preprocessed_subtitles.jsonl` of TVRetrieval.

    python utils/text_feature/preprocess_subtitles.py --srt_dir SUBTITLES --save_path subtitles.jsonl

Each line is `{"vid_name": str, "sub": [{"text": str, "start": seconds, "end": seconds}, …]}`, lines by start.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if find_spec("method_tvr") is None:
    print("error: the project is not on PYTHONPATH: type `source setup.sh` in its folder first", file=sys.stderr)
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
from utils.folders import entries_of
from utils.text_feature.decode_text import check_encoding
from utils.text_feature.subtitle_files import SUFFIXES, read_subtitles
from utils.text_feature.text_rows import named_rows

LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*")  # "show.en.srt", "show.pt-BR.vtt"
SHOWN_PROBLEMS = 20


@dataclass
class Report:
    """What became of a folder of subtitles."""

    n_lines: dict[str, int] = field(default_factory=dict)  # by vid_name, 0 for a silent video
    problems: dict[str, list[str]] = field(default_factory=dict)  # sentences by vid_name, of videos that have some
    missing: list[str] = field(default_factory=list)  # videos that were asked for and have no file; they have no lines
    unused: list[str] = field(default_factory=list)  # files that belong to none of the videos asked for


def preprocess(
    folder: str | Path, vid_names: Sequence[str] | None, out_jsonl: str | Path, encoding: str | None = None
) -> Report:
    """Clean the subtitle files of a folder into one jsonl, written whole or not at all.

    Args:
        folder: with one `vid_name.srt` or `.vtt` a video; `vid_name.en.srt` is taken when it is the only one.
        vid_names: the videos, in the order wanted; one without a file gets a row without lines and is reported. None
            for one video a file, by name.
        encoding: of all files; None to find out for each.

    Raises:
        InputError: there is no such folder or encoding, no subtitle file in it, or none of any of the videos.
    """
    if encoding is not None:
        check_encoding(encoding)
    files = _subtitle_files(Path(folder))
    names = sorted(files) if vid_names is None else list(dict.fromkeys(vid_names))
    in_a_language = _by_name_without_language(files)
    chosen = {name: files.get(name) or in_a_language.get(name, []) for name in names}
    report = Report(missing=[name for name in names if not chosen[name]])
    if names and len(report.missing) == len(names):
        raise InputError(
            f"{folder}: has no subtitle file of any of the videos, such as {names[0]}.srt: "
            "files are found by the videos' names"
        )
    refuse_input_as_output("--save_path", out_jsonl, [path for paths in files.values() for path in paths])
    used = {path for paths in chosen.values() for path in paths}
    report.unused = sorted(path.name for paths in files.values() for path in paths if path not in used)
    rows = (_row(name, chosen[name], encoding, report) for name in progress(names, "subtitles", len(names)))
    write_jsonl(rows, out_jsonl)
    return report


def _subtitle_files(folder: Path) -> dict[str, list[Path]]:
    """Files by name without suffix."""
    files: dict[str, list[Path]] = {}
    for path in entries_of(folder, "give a folder of .srt or .vtt files"):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            files.setdefault(path.stem, []).append(path)  # what is no file is told of when its turn comes
    if not files:
        raise InputError(f"{folder}: has no .srt or .vtt file: check the path")
    return files


def _by_name_without_language(files: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    """The files whose names end with a language, by what comes before it."""
    found: dict[str, list[Path]] = {}
    for stem, paths in files.items():
        name, dot, language = stem.rpartition(".")  # a language has no dot in it
        if dot and LANGUAGE.fullmatch(language):
            found.setdefault(name, []).extend(paths)
    return found


def _row(vid_name: str, paths: Sequence[Path], encoding: str | None, report: Report) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    problems: list[str] = []
    if len(paths) > 1:
        names = first_few([path.name for path in paths])
        problems.append(f"{paths[0]}: taken for {vid_name}, which has several files: {names}")
    if paths:
        try:
            lines, found = read_subtitles(paths[0], encoding)
            problems += found
        except InputError as err:
            problems.append(str(err))
    report.n_lines[vid_name] = len(lines)
    if problems:
        report.problems[vid_name] = problems
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
    problems = [problem for of_video in report.problems.values() for problem in of_video]
    for problem in problems[:SHOWN_PROBLEMS]:
        print(f"note: {problem}", file=sys.stderr)
    if len(problems) > SHOWN_PROBLEMS:
        print(f"note: {len(problems) - SHOWN_PROBLEMS} more (--report_file names all)", file=sys.stderr)
    if report.missing:
        print(f"note: no subtitle file, taken for silent: {first_few(report.missing)}", file=sys.stderr)
    if report.unused:
        print(f"note: files of no video asked for: {first_few(report.unused)}", file=sys.stderr)
    silent = sum(n == 0 for n in report.n_lines.values())
    print(f"{len(report.n_lines)} videos, {silent} of them without lines; {sum(report.n_lines.values())} lines")


@command_line
def main() -> None:
    parser = argparse.ArgumentParser(description="Subtitle files (.srt, .vtt) of a corpus -> one jsonl")
    add = parser.add_argument
    add("--srt_dir", "-srt_dir", required=True, help="folder with one .srt or .vtt a video, named by vid_name")
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
