"""What is kept of found moments besides what is printed: clips cut out of their videos, and a list of them."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from easydict import EasyDict

from method_tvr.ask.moments import Moment
from method_tvr.ask.moments_csv import Row, rows_of, write_moments
from utils.basic_utils import InputError, first_few, progress
from utils.cutting.clip import cut_clip
from utils.inventory.video_files import files_of_videos
from utils.inventory.video_folder import take_inventory
from utils.video_feature.decoding import check_decoder

MAX_NAME_BYTES = 150  # of a video's name in that of its clip, which may be 255 long


class Export:
    """Takes found moments as they come, and keeps them as the options say; nothing, if they do not.

    Args:
        opt: of `parse_inference_options`.
        several: whether there may be several sentences, which go into the names of clips then.

    Raises:
        InputError: the list is there already, the clips have no folder, or there is nothing to cut them with.
    """

    def __init__(self, opt: EasyDict, several: bool) -> None:
        self._folder = None if opt.save_clips is None else Path(opt.save_clips)
        self._videos, self._list = opt.videos, None if opt.csv is None else Path(opt.csv)
        self._several = several
        self._n_sentences, self._n_moments, self._n_saved = 0, 0, 0
        self._files: dict[str, Path] | None = None  # of the videos, once they are known
        self._rows: list[Row] = []
        self._lacking: dict[str, int] = {}  # why moments have no clip: of how many
        if self._list is not None and self._list.exists():
            raise InputError(f"--csv {self._list}: is there already: move it away, or name another file")
        if self._folder is not None:
            check_decoder()
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as err:
                raise InputError(f"--save_clips {self._folder}: cannot be made ({err.strerror}): name another") from err

    def add(self, sentences: Sequence[str], found: Sequence[Sequence[Moment]], vid_names: Iterable[str]) -> None:
        """Keep what was found for some sentences among the videos of these names, always the same."""
        if self._folder is None and self._list is None:
            return
        if self._folder is not None and self._files is None:
            self._files = files_of_videos(self._videos, vid_names)
        for sentence, moments in zip(sentences, found, strict=True):
            self._n_sentences += 1
            self._n_moments += len(moments)
            self._rows += rows_of(sentence, moments, self._cut(moments))

    def finish(self) -> None:
        """Write the list, and say what has no clip.

        Raises:
            InputError: no moment has one, or the list cannot be written.
        """
        if self._list is not None:
            write_moments(self._rows, self._list)
            _say(f"{len(self._rows)} moments listed in {self._list}")
        if self._folder is None:
            return
        for why, n in self._lacking.items():
            _say(f"no clip of {n} moment{'s' * (n > 1)}: {why}")
        if self._n_moments and not self._n_saved:
            raise InputError(f"--save_clips {self._folder}: none of {self._n_moments} moments could be cut, see above")
        _say(f"clips of {self._n_saved} of {self._n_moments} moments are in {self._folder}")

    def _cut(self, moments: Sequence[Moment]) -> list[Path | None]:
        """Where the clips of a sentence's moments are, None of those that cannot be cut, which is said."""
        folder, files = self._folder, self._files
        if folder is None or files is None:
            return [None] * len(moments)
        clips: list[Path | None] = []
        number = f"{self._n_sentences}-" if self._several else ""
        width = len(str(len(moments)))
        for rank, moment in enumerate(progress(moments, "cutting clips"), start=1):
            stem = folder / f"{number}{rank:0{width}d}_{clip_name(moment)}"
            try:
                clip = cut_clip(self._file(moment.vid_name, files), moment.start, moment.end, stem)
            except InputError as err:
                _say(f"skipped: {err}")
                self._lacking[str(err)] = self._lacking.get(str(err), 0) + 1
                clips.append(None)
            else:
                _say(f"{clip.path}: {clip.how}")
                self._n_saved += 1
                clips.append(clip.path)
        return clips

    def _file(self, vid_name: str, files: dict[str, Path]) -> Path:
        path = files.get(vid_name) or self._of_frames.get(vid_name)
        if path is None:
            what = f"holds no file of {first_few([vid_name])}"
            raise InputError(f"--videos {self._videos}: {what}: add it, or name the folder that it is in")
        return path

    @cached_property
    def _of_frames(self) -> dict[str, Path]:
        """Videos that are folders of pictures; looked for once a file is missing."""
        return {name: path for name, path in take_inventory(self._videos).taken.items() if path.is_dir()}


def clip_name(moment: Moment) -> str:
    """Such as `NAME_12.00-19.50`, safe as a part of a file's name on all systems."""
    letters = unicodedata.normalize("NFC", moment.vid_name)
    name = "".join(letter if _is_safe(letter) else "_" for letter in letters)
    return f"{name.encode()[:MAX_NAME_BYTES].decode(errors='ignore')}_{moment.start:.2f}-{moment.end:.2f}"


def _is_safe(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "LMN" or letter in "-_.+()"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
