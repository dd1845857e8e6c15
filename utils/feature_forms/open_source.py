"""Which form features are in, by what lies there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.feature_forms import bigfile_folder, lmdb_folder
from utils.feature_forms.bigfile_folder import BigFileFolder
from utils.feature_forms.lmdb_folder import LmdbFolder
from utils.feature_forms.npy_folder import NpyFolder
from utils.feature_forms.npz_folder import NpzFolder
from utils.feature_forms.source import FeatureSource
from utils.feature_forms.torch_files import TorchFile, TorchFolder
from utils.storage.folders import entries_of

# each form of folder by what is in it, a suffix or a name
_FOLDERS: dict[str, Callable[[Path, str | None], FeatureSource]] = {
    ".npy": lambda path, _: NpyFolder(path),
    ".npz": NpzFolder,
    ".pt": TorchFolder,
    lmdb_folder.FILE: LmdbFolder,
    bigfile_folder.FILE: lambda path, _: BigFileFolder(path),
}
_WITHOUT_DATASETS = (".npy", bigfile_folder.FILE)
_SAME = {".pth": ".pt"}


def open_source(path: Path, dataset: str | None = None) -> FeatureSource:
    """The features in a folder or file, to be closed by the caller.

    `dataset`: the array that is meant, where there are several beside each other. `InputError` where the form is not
    known, or there are two, or the file cannot be opened.
    """
    if path.is_dir():
        form = _form_of(path)
        if dataset and form in _WITHOUT_DATASETS:
            raise InputError(f"--dataset {dataset}: is not for {path}, a folder of {form} files: leave it out")
        return _FOLDERS[form](path, dataset)
    form = _named(path)
    if form in TorchFolder.suffixes and path.is_file():
        return TorchFile(path, dataset)
    if form in _FOLDERS and path.is_file():
        raise InputError(f"{path}: is one file of a folder of features: give the folder")
    return FeatureFile(path, dataset)


def _named(path: Path) -> str:
    """The form that a file belongs to by its name, if it is that of one."""
    return path.name if path.name in _FOLDERS else _SAME.get(path.suffix, path.suffix)


def forms_in(folder: Path) -> list[str]:
    """The forms of features that files in a folder belong to, each by a suffix or a name."""
    there = {_named(path) for path in entries_of(folder, "check the path") if path.is_file()}
    return [form for form in _FOLDERS if form in there]


def _form_of(folder: Path) -> str:
    forms = forms_in(folder)
    if len(forms) > 1:
        raise InputError(f"{folder}: holds {' and '.join(forms)} files, two forms of features: move one elsewhere")
    if not forms:
        others = ", ".join(list(_FOLDERS)[1:])
        raise InputError(f"{folder}: has no .npy file, nor one of {others}: give the folder that holds the features")
    return forms[0]
