"""The command line of publish/publish.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

UNKNOWN_LICENCE = "unknown"  # as the hub names it


def options(doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the program; `doc` begins with the line that --help says."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0] if doc else None, allow_abbrev=False)
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="results folder, as for inference")
    parser.add_argument("out", metavar="OUT", help="a new folder, or org/name on the Hugging Face hub")
    parser.add_argument(
        "--license",
        default=UNKNOWN_LICENCE,
        metavar="ID",
        help="the model's licence as the hub calls it, such as mit or cc-by-4.0 (default: %(default)s)",
    )
    parser.add_argument("--private", action="store_true", help="make the repository on the hub private")
    parser.add_argument("--results_root", default="method_tvr/results", help="where names and patterns are looked up")
    return parser.parse_args(argv)
