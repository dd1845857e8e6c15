"""Extraction of features that can be stopped at any moment and continued.

    with Extraction("video.h5", {"model": "resnet152", "frame_rate": 3.0}) as features:
        for name, path in videos.items():
            if features.done(name, file_stamp(path)):
                continue
            try:
                features.put(name, {name: encode(path)}, file_stamp(path))
            except InputError as err:
                features.failed(name, str(err))

What has been put is kept in a folder beside the output, `video.h5.partial`, and survives a kill; only the item in
progress is lost. When the block ends well, everything goes into `video.h5`, which appears whole, and the folder is
removed. Starting again after that extracts what failed, what is new and what has changed, and nothing else. What other
processes have extracted into files of their own, `parts`, counts as done, and is copied from there.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from utils.basic_utils import InputError, StrPath, first_few, is_name, named_when_full, read_json, write_json
from utils.dataset_files import FOLDER_SUFFIX
from utils.feature_files.feature_file import FeatureError, FeatureFile, new_feature_file
from utils.feature_files.item_log import Item, ItemLog
from utils.storage.whole_folder import lock

RECIPE, ITEMS = "recipe.json", "items"
ATTRIBUTE = "extraction"  # of the finished file: recipe, items and failures as JSON
H5_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # what every h5 file begins with

_UNREADABLE = "unreadable"  # source of what stands in the folder for a damaged item of the earlier file

Scalar = str | int | float | bool


def file_stamp(path: StrPath) -> str:
    """What tells whether a file, which has to be there, has changed: its size and time; of a folder, its files'."""
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name) if os.path.isdir(path) else [Path(path)]
        stats = [entry.stat() for entry in entries]
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror}): check the path") from err
    size, changed = sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
    return f"{len(stats)} {size} {changed}"


@dataclass(frozen=True)
class _Kept:
    """What a finished file says of one item."""

    file: FeatureFile
    keys: list[str]
    source: str
    about: dict[str, Any]


class Extraction:
    """A feature file in the making; a context manager.

    Only items that this run asks for (by `done`, `put` or `failed`) are in the file at the end.

    Args:
        out_h5: the feature file. One process at a time can work on it.
        recipe: all that decides the values, such as model, layer and frame rate: strings and numbers. What was
            extracted with another recipe is discarded, with a note.
        attributes: of the finished file, see `utils.feature_files.provenance`; the recipe if None.
        parts: finished files of other extractions; items of the same recipe in them are done. They stay as they are.

    Raises:
        InputError: another process is extracting into it, the folder beside it is something else, or nothing can be
            written there.
    """

    def __init__(
        self,
        out_h5: StrPath,
        recipe: Mapping[str, Scalar],
        attributes: Mapping[str, Scalar] | None = None,
        parts: Sequence[StrPath] = (),
    ) -> None:
        self.path = Path(out_h5)
        self.folder = self.path.with_name(self.path.name + FOLDER_SUFFIX)
        self.failures: dict[str, str] = {}  # {name: reason} of this run
        self._recipe: dict[str, Any] = orjson.loads(orjson.dumps(dict(recipe)))  # as it is read back
        self._attributes = dict(recipe if attributes is None else attributes)
        self._asked: dict[str, str] = {}
        self._parts = [Path(path) for path in parts]
        self._kept: dict[str, _Kept] = {}  # of finished files, those that are not damaged
        self._in_parts: dict[str, list[_Kept]] = {}

    def __enter__(self) -> Extraction:
        with ExitStack() as opened:
            opened.enter_context(_locked(self.folder, self.path))
            self._discard_other_recipe()
            self._finished = self._earlier_file(opened)
            self._earlier, self._in_file = dict(self._kept), sorted(self._kept)
            self._open_parts(opened)
            self._log = ItemLog(self.folder / ITEMS)
            self._opened = opened.pop_all()
        self._tell_what_is_there()
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        with self._opened:
            try:
                if kind is None:
                    self._finish()
            finally:
                self._log.close()
            if kind is None:
                shutil.rmtree(self.folder)
            elif self._log.items:
                _note(f"{self.folder}: keeps the {len(self._log.items)} done; the same command goes on from there")

    def done(self, name: str, source: str = "") -> bool:
        """Whether an item has been extracted from the same `source`, in this run or an earlier one.

        A source is what an item is made from, such as `file_stamp` of its video. One that has changed is not done.
        """
        self._asked[name] = source
        self._forget_damaged(name)
        self._take_from_part(name, source)
        theirs = self._source_of(name)
        if theirs not in {None, source}:
            _note(f"{name}: has changed since it was extracted, which is done anew")
        return theirs == source

    def about(self, name: str) -> dict[str, Any]:
        """What was kept with an item that is done."""
        return self._item(name).about

    def put(
        self, name: str, arrays: Mapping[str, np.ndarray], source: str = "", about: Mapping[str, Scalar] | None = None
    ) -> None:
        """Keep an item; when this returns, no kill takes it away.

        Args:
            arrays: numbers of any shape by their key in the file, which is the name or begins with it.
            source: as for `done`.
            about: plain values to keep with it, such as a duration.

        Raises:
            InputError: no key of a feature file can be called that, or there is no room.
        """
        for key in arrays:
            if not key.startswith(name) or not name or "/" in key or key in {".", ".."} or not is_name(key):
                raise InputError(f"{key!r}: cannot be a name in a feature file: rename it, without '/'")
        self._asked[name] = source
        self.failures.pop(name, None)
        self._log.append(name, arrays, source, about or {})

    def failed(self, name: str, reason: str) -> None:
        """Record why an item cannot be extracted. It is absent from the file, and tried again on the next start."""
        self._asked.setdefault(name, "")
        self.failures[name] = reason

    def _item(self, name: str) -> Item | _Kept:
        return self._log.items.get(name) or self._kept[name]

    def _source_of(self, name: str) -> str | None:
        if name in self.failures or not (name in self._log.items or name in self._kept):
            return None
        source = self._item(name).source
        return None if source == _UNREADABLE else source

    def _forget_damaged(self, name: str) -> None:
        """Forget an item of a finished file that is not there, or damaged in what the file says of it.

        Its values, of which there may be many gigabytes, are not read.
        """
        if name in self._log.items or name not in self._kept:
            return
        try:
            for key in self._kept[name].keys:
                self._kept[name].file.check_numbers(key)
        except InputError as err:
            _note(f"{err}; {name} is extracted anew")
            del self._kept[name]

    def _take_from_part(self, name: str, source: str) -> None:
        """Keep the item of a part if it is of this source, and no other is."""
        if name in self._log.items or (name in self._kept and self._kept[name].source == source):
            return
        for item in self._in_parts.get(name, []):
            if item.source == source:
                self._kept[name] = item
                self._forget_damaged(name)
                if name in self._kept:
                    return

    def _discard_other_recipe(self) -> None:
        """Begin the folder, or empty it when what it holds was made in another way."""
        path = self.folder / RECIPE
        if path.exists():
            theirs = read_json(path)
            if theirs == self._recipe:
                return
            _note(f"{self.folder}: starts anew, what is there was made with {_differences(self._recipe, theirs)}")
            for path_of_items in self.folder.glob(f"{ITEMS}*"):
                path_of_items.unlink()
        elif any(not entry.name.startswith(".") for entry in self.folder.iterdir()):
            raise InputError(f"{self.folder}: is not what an extraction left: move it away, or name another output")
        write_json(self._recipe, path)

    def _earlier_file(self, opened: ExitStack) -> FeatureFile | None:
        """The output of an earlier run; its items are kept if they are of this recipe.

        `InputError` for any other file, which would be lost; one of ours may be damaged.
        """
        if not self.path.exists():
            return None
        foreign = InputError(f"{self.path}: is there, and is not what an extraction wrote: name another output")
        try:
            finished = opened.enter_context(FeatureFile(self.path))
            attributes = finished.made_by()
        except InputError as err:
            if not self.path.is_file() or not _begins_as_h5(self.path):
                raise foreign from err
            _note(f"{err} It will be replaced.")
            return None
        if ATTRIBUTE not in attributes:
            raise foreign
        self._kept = self._items_of(finished) or {}
        return finished

    def _items_of(self, file: FeatureFile) -> dict[str, _Kept] | None:
        """The items of a finished file; None where they are of another recipe, or what it says of them is damaged."""
        try:
            content = orjson.loads(file.made_by()[ATTRIBUTE])
            if content.get("recipe") == self._recipe:
                return {name: _Kept(file, **item) for name, item in content["items"].items()}
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            pass  # they are extracted anew
        return None

    def _open_parts(self, opened: ExitStack) -> None:
        """Find what is in the parts; what cannot be used is said."""
        for path in self._parts:
            try:
                items = self._items_of(opened.enter_context(FeatureFile(path)))
            except InputError as err:
                _note(f"{err} It is not used, and what was in it is extracted anew.")
                continue
            if items is None:
                _note(f"{path}: was made in another way, and is not used")
                continue
            for name, item in items.items():
                self._in_parts.setdefault(name, []).append(item)

    def _tell_what_is_there(self) -> None:
        if self._log.was_cut:
            _note(f"{self.folder}: the item that was in progress when the last run stopped is extracted anew")
        if self._log.damaged:
            _note(f"{self.folder}: damaged, extracted anew: {first_few(self._log.damaged)}")
        if self._log.items:
            _note(f"{self.folder}: goes on, {len(self._log.items)} are done")
        elif self._in_file:
            _note(f"{self.path}: is there with {len(self._in_file)} items; only what is missing or new is extracted")
        elif self._finished is not None:
            _note(f"{self.path}: was made in another way, and will be replaced")

    def _finish(self) -> None:
        """Put all items into the feature file, unless it holds just these already."""
        names = sorted(name for name, source in self._asked.items() if self._source_of(name) == source)
        is_there = names == self._in_file and all(self._item(name) is self._earlier.get(name) for name in names)
        if not names or is_there:
            return
        if dropped := sorted(set(self._in_file) - self._asked.keys()):
            _note(f"{self.path}: leaves out what this run was not asked for: {first_few(dropped)}")
        in_order = {name: self._item(name) for name in names}
        items = {
            name: {"keys": item.keys, "source": item.source, "about": item.about} for name, item in in_order.items()
        }
        keys = Counter(key for item in in_order.values() for key in item.keys)
        if twice := [key for key, count in keys.items() if count > 1]:
            raise InputError(
                f"{self.path}: two items have a key {twice[0]}: rename one, and run the same command again"
            )
        record = {"recipe": self._recipe, "items": items, "failed": self.failures}
        about = {**self._attributes, ATTRIBUTE: orjson.dumps(record).decode()}
        with named_when_full(self.path), new_feature_file(self.path, **about) as h5:
            for key, array in self._arrays(names):
                h5.put(key, array)

    def _arrays(self, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
        for name in names:
            if name in self._log.items:
                arrays = self._log.read(name)
                if arrays is None:
                    raise InputError(f"{self.folder}: what it holds of {name} is damaged: run the same command again")
                yield from arrays.items()
                continue
            try:
                yield from self._kept_arrays(name)
            except FeatureError as err:
                self._give_up_unreadable(names)
                raise InputError(f"{err}: run the same command again, {name} is then extracted anew") from err

    def _kept_arrays(self, name: str) -> Iterator[tuple[str, np.ndarray]]:
        for key in self._kept[name].keys:
            yield key, self._kept[name].file.numbers(key)

    def _give_up_unreadable(self, names: list[str]) -> None:
        """Make the next run extract those anew whose values in a finished file cannot be read."""
        for name in names:
            if name not in self._log.items:
                try:
                    for _ in self._kept_arrays(name):
                        pass
                except FeatureError:
                    self._log.append(name, {}, _UNREADABLE, {})


@contextmanager
def _locked(folder: Path, out_h5: Path) -> Iterator[None]:
    """Make the folder if need be, and keep other processes out of it."""
    busy = InputError(f"{out_h5}: another process is extracting into it: wait until it ends")
    with ExitStack() as opened:
        is_there = False
        while not is_there:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except OSError as err:
                raise InputError(f"{out_h5}: cannot be written ({err.strerror}): name another file") from err
            opened.callback(os.close, handle)
            lock(handle, folder, busy, no_locks="let no other process extract into it")
            # not so when the process that had it has just removed it
            is_there = folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat())
        yield


def _differences(ours: Mapping[str, Any], theirs: Any) -> str:
    if not isinstance(theirs, dict):
        return "another recipe"
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    return ", ".join(f"{name} {theirs.get(name, 'unset')} (now {ours.get(name, 'unset')})" for name in names)


def _begins_as_h5(path: Path) -> bool:
    """Whether a file may be an h5 file that was cut short, even to nothing."""
    with open(path, "rb") as file:
        start = file.read(len(H5_SIGNATURE))
    return H5_SIGNATURE.startswith(start)


def _note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr, flush=True)
