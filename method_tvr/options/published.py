"""A model's folder wherever it is: in results, as it was published, or on the hub, from where it is fetched.

Encoded videos may lie on the hub, too, as a data repository.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from method_tvr.options.saved import OPTIONS_FILE, find_model_dir, find_path, look_for_model_dir
from utils.basic_utils import PROJECT_ROOT, InputError
from utils.hub.names import HubName, hub_name
from utils.hub.repositories import DATASET, MODEL, fetched
from utils.storage.digests import CARD, DIGESTS, check_digests

WEIGHTS, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.json"
# what is fetched, and nothing else; the first has to be there
FILES = (DIGESTS, WEIGHTS, CONFIG, OPTIONS_FILE, METRICS, CARD)
CORPUS_FILES = ("corpus.json", "part-*/index.json", "part-*/rows.npy", "part-*/norms.npy")
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
        found = _from_hub(name, MODEL, FILES, results_root)
    found = found or find_model_dir(model_dir, results_root)
    if is_published(Path(found)):
        check_digests(Path(found))
    return found


def find_corpus(corpus_dir: str | None, results_root: str) -> str | None:
    """The folder of the encoded videos that `corpus_dir` means: a path, or `org/name[@revision]` on the hub.

    That of the hub gets a folder as a model does. Its own digests are checked when it is opened.
    """
    name = None if corpus_dir is None or find_path(corpus_dir).exists() else hub_name(corpus_dir)
    return corpus_dir if name is None else _from_hub(name, DATASET, CORPUS_FILES, results_root)


def _from_hub(name: HubName, kind: str, files: Sequence[str], results_root: str) -> str:
    """A folder under `results_root` with links to what is in the hub's cache, which is fetched if it is not there."""
    snapshot = fetched(name, files, kind)
    if not (snapshot / files[0]).is_file():
        raise InputError(f"{name}: has no {files[0]}: the {kind} of that name on the hub is none of this project's")
    root = find_path(results_root)
    root = root if root.is_dir() else PROJECT_ROOT / "method_tvr" / "results"
    folder = root / f"hub-{kind}-{name.as_folder}-{snapshot.name[:COMMIT_DIGITS]}"
    try:
        for path in (path for pattern in files for path in snapshot.glob(pattern)):
            link = folder / path.relative_to(snapshot)
            link.parent.mkdir(parents=True, exist_ok=True)
            _link(link, path)
    except OSError as err:
        raise InputError(f"{folder}: cannot be written ({err.strerror}): give another --results_root") from err
    print(f"note: {name}: is {snapshot.name} on the hub; what is computed with it goes to {folder}", file=sys.stderr)
    return str(folder)


def _link(link: Path, target: Path) -> None:
    """Make a link that leads to a file; what is no link stays."""
    if (os.path.lexists(link) and not link.is_symlink()) or link.resolve() == target.resolve():
        return
    part = link.with_name(f".{link.name}.{os.getpid()}.part")
    part.symlink_to(target)
    part.replace(link)
