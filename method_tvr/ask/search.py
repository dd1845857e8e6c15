"""Search the videos of a split in words: a table of moments for each sentence, JSON, or a prompt that asks for more.

python method_tvr/ask/search.py --model_dir MODEL_DIR [SENTENCE …] [any option]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.config import OPTIONS, SEARCH, typed
from utils.basic_utils import parse_first

if __name__ == "__main__":
    parse_first(typed, OPTIONS, SEARCH)

import orjson
from easydict import EasyDict

from method_tvr.ask.export import Export
from method_tvr.ask.moments import (
    QUERY,
    QUERY_IMAGE,
    Answer,
    answer_json,
    moments_table,
    shortened,
    show_any_language,
)
from method_tvr.ask.picture_models import require_compares_pictures
from method_tvr.ask.questions import check_asked
from method_tvr.ask.searcher import MomentSearcher, measure_index, open_searcher, shown_nms_thd
from method_tvr.config import SEARCH_MEMORY, parse_inference_options
from method_tvr.trained.trained_model import open_model
from utils.basic_utils import InputError, command_line
from utils.model_utils import named_when_out_of_memory
from utils.video_feature.joint.asked_pictures import check_picture

HELP = "a sentence | :video NAME | :show NAME | :all | :top N | :help | :quit (or Ctrl-D)"
HISTORY_LENGTH = 1000


@dataclass(frozen=True)
class Form:
    """How answers are printed."""

    as_json: bool  # for programs: one line of JSON for each sentence; else tables
    with_scores: bool = False  # in tables
    nms_thd: float | None = None  # see `MomentSearcher.search`

    @classmethod
    def of(cls, opt: EasyDict) -> Form:
        """The form that options name: what people see has no overlapping moments unless they ask for them."""
        return cls(opt.json, opt.scores, None if opt.json else shown_nms_thd(opt))

    def show(self, asked: Sequence[str], found: Sequence[Answer], key: str = QUERY) -> None:
        """Print answers to sentences, or to pictures of these names: `key` is `QUERY_IMAGE` then."""
        for one, answer in zip(asked, found, strict=True):
            if self.as_json:
                print(orjson.dumps(answer_json(one, answer, key)).decode())
            else:
                print(f"\n{shortened(one)}\n{moments_table(answer, self.with_scores)}")


class Prompt:
    """Asks for sentences until there are no more.

    Args:
        searcher: answers them.
        top_k, video, show: as the command line says, until a line that begins with a colon changes them.
        form: of the answers.
        read: reads a line.
        export: keeps the answers.
    """

    def __init__(
        self,
        searcher: MomentSearcher,
        top_k: int,
        video: str | None,
        show: str | None,
        form: Form,
        read: Callable[[str], str] = input,
        export: Export | None = None,
    ) -> None:
        self._searcher, self._form, self._read, self._export = searcher, form, read, export
        self.top_k, self.video, self.show = top_k, video, show

    def run(self) -> None:
        """Answer lines until the last; what is wrong with one is said, and the next is asked for."""
        print(f"{len(self._searcher.videos)} videos. {HELP}", file=sys.stderr)
        while True:
            try:
                line = self._read("> ").strip()
            except (EOFError, KeyboardInterrupt):
                print(file=sys.stderr)
                return
            except UnicodeDecodeError as err:
                raise InputError(f"what is asked is not UTF-8 text ({err.reason}): write it as such") from err
            if line in (":q", ":quit", ":exit"):
                return
            try:
                if line.startswith(":"):
                    self._change(*line[1:].split(maxsplit=1))
                elif line:
                    with redirect_stdout(sys.stderr):  # progress
                        found = self._searcher.search(line, self.top_k, self.video, self.show, self._form.nms_thd)
                    self._form.show([line], [found])
                    if self._export is not None:
                        self._export.add([line], [found], names_of(self._searcher))
            except InputError as err:
                print(f"error: {err}", file=sys.stderr)

    def _change(self, what: str = "help", value: str = "") -> None:
        if what == "top" and value.isdecimal() and int(value) > 0:
            self.top_k = int(value)
        elif what in ("video", "show") and value:
            self.video, self.show = (value, None) if what == "video" else (None, value)
        elif what == "all":
            self.video = self.show = None
        else:
            print(HELP, file=sys.stderr)


def names_of(searcher: MomentSearcher) -> list[str]:
    """What the videos are called that are searched."""
    return [video.vid_name for video in searcher.videos]


def use_history() -> None:
    """Arrow keys bring back what was asked, today and before, where the terminal allows it."""
    try:
        import atexit
        import readline
    except ImportError:  # Python was built without it
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = state / "reloclnet" / "search_history"
    readline.set_history_length(HISTORY_LENGTH)
    with suppress(OSError):  # none yet, or none can be kept: the prompt works without
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.read_history_file(path)
        atexit.register(readline.write_history_file, path)


def _answer(opt: EasyDict, searcher: MomentSearcher, form: Form, export: Export) -> None:
    """Print and keep what is found for the sentences and pictures that were typed."""
    pictures, where = opt.query_image or [], (opt.top_k, opt.video, opt.show, form.nms_thd)
    with redirect_stdout(sys.stderr):  # progress
        for_sentences = searcher.search(opt.sentences, *where)
        for_pictures = searcher.search_pictures(pictures, *where)
    form.show(opt.sentences, for_sentences)
    form.show(pictures, for_pictures, QUERY_IMAGE)
    export.add([*opt.sentences, *pictures], [*for_sentences, *for_pictures], names_of(searcher))


def run(opt: EasyDict) -> None:
    """Answer the sentences and pictures that were typed, or ask for sentences."""
    if opt.measure_index is not None:
        with redirect_stdout(sys.stderr):
            recall = measure_index(opt)
        print(recall)
        return
    check_asked(opt.sentences)  # before anything is loaded
    pictures = opt.query_image or []
    for picture in pictures:
        check_picture(picture)
    export = Export(opt, several=len(opt.sentences) + len(pictures) != 1)
    with redirect_stdout(sys.stderr):  # which is for answers
        trained = open_model(opt) if pictures else None
        if trained is not None:  # before videos are encoded
            require_compares_pictures(trained, pictures[0])
        searcher = open_searcher(opt, trained)
    show_any_language()
    form = Form.of(opt)
    if opt.sentences or pictures:
        _answer(opt, searcher, form, export)
    else:
        if sys.stdin.isatty():
            use_history()
        Prompt(searcher, opt.top_k, opt.video, opt.show, form, export=export).run()
    if searcher.proofs is not None:
        advice = "" if searcher.proofs.all_proved else "--prove looks further until all are"
        searcher.note("; ".join(filter(None, (str(searcher.proofs), advice, searcher.index_said()))))
    export.finish()


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    opt = parse_inference_options(argv, SEARCH)
    if opt.query_file is not None or opt.query is not None:
        raise InputError("--query and --query_file are inference.sh's: write the sentences after the model's folder")
    with named_when_out_of_memory(opt, SEARCH_MEMORY):
        run(opt)


if __name__ == "__main__":
    main()
