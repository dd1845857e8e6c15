"""What a results folder's opt.json may bring about: it may come from anyone, and is taken for values of options alone.

It decides nowhere where anything is written, and reads nothing outside the working directory and the project unsaid.
"""

from __future__ import annotations

import argparse
import os
import reprlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from method_tvr.options.declared import NumberOr
from utils.basic_utils import PROJECT_ROOT, InputError, first_few

FEATURE_FILES = ("vid_feat_path", "sub_bert_path", "desc_bert_path")
FILES = (*FEATURE_FILES, "video_duration_idx_path", "train_path", "eval_path")
RECORDED_ONLY = frozenset({"results_dir"})  # training notes it down, here and in the original; nobody reads it back
MAX_NAME_BYTES = 100  # of a part of a file name, which may be 255 long


def find_path(path: str) -> Path:
    """Where a path option points: as given, or from the project root when it is relative and not found from here."""
    if not os.path.exists(path) and os.path.exists(PROJECT_ROOT / path):
        return PROJECT_ROOT / path
    return Path(path)


def check_saved(saved: Mapping[str, Any], path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Refuse values that the command line would refuse, and warn of names that it does not know.

    Args:
        saved: content of the opt.json at `path`.
        path: for the messages.
        parser: knows the options.

    Returns:
        What is known.

    Raises:
        InputError: naming the file, the option and its value.
    """
    known = {action.dest: action for action in parser._actions if action.dest != "help"}
    for name, value in saved.items():
        if name in known and not _is_accepted(known[name], value):
            raise InputError(f"{path}: {name} {reprlib.repr(value)} is not what --{name} takes: mend the file")
    unknown = [reprlib.repr(name) for name in saved if name not in known and name not in RECORDED_ONLY]
    if unknown:
        print(f"warning: {path}: options unknown here are passed over: {first_few(unknown)}", file=sys.stderr)
    return {name: value for name, value in saved.items() if name in known}


def _is_accepted(action: argparse.Action, value: Any) -> bool:
    if value is None:
        return action.default is None
    several = action.nargs == "+"
    if several and not (isinstance(value, list) and value):
        return False
    kind = action.type or (bool if action.nargs == 0 else str)
    accepted = (int, float) if kind is float else (kind,)
    return all(
        (kind.accepts(v) if isinstance(kind, NumberOr) else type(v) in accepted)
        and (not action.choices or v in action.choices)
        and not (isinstance(v, str) and "\0" in v)
        for v in (value if several else [value])
    )


def check_name_part(option: str, value: str) -> None:
    """Refuse a value that becomes part of a file's name, but would lead to another folder or is too long.

    Raises:
        InputError: naming the option.
    """
    if "/" in value or "\\" in value or ".." in value or not value.isprintable():
        raise InputError(
            f"--{option} {value!r} becomes part of file names: leave out slashes, '..' and control characters"
        )
    if len(os.fsencode(value)) > MAX_NAME_BYTES:
        raise InputError(f"--{option} {value!r} becomes part of file names: make it shorter ({MAX_NAME_BYTES} bytes)")


def keep_to_known_places(opt: dict[str, Any], saved: Mapping[str, Any], typed: set[str], folder: str) -> None:
    """Say which files far from here are read because opt.json names them, and see to it that nothing is written there.

    Features are packed into caches beside their files. Beside far files that only happens where there is a cache
    already, or when it was asked for; elsewhere such features are read from disk item by item.

    Args:
        opt: all options, those of opt.json included; `feature_cache` and `feature_cache_dir` may be changed.
        saved: content of opt.json.
        typed: names of the options that were typed.
        folder: where opt.json lies.
    """
    path = Path(folder) / "opt.json"
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
