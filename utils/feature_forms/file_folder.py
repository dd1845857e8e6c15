"""A folder with a file for each video or sentence, called as that, beside which other files and folders may lie."""

from __future__ import annotations

from pathlib import Path

from utils.basic_utils import InputError
from utils.feature_forms.source import ArraySource
from utils.storage.folders import files_in


class FileFolder(ArraySource):
    """Reading of `DIR/KEY.suffix`; `InputError` if there is none, or a key has two."""

    suffixes: tuple[str, ...] = ()

    def __init__(self, path: Path, dataset: str | None = None) -> None:
        super().__init__(path, dataset)
        files = files_in(path, lambda name: Path(name).suffix in self.suffixes, "check the path")
        if not files:
            raise InputError(f"{path}: has no {' or '.join(self.suffixes)} file: give the folder that has one a video")
        self._names: dict[str, str] = {}
        for file in files:
            if file.stem in self._names:
                raise InputError(f"{path}: has {self._names[file.stem]} and {file.name}: remove one of them")
            self._names[file.stem] = file.name

    def feature_keys(self) -> list[str]:
        """Names of the files without suffix, sorted."""
        return sorted(self._names)

    def name_of(self, key: str) -> str:
        """The file's name."""
        return self._names[key]
