"""Feature files that are read as one, such as one a show, as they are published, or joined row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from utils.basic_utils import InputError, StrPath
from utils.feature_files.feature_file import FeatureFile
from utils.feature_files.provenance import contradictions


def refuse_different(files: Sequence[FeatureFile]) -> None:
    """Refuse files of different makings."""
    first, *others = files
    for other in others:
        for name, here, there in contradictions(first.made_by(), other.made_by()):
            raise InputError(
                f"{other.path}: its {name} is {there}, that of {first.path} is {here}: extract all in one way"
            )


def refuse_other_clip_length(
    first: StrPath, its_record: Mapping[str, Any], other: StrPath, others_record: Mapping[str, Any]
) -> None:
    """Refuse features that are to be joined row by row, and were made with clips of different lengths."""
    for name, here, there in contradictions(its_record, others_record):
        if name == "clip_length":
            raise InputError(f"{other}: has clips of {there} s, {first} of {here} s: make both with one length")


def file_of_each(files: Sequence[FeatureFile]) -> dict[str, FeatureFile]:
    """The file that has each video; an `InputError` if two have one."""
    file_of: dict[str, FeatureFile] = {}
    for file in files:
        for name in file.feature_keys():
            if name in file_of:
                raise InputError(f"{file.path}: {name} is in {file_of[name].path} too: give each video once")
            file_of[name] = file
    return file_of
