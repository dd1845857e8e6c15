"""A folder of videos as a corpus that can be searched without training, kept up to date."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from easydict import EasyDict

from method_tvr.config import parse_train_options
from method_tvr.options.models import ZERO_SHOT
from method_tvr.options.saved import FILES
from method_tvr.trained.untrained import make_untrained
from utils.basic_utils import InputError, read_json, write_json
from utils.own_corpus.layout import zero_shot_path
from utils.storage.folders import files_below

TAKEN_IN = "taken_in.json"  # what was there, and with which options, when all of it was extracted
EXTRACTED_BY = ("image_model", "frame_rate", "clip_length", "subtitles")  # options
READ_ONCE = {"feature_cache": "disk"}  # options: features are encoded, and then not needed any more
ELSEWHERE = ("device", "results_dir")  # of the model's options, what may differ without another model


class VideoCorpus:
    """See above.

    Args:
        videos: the folder of videos.
        out: the folder of all that is made of them.
        own: options of `search_videos`.
    """

    def __init__(self, videos: Path, out: Path, own: argparse.Namespace) -> None:
        if not videos.is_dir():
            raise InputError(f"{videos}: is no folder: give the one with the videos")
        if out.resolve() == videos.resolve():
            raise InputError(f"--out {out}: is the folder of the videos: name another")
        self._videos, self._out, self._own = videos, out, own
        self.model_dir = out / ZERO_SHOT

    def bring_up_to_date(self) -> list[str]:
        """Extract what is new or has changed, and make the model if it is not there as the options ask.

        Returns the options of a search by it that name the files. An `InputError` where extraction finds no video, or a
        model cannot be loaded.
        """
        there, path = self._what_is_there(), self._out / TAKEN_IN
        if not path.is_file() or read_json(path, "remove it, to have all looked at again") != there:
            with redirect_stdout(sys.stderr):  # which is for answers
                self._extract()
            write_json(there, path)
        opt = self._options()
        self._make_model(opt)
        named = {name: opt[name] for name in FILES if opt.get(name)} | READ_ONCE
        return [word for name, value in named.items() for word in (f"--{name}", str(value))]

    def _what_is_there(self) -> dict[str, Any]:
        """Names, sizes and times of all files, and the options that extraction depends on."""
        folders = {self._videos, *([Path(self._own.subtitles)] if self._own.subtitles else [])}
        files = [
            path
            for folder in sorted(folders)
            for path in files_below(folder, lambda name: not name.startswith("."), "give the folder with the videos")
            if not path.is_relative_to(self._out)
        ]
        stamps = {str(path): [(status := path.stat()).st_size, status.st_mtime_ns] for path in files}
        return {"files": stamps, "options": {name: getattr(self._own, name) for name in EXTRACTED_BY}}

    def _extract(self) -> None:
        # here: most searches have nothing to extract
        from utils.extract_features import make_dataset
        from utils.own_corpus.command_line import options
        from utils.own_corpus.unread_subtitles import subtitles_in

        own = self._own
        subtitles = own.subtitles or (str(self._videos) if subtitles_in(self._videos) else None)
        argv = ["--videos", str(self._videos), "--out", str(self._out), "--device", str(own.device)]
        argv += ["--image_model", own.image_model, "--text_model", own.image_model]
        argv += ["--frame_rate", str(own.frame_rate), "--clip_length", str(own.clip_length)]
        made = make_dataset(options(None, [*argv, *(["--subtitles", subtitles] if subtitles else [])]))
        for note in (*made.notes, *(f"{name}: is left out: {reason}" for name, reason in made.failed.items())):
            print(f"note: {note}", file=sys.stderr)
        taken = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in made.steps.seconds.items())
        print(f"{len(made.durations)} videos taken in: {taken}", file=sys.stderr)

    def _options(self) -> EasyDict:
        settings = str(zero_shot_path(self._out, self._out.name))
        given = {"dset_name": "custom", "exp_id": self._out.name, "settings": settings, **READ_ONCE}
        given |= {name: getattr(self._own, name) for name in ("sub_weight", "device")}
        return parse_train_options([word for name, value in given.items() for word in (f"--{name}", str(value))])

    def _make_model(self, opt: EasyDict) -> None:
        """Make the model's folder if it is not there, or not as the options and the corpus ask for."""
        path = self.model_dir / "opt.json"
        if path.is_file():
            saved: Any = read_json(path, f"remove {self.model_dir}, to have it made again")
            elsewhere = {name: saved.get(name) for name in ELSEWHERE}
            if saved == {**opt, **elsewhere}:
                return
        make_untrained(opt, self.model_dir, replace=True)
