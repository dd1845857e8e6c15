"""A model's folder wherever it is: in results, as it was published, or on the hub, from where it is fetched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from method_tvr.options.saved import OPTIONS_FILE, find_model_dir, find_path, look_for_model_dir
from utils.basic_utils import PROJECT_ROOT, InputError
from utils.hub.names import HubName, hub_name
from utils.hub.repositories import fetched
from utils.storage.digests import DIGESTS, check_digests

WEIGHTS, CONFIG, METRICS, CARD = "model.safetensors", "config.json", "metrics.json", "README.md"
FILES = (WEIGHTS, CONFIG, OPTIONS_FILE, METRICS, CARD, DIGESTS)  # of a published model, and nothing else is fetched
COMMIT_DIGITS = 12


def is_published(folder: Path) -> bool:
    """Whether a folder holds a model as it is published, and not as training saves it."""
    return os.path.lexists(folder / DIGESTS) or os.path.lexists(folder / WEIGHTS)


def find_model(model_dir: str, results_root: str) -> str:
    """The folder of the model that `model_dir` means: as `find_model_dir`, or `org/name[@revision]` on the hub.

    What is here always wins. A model of the hub gets a folder of its own under `results_root`, which links to the
    hub's cache, so that nothing is ever written there. An `InputError` if there is none, or a published file is not as
    it was published.
    """
    name, found = hub_name(model_dir), look_for_model_dir(model_dir, results_root)
    if found is None and name is not None:
        found = _linked(name, fetched(name, FILES), results_root)
    found = found or find_model_dir(model_dir, results_root)
    if is_published(Path(found)):
        check_digests(Path(found))
    return found


def _linked(name: HubName, snapshot: Path, results_root: str) -> str:
    """A results folder for a model in the hub's cache, with links to its files."""
    if not (snapshot / DIGESTS).is_file():
        raise InputError(f"{name}: has no {DIGESTS}: give a model that publish.sh has published")
    root = find_path(results_root)
    root = root if root.is_dir() else PROJECT_ROOT / "method_tvr" / "results"
    folder = root / f"hub-{name.as_folder}-{snapshot.name[:COMMIT_DIGITS]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            _link(folder / file, snapshot / file)
    except OSError as err:
        raise InputError(f"{folder}: cannot be written ({err.strerror}): give another --results_root") from err
    print(f"note: {name}: is {snapshot.name} on the hub; what is computed with it goes to {folder}", file=sys.stderr)
    return str(folder)


def _link(link: Path, target: Path) -> None:
    """Make a link that leads to a file, if there is one; what is no link stays."""
    if not target.is_file() or (os.path.lexists(link) and not link.is_symlink()) or link.resolve() == target.resolve():
        return
    part = link.with_name(f".{link.name}.{os.getpid()}.part")
    part.symlink_to(target)
    part.replace(link)
