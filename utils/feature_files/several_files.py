"""Feature files that are read as one, such as one a show, as they are published."""

from __future__ import annotations

from collections.abc import Sequence

from utils.basic_utils import InputError
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


def file_of_each(files: Sequence[FeatureFile]) -> dict[str, FeatureFile]:
    """The file that has each video; an `InputError` if two have one."""
    file_of: dict[str, FeatureFile] = {}
    for file in files:
        for name in file.feature_keys():
            if name in file_of:
                raise InputError(f"{file.path}: {name} is in {file_of[name].path} too: give each video once")
            file_of[name] = file
    return file_of
