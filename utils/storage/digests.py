"""A folder that was given away, checked against what was put into it: `digests.json`, the SHA-256 of each file."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from utils.basic_utils import InputError, progress
from utils.storage.whole_folder import file_digest, read_sealed, write_sealed

DIGESTS = "digests.json"
CARD = "README.md"  # of the folder, which may be edited afterwards and is read by people alone


def write_digests(folder: Path) -> None:
    """Write the sizes and digests of all files in a folder and below it but its card, in place of former ones."""
    without = (folder / DIGESTS, folder / CARD)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path not in without)
    found = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in progress(paths, "computing digests")
    }
    write_sealed(folder / DIGESTS, {"files": found})


def check_digests(folder: Path) -> list[str]:
    """The names of the files in a folder that were put into it, each of which is as it was.

    An `InputError` names the first that is not. Other files are not looked at.
    """
    listed = read_sealed(folder / DIGESTS, "give a folder or a repository that was published, and get it again").get(
        "files"
    )
    if not isinstance(listed, dict) or not all(map(_is_entry, listed, listed.values())):
        raise InputError(f"{folder / DIGESTS}: lists no files and digests: get it again")
    for name, said in progress(listed.items(), f"checking the files of {folder.name}", len(listed)):
        _check(folder / name, said)
    return list(listed)


def _is_entry(name: str, said: Any) -> bool:
    """Whether this is a file below the folder, with a size and a digest."""
    parts = PurePosixPath(name).parts
    inside = parts and ".." not in parts and not name.startswith("/") and "\0" not in name
    return bool(inside) and isinstance(said, dict) and said.keys() == {"bytes", "sha256"}


def _check(path: Path, said: dict[str, Any]) -> None:
    if not path.is_file():
        raise InputError(f"{path}: is missing: get the folder again")
    remedy = f"remove {os.path.realpath(path)} and get it again"
    if path.stat().st_size != said["bytes"]:
        raise InputError(f"{path}: has {path.stat().st_size} bytes, was published with {said['bytes']}: {remedy}")
    if file_digest(path) != said["sha256"]:
        raise InputError(f"{path}: is not as it was published (its SHA-256 is another): {remedy}")
