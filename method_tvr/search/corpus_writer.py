"""Adding videos to an encoded corpus on disk, part by part; see `corpus_store` for what is written."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from method_tvr.dataset.annotations import Video
from method_tvr.search.corpus import row_norms
from method_tvr.search.corpus_store import (
    DESCRIPTION,
    INDEX,
    NORMS,
    PART_PREFIX,
    ROWS,
    CorpusRecipe,
    CorpusStore,
    Stamps,
    part_folders,
    read_recipe,
    recipe_seal,
    write_recipe,
    write_seen,
)
from standalone_eval.files.parts import part_folder
from utils.basic_utils import InputError
from utils.storage.whole_folder import lock, lock_file, npy_header, put_in_place, remove_left_over, write_sealed

PART_BYTES = 1 << 28  # of rows in a part, about: they are in memory until the part is written
UNFINISHED = f".{PART_PREFIX}"


class CorpusWriter:
    """Adds videos to a corpus; see `adding_to`."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self.store = CorpusStore(folder)  # as it was before
        self._part_bytes = part_bytes
        self._dtype = getattr(torch, self.store.recipe.dtype)
        numbers = [int(part.folder.name.removeprefix(PART_PREFIX)) for part in self.store.parts]
        self._next_number = max(numbers, default=-1) + 1
        self._added: set[str] = set()
        # for the next part, with clips, rows and digests of features
        self._waiting: list[tuple[Video, int, torch.Tensor, Mapping[str, str] | None]] = []
        self._bytes = 0
        self.stamps: Stamps = {}  # of the feature files that videos are added from

    def add(self, video: Video, n_clips: int, rows: torch.Tensor, features: Mapping[str, str] | None = None) -> None:
        """Add a video of `n_clips`.

        Args:
            rows: (R, M, D) float32 encodings of its clips and of the padding after them, on any device; of a video
                that was cut, those of its windows one after another.
            features: {modality: `rows_digest` of what was encoded}; None where that is not known, of no video then.

        Raises:
            InputError: it is there already, its encodings are not finite, or nothing can be written.
        """
        if video.vid_name in self.store.where or video.vid_name in self._added:
            raise InputError(f"{self.store.folder}: video {video.vid_name} is in the corpus already")
        kept = rows.to("cpu", self._dtype, copy=True)
        if not torch.isfinite(kept).all():
            remedy = "keep it in fp32" if torch.isfinite(rows).all() else "check the video's features"
            raise InputError(
                f"{video.vid_name}: its encodings are not finite numbers in {self.store.recipe.dtype}: {remedy}"
            )
        self._added.add(video.vid_name)
        self._waiting.append((video, n_clips, kept, features))
        self._bytes += kept.nbytes
        if self._bytes >= self._part_bytes:
            self.finish_part()

    def finish_part(self) -> None:
        """Write what has been added since the last part as a part of its own."""
        if not self._waiting:
            return
        folder = self.store.folder
        try:
            with part_folder(folder, UNFINISHED) as unfinished:
                self._write_part(unfinished)
                put_in_place(unfinished, folder / f"{PART_PREFIX}{self._next_number:05d}")
        except OSError as err:
            raise InputError(
                f"{folder}: cannot be written ({err.strerror or err}): the parts before are whole: "
                "make room and run the same command again, which encodes the videos that are missing"
            ) from err
        self._next_number += 1
        self._waiting, self._bytes = [], 0

    def _write_part(self, folder: Path) -> None:
        in_order = sorted(self._waiting, key=lambda added: (added[1], len(added[2])))
        videos, n_clips, all_rows, features = zip(*in_order, strict=True)
        norms = torch.cat([row_norms(rows) for rows in all_rows]).t().contiguous()
        shape = (norms.shape[1], *all_rows[0].shape[1:])
        content = {
            "corpus": recipe_seal(self.store.recipe),
            "names": [video.vid_name for video in videos],
            "durations": [video.duration for video in videos],
            "n_clips": n_clips,
            "n_rows": [len(rows) for rows in all_rows],
            "files": {
                ROWS: _write_array(folder / ROWS, shape, self.store.recipe.dtype, (rows.numpy() for rows in all_rows)),
                NORMS: _write_array(folder / NORMS, tuple(norms.shape), "float32", [norms.numpy()]),
            },
        }
        if None not in features:
            content["features"] = {m: [of[m] for of in features] for m in self.store.recipe.modalities}
            write_seen(folder, self.stamps)
        write_sealed(folder / INDEX, content)


def _write_array(path: Path, shape: Sequence[int], dtype: str, chunks: Iterable[np.ndarray]) -> dict[str, Any]:
    """Write an npy file of consecutive chunks; returns its size and digest."""
    digest = hashlib.sha256()
    with open(path, "wb") as out:
        for chunk in chain([np.frombuffer(npy_header(shape, dtype), np.uint8)], chunks):
            data = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
            out.write(data)
            digest.update(data)
        return {"bytes": out.tell(), "sha256": digest.hexdigest()}


@contextmanager
def adding_to(
    folder: str | os.PathLike[str],
    recipe: CorpusRecipe,
    part_bytes: int = PART_BYTES,
    outdated: Callable[[CorpusStore], Iterable[Path]] | None = None,
) -> Iterator[CorpusWriter]:
    """Add videos to a corpus, which is begun when there is none.

    A part is written whenever its rows are enough, and the last one when the block ends well. Whatever happens, the
    parts that have been written stay, and whole.

    Args:
        recipe: what the videos are encoded with; that of the corpus must be the same.
        part_bytes: size of a part's rows, about; memory grows with it.
        outdated: names the folders of parts that are to go first; what another model encoded goes then as well. None
            leaves all of them.

    Raises:
        InputError: the folder holds something else, was made in another way, is damaged, or is being added to.
    """
    path, opened = Path(folder), ExitStack()
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / DESCRIPTION).exists() and any(not other.name.startswith(".") for other in path.iterdir()):
            raise InputError(f"{path}: is not empty and no encoded corpus: name a new folder")
        handle = opened.enter_context(lock_file(path))
    except OSError as err:
        raise InputError(f"{path}: no corpus can be written there ({err.strerror}): name another folder") from err
    with opened:
        busy = InputError(f"{path}: another run is adding videos: wait until it has ended")
        lock(handle, path, busy, no_locks="let no other run add to it")
        if not (path / DESCRIPTION).exists():
            write_recipe(path, recipe)
        elif outdated is not None:
            _remove_outdated(path, recipe, outdated)
        writer = CorpusWriter(path, part_bytes)
        writer.store.recipe.check_same(recipe, path)
        remove_left_over(path, UNFINISHED)
        yield writer
        writer.finish_part()


def _remove_outdated(folder: Path, recipe: CorpusRecipe, outdated: Callable[[CorpusStore], Iterable[Path]]) -> None:
    """Remove the parts that are `outdated`, or, of another model, all, so that their videos are encoded again."""
    found = read_recipe(folder)
    if found.same_model(recipe):
        found.check_same(recipe, folder)
        parts = list(outdated(CorpusStore(folder)))
    else:
        print(f"note: {folder}: was encoded by what the model was before: encoding again", file=sys.stderr)
        parts = part_folders(folder)
    try:
        for part in parts:
            with part_folder(folder, UNFINISHED) as removed:  # half a part is never there
                os.rename(part, removed)
    except OSError as err:
        raise InputError(f"{folder}: its outdated parts cannot be removed ({err.strerror}): remove it by hand") from err
    if not found.same_model(recipe):
        write_recipe(folder, recipe)
