"""Writes a trained model as others load it, into a folder or on the Hugging Face hub.

python method_tvr/publish/publish.py MODEL_DIR OUT [--license ID] [--private] [--results_root DIR]
"""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.command_lines.publish import UNKNOWN_LICENCE, options
from utils.basic_utils import parse_first

if __name__ == "__main__":
    parse_first(options, __doc__)

from method_tvr.config import OPTIONS
from method_tvr.dset_configs import DATASETS
from method_tvr.options.published import METRICS, find_model
from method_tvr.options.row import TRAIN, UNSHARED, options_of
from method_tvr.options.saved import FILES, load_known, save_options
from method_tvr.publish.card import Published, card
from method_tvr.trained.published_model import load_model, write_model
from standalone_eval.files.parts import part_folder
from utils.basic_utils import PROJECT_ROOT, InputError, command_line, named_when_full, read_json, write_json
from utils.hub.names import HubName, hub_name
from utils.hub.repositories import uploaded
from utils.storage.digests import CARD, write_digests
from utils.storage.folders import files_in
from utils.storage.whole_folder import put_in_place

PLACES = ("feature_cache_dir", *FILES)  # options that name files and folders


def publish(model_dir: str, out: str, license_id: str, private: bool, results_root: str) -> str:
    """Publish the model that `model_dir` means, see `find_model`; returns where it is.

    Args:
        out: a folder that is not there yet, or is empty; or `org/name` on the hub, unless `org` is a folder here.
        license_id: what the card says, in the hub's words.
        private: a repository that is made is nobody else's to read.

    Raises:
        InputError: there is no such model, or it cannot be written there. Then nothing is.
    """
    name, folder = hub_name(out), Path(out)
    if name is not None and not folder.parent.exists():
        if name.revision is not None:
            raise InputError(f"{out}: a revision is named to load a model: leave out @{name.revision}")
        with TemporaryDirectory() as made, named_when_full(made):
            write_published(find_model(model_dir, results_root), Path(made), name.repository, license_id, name)
            return uploaded(made, name, f"Model {name.repository}", private=private)
    if private:
        raise InputError(f"--private: is of a repository on the hub, and {out} is a folder: leave it out")
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{out}: is there already: name a folder that is not, or an empty one")
    source = find_model(model_dir, results_root)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with named_when_full(folder), part_folder(folder.parent, f".{folder.name}.") as part:
            write_published(source, part, folder.name, license_id)
            put_in_place(part, folder)
    except OSError as err:
        raise InputError(f"{out}: cannot be written ({err.strerror or err}): name another folder") from err
    return out


def write_published(model_dir: str, part: Path, title: str, license_id: str, name: HubName | None = None) -> None:
    """Write all files of a published model into an empty folder; `name` is what it is loaded by, if that is known."""
    checkpoint = load_model(Path(model_dir))
    opt = shared_options(model_dir)
    metrics = metrics_of(Path(model_dir))
    write_model(checkpoint, part)
    save_options(opt, part)
    if metrics:
        write_json(metrics, part / METRICS, indent=True)
    told = Published(title, str(name or "MODEL_DIR"), checkpoint, opt, metrics, license_id)
    (part / CARD).write_text(card(told), encoding="utf-8")
    write_digests(part)


def shared_options(model_dir: str) -> dict[str, Any]:
    """The options of a model's training that mean something elsewhere: no paths but those within the project."""
    options = options_of(OPTIONS, TRAIN)
    saved = {name: v for name, v in load_known(model_dir, options).items() if options[name].inference != UNSHARED}
    if saved.get("dset_name") not in DATASETS:
        raise InputError(f"{model_dir}/opt.json: dset_name {saved.get('dset_name')!r} is unknown: mend the file")
    kept = {name: _within_project(saved[name]) for name in PLACES if saved.get(name)}
    if left := [f"--{name} {saved[name]}" for name, path in kept.items() if path is None]:
        print(
            f"note: paths outside the project are not published; those who load the model type these: "
            f"{', '.join(left)}",
            file=sys.stderr,
        )
    return {name: kept.get(name, value) for name, value in saved.items()}


def _within_project(path: str) -> str | None:
    """A path relative to the project; None if it lies elsewhere."""
    place = Path(os.path.normpath(PROJECT_ROOT / path))
    return str(place.relative_to(PROJECT_ROOT)) if place.is_relative_to(PROJECT_ROOT) else None


def metrics_of(folder: Path) -> dict[str, Any]:
    """{file of metrics that inference wrote there: its content}, and those that a published model came with."""

    def wanted(name: str) -> bool:
        return name == METRICS or fnmatchcase(name, "inference_*_metrics.json")

    found: dict[str, Any] = {}
    for path in sorted(files_in(folder, wanted, "give the model's folder"), key=lambda path: path.name != METRICS):
        content = read_json(path)
        files = content if path.name == METRICS else {path.name: content}
        if not isinstance(files, dict) or not all(map(_is_metrics, files.values())):
            raise InputError(f"{path}: holds no metrics: remove it, or run inference.sh again")
        found |= files
    return dict(sorted(found.items()))


def _is_metrics(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(values, dict) for values in content.values())


@command_line
def main() -> None:
    args = options(__doc__)
    where = publish(args.model_dir, args.out, args.license, args.private, args.results_root)
    print(f"published: {where}")
    if args.license == UNKNOWN_LICENCE:
        print("note: the card says that the licence is unknown: --license says which it is", file=sys.stderr)


if __name__ == "__main__":
    main()
