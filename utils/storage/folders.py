"""What lies in folders that may be other people's: files, and links, pipes and sockets that are no files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from utils.basic_utils import InputError, StrPath

Wanted = Callable[[str], bool]  # whether a file is looked for, by its name


def entries_of(folder: Path, remedy: str) -> list[Path]:
    """What lies in a folder that is read, by name; or `InputError` saying why it cannot be, and the `remedy`."""
    try:
        return sorted(folder.iterdir())
    except OSError as err:
        raise _unlisted(folder, err, remedy) from err


def files_in(folder: Path, wanted: Wanted, remedy: str) -> list[Path]:
    """The regular files in a folder that are `wanted`, and links to such, by name.

    What is called so and cannot be read, such as a pipe or a link that leads nowhere, is passed over with a note.

    Raises:
        InputError: the folder cannot be listed; says the `remedy`.
    """
    return [path for path in entries_of(folder, remedy) if wanted(path.name) and _is_file(path)]


def files_below(folder: Path, wanted: Wanted, remedy: str) -> list[Path]:
    """As `files_in`, of a folder and those below it; links to folders, which may lead round, are passed over too."""

    def fail(err: OSError) -> None:
        raise _unlisted(err.filename, err, remedy) from err

    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=fail):
        for link in filter(os.path.islink, (os.path.join(place, name) for name in folders)):
            _say_passed_over(link, "is a link to a folder")
        found += [path for name in names if wanted(name) and _is_file(path := Path(place, name))]
    return sorted(found)


def _unlisted(folder: StrPath, err: OSError, remedy: str) -> InputError:
    return InputError(f"{folder}: cannot be read ({err.strerror}): {remedy}")


def _is_file(path: Path) -> bool:
    if os.path.isfile(path):
        return True
    if not os.path.isdir(path):
        _say_passed_over(path, "is a pipe, or a link that leads nowhere, or the like")
    return False


def _say_passed_over(path: StrPath, why: str) -> None:
    print(f"note: {path}: {why}: passed over", file=sys.stderr, flush=True)
