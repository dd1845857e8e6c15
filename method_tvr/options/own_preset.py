"""What `train.sh own DATA_DIR` stands for, by what extraction left in the folder: words of `train.sh`, one a line.

python method_tvr/options/own_preset.py DATA_DIR [--zero_shot]
"""

from __future__ import annotations

import argparse
import reprlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "easydict", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.options.saved import find_path
from utils.basic_utils import InputError, command_line, first_few, read_json
from utils.dataset_files import MANIFEST
from utils.own_corpus.layout import SCRIPT, settings_path, zero_shot_path
from utils.own_corpus.settings import context_of
from utils.storage.folders import files_in

FOLDER = "give the folder that utils/extract_features.sh made, its --out"
AGAIN = "run the command of utils/extract_features.sh that made it again"


def preset(folder: str, zero_shot: bool = False) -> list[str]:
    """The words of `train.sh custom` for a corpus' folder, of a model that is trained or of `--model zero_shot`.

    Raises:
        InputError: it is not the folder of one corpus that extraction made and that can be trained on.
    """
    place = find_path(folder)
    record = _record_in(place)
    said: Any = read_json(record, AGAIN)
    made_by = said.get("made_by") if isinstance(said, Mapping) else None
    if made_by != SCRIPT:
        raise InputError(f"{record}: says that {reprlib.repr(made_by)} made this corpus, not {SCRIPT}: {FOLDER}")
    options, prefix = said.get("options"), record.name.removesuffix(MANIFEST)
    if not isinstance(options, Mapping):
        raise InputError(f"{record}: does not say which options the corpus was made with: {AGAIN}")
    if zero_shot:
        return _without_training(zero_shot_path(place, prefix), record, options)
    settings = settings_path(place, prefix)
    if not settings.is_file():
        raise InputError(_why_without(settings, record, said.get("settings")))
    return ["custom", *context_of(options), "--settings", str(settings)]


def _without_training(settings: Path, record: Path, options: Mapping[str, Any]) -> list[str]:
    if not settings.is_file():
        raise InputError(
            f"{record}: the corpus has no vectors of sentences: give utils/extract_features.sh one model of images and "
            "text, --image_model hf/NAME and --text_model hf/NAME"
        )
    return [
        "custom",
        "video" if options.get("subtitles") is None else "video_sub",
        "joint",
        "--settings",
        str(settings),
    ]


def _record_in(place: Path) -> Path:
    """The one record of an extraction in a folder."""
    records = files_in(place, lambda name: name.endswith(MANIFEST), FOLDER)
    if not records:
        raise InputError(
            f"{place}: holds no NAME{MANIFEST}, which extraction writes last: {FOLDER}; if it was stopped, {AGAIN}"
        )
    if len(records) > 1:
        raise InputError(
            f"{place}: holds {len(records)} corpora, by {first_few([path.name for path in records])}: move the files "
            "of all but one into folders of their own"
        )
    return records[0]


def _why_without(settings: Path, record: Path, recorded: Any) -> str:
    """Why a corpus has no file of settings; `recorded` is what its record says of them."""
    if recorded is None:
        return f"{record}: is of an earlier version, which wrote no {settings.name}: {AGAIN}"
    if recorded:
        return f"{settings}: is missing: put it back, or {AGAIN}"
    return (
        f"{record}: the corpus has no training queries, or none to evaluate on: give utils/extract_features.sh "
        "sentences with times about two videos at least (--queries FILE), or have it take those that are said "
        "(--queries_from subtitles)"
    )


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DATA_DIR", help="of a corpus of one's own")
    parser.add_argument("--zero_shot", action="store_true", help="of a model without training")
    args = parser.parse_args(argv)
    words = preset(args.folder, args.zero_shot)
    print(f"note: the same as train.sh {shlex.join(words)}", file=sys.stderr)
    print("\n".join(words))


if __name__ == "__main__":
    main()
