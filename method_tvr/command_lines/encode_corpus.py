"""The command line of ask/encode_corpus.py: two options of its own, and those of inference."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from method_tvr.config import INFERENCE, OPTIONS, typed


def own_options(doc: str | None, argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options of the program alone, and the words that are left for inference, which have been read once.

    `doc` is what --help says.
    """
    description, _, more = (doc or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model_dir", required=True, help="results folder, as for inference")
    parser.add_argument("--out", metavar="CORPUS_DIR", required=True, help="folder of the corpus; made, or added to")
    own, others = parser.parse_known_args(argv)
    words = ["--model_dir", own.model_dir, *others]
    typed(OPTIONS, INFERENCE, words)
    return own, words
