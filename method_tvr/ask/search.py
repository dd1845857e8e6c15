"""Search the videos of a split in words: a table of moments for each sentence, JSON, or a prompt that asks for more.

python method_tvr/ask/search.py --model_dir MODEL_DIR [SENTENCE …] [any option]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path

import orjson
from easydict import EasyDict

from method_tvr.ask.asking import clock, shortened, show_any_language
from method_tvr.ask.searcher import MomentSearcher, ScoredMoment, measure_index, open_searcher
from method_tvr.config import SEARCH_MEMORY, parse_search_options
from utils.basic_utils import InputError, command_line
from utils.model_utils import named_when_out_of_memory
from utils.tables import aligned

HELP = "a sentence | :video NAME | :show NAME | :all | :top N | :help | :quit (or Ctrl-D)"
HISTORY_LENGTH = 1000


def table(moments: Sequence[ScoredMoment]) -> str:
    """Moments as lines of text: times, score, and what the score is made of."""
    if not moments:
        return "  no video is long enough for a moment"
    modalities = list(moments[0].match)
    rows = [["rank", "video", "start", "end", "score", *(f"{m} match" for m in modalities), "p(start)", "p(end)"]]
    for rank, moment in enumerate(moments, start=1):
        parts = [f"{moment.match[m]:.3f}" for m in modalities]
        times = [clock(moment.start), clock(moment.end)]
        chances = [f"{moment.p_start:.3f}", f"{moment.p_end:.3f}"]
        rows.append([str(rank), shortened(moment.vid_name), *times, f"{moment.score:.4g}", *parts, *chances])
    return aligned(rows)


def print_found(sentences: Sequence[str], found: Sequence[Sequence[ScoredMoment]], as_json: bool) -> None:
    """Print answers: tables, or one line of JSON for each sentence."""
    for sentence, moments in zip(sentences, found, strict=True):
        if as_json:
            print(orjson.dumps({"query": sentence, "moments": [asdict(moment) for moment in moments]}).decode())
        else:
            print(f"\n{shortened(sentence)}\n{table(moments)}")


class Prompt:
    """Asks for sentences until there are no more.

    Args:
        searcher: answers them.
        top_k, video, show, as_json: as the command line says, until a line that begins with a colon changes them.
        read: reads a line.
    """

    def __init__(
        self,
        searcher: MomentSearcher,
        top_k: int,
        video: str | None,
        show: str | None,
        as_json: bool,
        read: Callable[[str], str] = input,
    ) -> None:
        self._searcher, self._as_json, self._read = searcher, as_json, read
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
            if line in (":q", ":quit", ":exit"):
                return
            try:
                if line.startswith(":"):
                    self._change(*line[1:].split(maxsplit=1))
                elif line:
                    with redirect_stdout(sys.stderr):  # progress
                        found = self._searcher.search(line, self.top_k, self.video, self.show)
                    print_found([line], [found], self._as_json)
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


def run(opt: EasyDict) -> None:
    """Answer the sentences that were typed, or ask for some."""
    sentences, as_json = list(opt.sentences), opt.json
    with redirect_stdout(sys.stderr):  # which is for answers
        searcher = open_searcher(opt)
    if opt.measure_index is not None:
        print(measure_index(searcher, opt))
        return
    show_any_language()
    if sentences:
        with redirect_stdout(sys.stderr):  # progress
            found = searcher.search(sentences, opt.top_k, opt.video, opt.show)
        print_found(sentences, found, as_json)
        return
    if sys.stdin.isatty():
        use_history()
    Prompt(searcher, opt.top_k, opt.video, opt.show, as_json).run()


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of searching."""
    opt = parse_search_options(argv)
    if opt.query_file is not None or opt.query is not None:
        raise InputError("--query and --query_file are inference.sh's: write the sentences after the model's folder")
    with named_when_out_of_memory(opt, SEARCH_MEMORY):
        run(opt)


if __name__ == "__main__":
    main()
