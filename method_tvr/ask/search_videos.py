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
from itertools import takewhile
from pathlib import Path

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.ask import search
from method_tvr.ask.questions import check_asked
from method_tvr.ask.video_corpus import DEFAULT_MODEL, VideoCorpus
from method_tvr.config import SEARCH, SEARCH_MEMORY, parse_inference_options
from utils.basic_utils import PROJECT_ROOT, InputError, command_line
from utils.model_utils import named_when_out_of_memory
from utils.pretrained.names import PREFIX

OWN_FOLDER = "_search"  # of videos in a folder without it


def own_options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of this program, and what is left for the search or the page."""
    description, _, more = (__doc__ or "").partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, epilog=more, formatter_class=form, allow_abbrev=False)
    add = parser.add_argument
    add("videos", metavar="VIDEOS_DIR", help="folder of video files, or of folders of frames; its subfolders too")
    add(
        "--image_model", default=DEFAULT_MODEL, help="of images and text: hf/NAME on the hub, or hf/FOLDER; %(default)s"
    )
    add(
        "--subtitles", metavar="DIR", help="folder of subtitle files called as the videos (default: that of the videos)"
    )
    add("--sub_weight", type=float, default=0.5, help="what is said weighs so much, what is seen 1; %(default)s")
    add("--out", metavar="DIR", help=f"folder for all that is made (default: VIDEOS_DIR{OWN_FOLDER})")
    add("--frame_rate", type=float, default=2.0, help="frames a second that are looked at; %(default)s")
    add("--clip_length", type=float, default=1.5, help="seconds of a clip; %(default)s")
    add("--device", type=int, default=0, help="CUDA device, -1 for the CPU; 0")
    add("--page", action="store_true", help="also open the page that plays the videos; options of serve.sh go with it")
    own, others = parser.parse_known_args(argv)
    own.image_model = PREFIX + own.image_model.removeprefix(PREFIX)  # no other models compare with sentences
    return own, others


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
    given = sys.argv[1:] if argv is None else list(argv)
    if given and given[0].startswith("-") and given[0] not in ("-h", "--help"):
        raise InputError(f"{given[0]}: write the folder of videos first, then sentences and options")
    sentences = list(takewhile(lambda word: not word.startswith("-"), given[1:]))
    own, others = own_options([*given[:1], *given[1 + len(sentences) :]])
    run(own, sentences, others)


if __name__ == "__main__":
    main()
