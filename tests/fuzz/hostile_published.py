"""Published models that were damaged, or made to do harm by somebody who writes their digests anew."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from random import Random

import orjson

from method_tvr.options.published import CONFIG, WEIGHTS
from method_tvr.trained.published_model import load_model, write_model
from method_tvr.training.checkpoint import Checkpoint
from tests.fuzz.mutations import hostile_document, mutate_bytes
from tests.support.runs.small_models import SMALL, small_model
from utils.content_digest import content_digest
from utils.storage.digests import DIGESTS, check_digests, write_digests

LENGTH = 8  # bytes that a safetensors file begins with: the length of its JSON


@cache
def _good() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
        folder = Path(made)
        state = dict(small_model().state_dict())
        write_model(Checkpoint(state, SMALL, 3, "a test", features={"video": {"clip_length": 1.5}}), folder)
        write_digests(folder)
        read(folder)  # once, so that all modules are there
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(rng: Random, folder: Path) -> None:
    """Write a model of whose files one is hostile."""
    for name, content in _good().items():
        (folder / name).write_bytes(content)
    kind = rng.choice(("config", "config", "digest", "header", "header", "bytes", "digests"))
    if kind == "config":
        (folder / CONFIG).write_bytes(hostile_document(rng, orjson.loads(_good()[CONFIG])))
    elif kind == "digest":
        _with_right_digest(rng, folder)
    elif kind == "header":
        (folder / WEIGHTS).write_bytes(_with_another_header(rng, _good()[WEIGHTS]))
    elif kind == "bytes":
        (folder / WEIGHTS).write_bytes(mutate_bytes(rng, _good()[WEIGHTS]))
    if kind == "digests":
        (folder / DIGESTS).write_bytes(hostile_document(rng, orjson.loads(_good()[DIGESTS])))
    else:
        write_digests(folder)


def _with_right_digest(rng: Random, folder: Path) -> None:
    """Another size or setting, and the digest of a model of that."""
    config = orjson.loads(_good()[CONFIG])
    name = rng.choice(list(config["model_cfg"]))
    config["model_cfg"][name] = rng.choice((None, True, -1, 0, 7, 2**40, 1e300, "x", [], "sub"))
    content = {name: value for name, value in config.items() if name != "digest"}
    config["digest"] = content_digest({**content, "model": dict(small_model().state_dict())})
    (folder / CONFIG).write_bytes(orjson.dumps(config))


def _with_another_header(rng: Random, weights: bytes) -> bytes:
    end = LENGTH + int.from_bytes(weights[:LENGTH], "little")
    header = hostile_document(rng, orjson.loads(weights[LENGTH:end]))
    return len(header).to_bytes(LENGTH, "little") + header + weights[end:]


def read(folder: Path) -> None:
    """Load the model as programs do."""
    check_digests(folder)
    load_model(folder).build_model()
