"""A corpus' own settings of training, in one JSON file beside it: {option: value}, for `train.sh … --settings FILE`.

`utils/extract_features.sh` writes one. It may come from anyone with its corpus, and is taken for values of options
alone: it says neither where anything is written nor where the run computes, and names files of its own folder only.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from method_tvr.options.row import UNSHARED, Option
from method_tvr.options.saved import FILES, find_path
from utils.basic_utils import InputError, read_json

SPELLING = "give the file that utils/extract_features.sh wrote into the corpus' folder, NAME_training.json"


def read_settings(path: str | None, options: Mapping[str, Option]) -> dict[str, Any]:
    """{option: value} of a file of settings, with its files as paths from here; {} without a file.

    Args:
        path: of the file.
        options: those of training, by name.

    Raises:
        InputError: it cannot be read, or has what is no such option, or a value that the option does not take.
    """
    if path is None:
        return {}
    place = find_path(path)
    said = read_json(place, SPELLING)
    if not isinstance(said, dict):
        raise InputError(f"--settings {path}: expected an object of options, found {type(said).__name__}: {SPELLING}")
    for name, value in said.items():
        if name not in options or not _is_setting(options[name]):
            raise InputError(f"--settings {path}: {reprlib.repr(name)} is no option that it may have: leave it out")
        if not options[name].accepts(value):
            raise InputError(
                f"--settings {path}: {name} {reprlib.repr(value)} is not what --{name} takes: mend the file"
            )
    return {name: _beside(place, name, value) if name in FILES else value for name, value in said.items()}


def _is_setting(option: Option) -> bool:
    """Whether an option says what is trained on what, and not which run it is, or where it runs and writes."""
    where = option.on_resume or option.inference == UNSHARED or option.name in ("dset_name", "exp_id")
    return option.name in FILES or not where


def _beside(place: Path, name: str, file: str) -> str:
    """A file in the folder of the settings, or below it."""
    if Path(file).is_absolute() or ".." in Path(file).parts:
        raise InputError(
            f"--settings {place}: {name} {reprlib.repr(file)} is not in the folder of the settings: name a file there, "
            f"or leave it out and type --{name}"
        )
    return str(place.parent / file)
