"""Files and folders of datasets: those that every dataset made here has, called as TVR's, and where they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from standalone_eval.files.command import BadInput
from standalone_eval.files.forms import ANNOTATIONS, form_of_text
from standalone_eval.files.reading import refuse_others, why_no_rows
from utils.basic_utils import InputError, StrPath, read_bytes, read_json, read_jsonl, write_json

DURATIONS, MANIFEST = "_video2dur_idx.json", "_made_by.json"
FOLDER_SUFFIX = ".partial"  # of the folder beside a feature file, in which what is extracted lies until all is
MADE_FROM, SUBTITLES = "made_from", "subtitles"  # key and value of a query that nobody wrote: a subtitle line


def read_queries_file(path: StrPath, remedy: str = "check the path") -> list[dict[str, Any]]:
    """The rows of a `P_{split}_release.jsonl`; an `InputError` names another known form that a file is of."""
    try:
        rows = read_jsonl(path, remedy)
    except InputError as err:
        text = read_bytes(path, remedy).decode("utf-8", "replace")
        raise InputError(reason) if (reason := why_no_rows(text, path)) else err from err
    try:
        refuse_others(rows, ANNOTATIONS, path)
    except BadInput as err:
        raise InputError(str(err)) from err
    return rows


def read_predictions_file(path: StrPath) -> Any:
    """A prediction file, not checked yet; an `InputError` names another known form where it is no JSON document."""
    try:
        return read_json(path)
    except InputError as err:
        form = form_of_text(read_bytes(path).decode("utf-8", "replace"))
        raise InputError(f"{path}: {form}") if form else err from err


def release_path(out: Path, prefix: str, split: str) -> Path:
    """`P_{split}_release.jsonl`, the queries of a split."""
    return out / f"{prefix}_{split}_release.jsonl"


def durations_path(out: Path, prefix: str) -> Path:
    """`P_video2dur_idx.json`."""
    return out / f"{prefix}{DURATIONS}"


def durations_prefix(path: Path) -> str | None:
    """The `P` of a file of durations, None where it is called otherwise."""
    return path.name.removesuffix(DURATIONS) if path.name.endswith(DURATIONS) else None


def read_durations(path: StrPath) -> dict[str, float]:
    """{vid_name: seconds} of a `P_video2dur_idx.json`, {split: {vid_name: [seconds, video_idx]}}, or of just that."""
    content = read_json(path, "give the video2dur_idx file of the dataset")
    splits = content.values() if isinstance(content, dict) else ()
    entries = [item for split in splits if isinstance(split, dict) for item in split.items()] or content
    try:
        found = {name: value if type(value) in (int, float) else value[0] for name, value in dict(entries).items()}
    except (TypeError, ValueError, LookupError) as err:
        raise InputError(f"{path}: expected {{split: {{vid_name: [duration, video_idx]}}}}: is it the file?") from err
    return found


def subtitles_path(out: Path, prefix: str) -> Path:
    """`P_subtitles.jsonl`, the lines as text that subtitle features were made from, for people to read."""
    return out / f"{prefix}_subtitles.jsonl"


def manifest_path(out: Path, prefix: str) -> Path:
    """`P_made_by.json`, written last: what was made of what. While it fits the files, the dataset is whole."""
    return out / f"{prefix}{MANIFEST}"


def write_manifest(out: Path, prefix: str, files: Sequence[Path], **about: Any) -> dict[str, Any]:
    """Write down what was made, with the size of every file, once all of it is there; returns the manifest."""
    manifest = {**about, "files": {str(path.relative_to(out)): path.stat().st_size for path in files}}
    write_json(manifest, manifest_path(out, prefix), indent=True)
    return manifest


def usable_folder(out: StrPath) -> Path:
    """The output folder, made if need be; `InputError` when it cannot be made or written to."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise InputError(f"--out {folder}: cannot be made ({err.strerror}): give another folder") from err
    if not os.access(folder, os.W_OK):
        raise InputError(f"--out {folder}: cannot be written to: give another folder")
    return folder


def named_folder(out: str) -> Path:
    """A `usable_folder` whose name can begin those of files, or `InputError`; absolute, for commands to be printed."""
    folder = usable_folder(out).resolve()
    if not re.fullmatch(r"[\w.-]+", folder.name):
        raise InputError(f"--out {out}: its name begins the names of all files: letters, digits, _ . and - only")
    return folder
