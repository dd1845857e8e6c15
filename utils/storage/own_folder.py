"""Whether files are the user's own: only then may they go to libraries that read without defending themselves."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from utils.asking_user import agreed
from utils.basic_utils import InputError


def refuse_unless_own(folder: Path, opened: Sequence[Path | int], option: str = "--trust_index") -> None:
    """Refuse a folder that others may have written to, unless the user at the terminal trusts it.

    Args:
        folder: what is asked about.
        opened: it and its files, as paths, of which links are followed, or as handles.
        option: what trusts it, for the error.
    """
    why = others_hand(opened)
    if why is None:
        return
    danger = f"{folder}: {why}, and a file made to do harm could run code here"
    yes = agreed(f"{danger}.", f"Use {folder}? [y/N] ")
    if not yes:
        raise InputError(f"{danger}: give {option} if you trust whoever can write there, or remove the folder")


def others_hand(opened: Sequence[Path | int]) -> str | None:
    """How somebody else may have written one of some files or folders; None where all are the user's own."""
    return next(filter(None, map(_others_hand, opened)), None)


def _others_hand(file: Path | int) -> str | None:
    status = os.stat(file)
    if status.st_uid != os.geteuid():
        return f"belongs to another user (number {status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written to by other users"
    return None
