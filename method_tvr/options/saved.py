"""A results folder's opt.json: found, written, read. It may come from anyone, and is taken for values of options alone.

It decides nowhere where anything is written, and reads nothing outside the working directory and the project unsaid.
"""

from __future__ import annotations

import glob
import os
import re
import reprlib
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from method_tvr.options.models import LONG_VIDEOS, XML, XML_SIGN
from method_tvr.options.row import Option
from utils.basic_utils import PROJECT_ROOT, InputError, StrPath, first_few, read_json, write_json

FEATURE_FILES = ("vid_feat_path", "sub_bert_path", "desc_bert_path")
FILES = (*FEATURE_FILES, "video_duration_idx_path", "train_path", "eval_path")
RECORDED_ONLY = frozenset({"results_dir"})  # training notes it down, here and in the original; nobody reads it back
OPTIONS_FILE = "opt.json"
MAX_NAME_BYTES = 100  # of a part of a file name, which may be 255 long


def find_path(path: str) -> Path:
    """Where a path option points: as given, or from the project root when it is relative and not found from here."""
    if not os.path.exists(path) and os.path.exists(PROJECT_ROOT / path):
        return PROJECT_ROOT / path
    return Path(path)


def find_model_dir(model_dir: str, results_root: str) -> str:
    """The results folder that `model_dir` means, see `look_for_model_dir`; an `InputError` if there is none."""
    found = look_for_model_dir(model_dir, results_root)
    if found is None:
        places = ", ".join(map(str, _bases(results_root)))
        raise InputError(
            f"{model_dir}: no such results folder (looked in {places}): give a path or a name that is there"
        )
    return found


def look_for_model_dir(model_dir: str, results_root: str) -> str | None:
    """The results folder that `model_dir` means: a path, a name under `results_root`, or a pattern of either.

    Of several matches the newest is taken, and said aloud.
    """
    for base in _bases(results_root):
        if (base / model_dir).is_dir():
            return str(base / model_dir)
        pattern = model_dir if Path(model_dir).is_absolute() else f"{glob.escape(str(base))}/{model_dir}"
        matches = [path for path in map(Path, glob.glob(pattern)) if path.is_dir()]
        if matches:
            newest = max(matches, key=_started)
            if len(matches) > 1:
                print(f"{len(matches)} results folders match {model_dir}: taking the newest, {newest}")
            return str(newest)
    return None


def _bases(results_root: str) -> list[Path]:
    """Where results folders are looked for."""
    return list(dict.fromkeys((Path(), find_path(results_root), PROJECT_ROOT / "method_tvr" / "results")))


def _started(results_dir: Path) -> tuple[str, float]:
    """When a run began, by the end of its folder's name; folders named otherwise go by when they were changed."""
    time_in_name = re.search(r"\d{4}(_\d\d){5}$", results_dir.name)
    return time_in_name[0] if time_in_name else "", results_dir.stat().st_mtime


def save_options(opt: Mapping[str, Any], results_dir: StrPath) -> None:
    """Write opt.json into the results folder."""
    write_json(dict(opt), Path(results_dir) / OPTIONS_FILE, indent=True)


def load_options(model_dir: str) -> dict[str, Any]:
    """Read a results folder's opt.json; an `InputError` where it is missing or not an object."""
    path = Path(model_dir) / OPTIONS_FILE
    saved = read_json(path, "give a results folder that training made, with opt.json and model.ckpt in it")
    if not isinstance(saved, dict):
        raise InputError(f"{path}: expected an object of options, found {type(saved).__name__}")
    return saved


def load_known(model_dir: str, known: Mapping[str, Option]) -> dict[str, Any]:
    """Read the options of a results folder's opt.json that are known, by either name, and warn of the others.

    An `InputError` if it cannot be read, or the command line would refuse a value, which is named.
    """
    saved, path = load_options(model_dir), Path(model_dir) / OPTIONS_FILE
    names = {option.alias: name for name, option in known.items() if option.alias}
    saved = {names.get(name, name): value for name, value in saved.items() if names.get(name) not in saved}
    if "model" not in saved and XML_SIGN in saved:
        saved |= {"model": XML, "long_videos": LONG_VIDEOS[XML]}
    for name, value in saved.items():
        if name in known and not known[name].accepts(value):
            raise InputError(f"{path}: {name} {reprlib.repr(value)} is not what --{name} takes: mend the file")
    unknown = [reprlib.repr(name) for name in saved if name not in known and name not in RECORDED_ONLY]
    if unknown:
        print(f"warning: {path}: options unknown here are passed over: {first_few(unknown)}", file=sys.stderr)
    return {name: value for name, value in saved.items() if name in known}


def check_name_part(option: str, value: str) -> None:
    """Refuse a value that becomes part of a file's name, but would lead to another folder or is too long."""
    if "/" in value or "\\" in value or ".." in value or not value.isprintable():
        raise InputError(
            f"--{option} {value!r} becomes part of file names: leave out slashes, '..' and control characters"
        )
    if len(os.fsencode(value)) > MAX_NAME_BYTES:
        raise InputError(f"--{option} {value!r} becomes part of file names: make it shorter ({MAX_NAME_BYTES} bytes)")


def keep_to_known_places(opt: dict[str, Any], saved: Mapping[str, Any], typed: Collection[str], folder: str) -> None:
    """Say which files far from here are read because opt.json names them, and see to it that nothing is written there.

    Features are packed into caches beside their files. Beside far files that only happens where there is a cache
    already, or when it was asked for; elsewhere such features are read from disk item by item. `feature_cache` and
    `feature_cache_dir` of `opt` are changed to that end; `folder` is that of opt.json, and `saved` what it says.
    """
    path = Path(folder) / OPTIONS_FILE
    taken = {name: opt[name] for name in FILES if name not in typed and opt.get(name) and opt[name] == saved.get(name)}
    far = [f"--{name} {file}" for name, file in taken.items() if _is_far(file, folder)]
    if far:
        print(
            f"note: {path} has files read that lie outside this folder and the project: {', '.join(far)}",
            file=sys.stderr,
        )
    if "feature_cache_dir" not in typed and opt["feature_cache_dir"] and _is_far(opt["feature_cache_dir"], folder):
        print(
            f"note: {path}: nothing is written to --feature_cache_dir {opt['feature_cache_dir']} unless it is typed",
            file=sys.stderr,
        )
        opt["feature_cache_dir"] = None
    caches = [f"{find_path(taken[name])}.cache" for name in FEATURE_FILES if name in taken]
    new = [cache for cache in caches if _is_far(cache, folder) and (os.path.islink(cache) or not os.path.isdir(cache))]
    if new and not opt["feature_cache_dir"] and "feature_cache" not in typed and opt["feature_cache"] != "disk":
        print(
            f"note: {path}: no cache of packed features is made beside such files, so that they are read item by item: "
            "give --feature_cache_dir, or --feature_cache to have it made",
            file=sys.stderr,
        )
        opt["feature_cache"] = "disk"


def _is_far(path: str, folder: str) -> bool:
    """Whether a path leads out of the working directory and the project, or out of a results folder by way of a link.

    Links that do not lie in the results folder are the user's own.
    """
    place = Path(os.path.abspath(find_path(path)))
    if ".." in Path(path).parts or not any(place.is_relative_to(root) for root in (Path.cwd(), PROJECT_ROOT)):
        return True
    real = os.path.realpath(folder)
    through = any(os.path.realpath(parent) == real for parent in place.parents)
    return through and not Path(os.path.realpath(place)).is_relative_to(real)
