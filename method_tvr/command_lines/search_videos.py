"""The command line of ask/search_videos.py: a folder, sentences, options of its own, and those of a search."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import takewhile

from method_tvr.config import OPTIONS, SEARCH, SERVE, typed
from utils.basic_utils import InputError
from utils.pretrained.names import PREFIX

DEFAULT_MODEL = "hf/openai/clip-vit-base-patch32"
OWN_FOLDER = "_search"  # of videos in a folder without it


def own_options(doc: str | None, argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str], list[str]]:
    """The options of the program alone, the sentences, and the words that are left for the search or the page.

    These have been read once. `doc` is what --help says. An `InputError` if an option stands before the folder.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    if given and given[0].startswith("-") and given[0] not in ("-h", "--help"):
        raise InputError(f"{given[0]}: write the folder of videos first, then sentences and options")
    sentences = list(takewhile(lambda word: not word.startswith("-"), given[1:]))
    own, others = _parser(doc).parse_known_args([*given[:1], *given[1 + len(sentences) :]])
    own.image_model = PREFIX + own.image_model.removeprefix(PREFIX)  # no other models compare with sentences
    typed(OPTIONS, SERVE if own.page else SEARCH, ["--model_dir", "", *others])
    return own, sentences, others


def _parser(doc: str | None) -> argparse.ArgumentParser:
    description, _, more = (doc or "").partition("\n\n")
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
    return parser
