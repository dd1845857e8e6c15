"""Search a folder of videos in words, without training: what is new is taken in first.

python method_tvr/ask/search_videos.py VIDEOS_DIR [SENTENCE …] [options of search.sh]

Pictures and sentences are encoded by one model (CLIP, SigLIP or SigLIP 2), and a model without training compares them.
All that is made lies in a folder beside that of the videos, and only what is new or changed is made again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.command_lines.search_videos import OWN_FOLDER, own_options
from utils.basic_utils import parse_first

if __name__ == "__main__":
    parse_first(own_options, __doc__)

from method_tvr.ask import search
from method_tvr.ask.questions import check_asked
from method_tvr.ask.video_corpus import VideoCorpus
from method_tvr.config import SEARCH, SEARCH_MEMORY, parse_inference_options
from utils.basic_utils import PROJECT_ROOT, command_line
from utils.model_utils import named_when_out_of_memory


def run(own: argparse.Namespace, sentences: Sequence[str], others: Sequence[str]) -> None:
    """Take in what is new, search it, and open the page if it is asked for; `others` are options of either."""
    folder = Path(os.path.abspath(own.videos))
    corpus = VideoCorpus(folder, Path(own.out) if own.out else folder.with_name(folder.name + OWN_FOLDER), own)
    check_asked(sentences)  # before anything is made
    words = ["--text_model", own.image_model, "--device", str(own.device), *corpus.bring_up_to_date()]
    words = ["--model_dir", str(corpus.model_dir), *words]
    if sentences or not own.page:
        opt = parse_inference_options([*words, *_of_search(own, others), *sentences], SEARCH)
        with named_when_out_of_memory(opt, SEARCH_MEMORY):
            search.run(opt)
    if own.page:
        program = str(PROJECT_ROOT / "method_tvr" / "web" / "serve.py")
        os.execv(sys.executable, [sys.executable, program, *words, "--videos", own.videos, *others])


def _of_search(own: argparse.Namespace, others: Sequence[str]) -> list[str]:
    """The options of a search; with a page, they are the page's."""
    if own.page:
        return []
    return [*(["--videos", own.videos] if "--save_clips" in others else []), *others]


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    run(*own_options(__doc__, argv))


if __name__ == "__main__":
    main()
