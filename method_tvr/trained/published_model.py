"""A model as it is published: `model.safetensors`, its weights, and `config.json`, all else that its checkpoint holds.

Neither can hold code. A folder has the one form or the other: of a published one no `model.ckpt` is ever read.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from method_tvr.models import NAME, model_cfg_of, name_of
from method_tvr.options.published import CONFIG, WEIGHTS, is_published
from method_tvr.training.checkpoint import FORMAT_VERSION, Checkpoint, checked_checkpoint, load_checkpoint
from standalone_eval.files.parts import make_ordinary
from utils.basic_utils import InputError, first_line, needed, read_json, write_json
from utils.content_digest import content_digest

REMEDY = "get the model again, or publish it again"
PACKAGE, INSTALL = "safetensors.torch", "pip install safetensors"
FIELDS = ("model_cfg", "epoch", "format_version", "made_by", "features", "digest")  # of config.json


def load_model(folder: Path) -> Checkpoint:
    """The model in a folder, of results or published; an `InputError` if it is none, or damaged."""
    return _load_published(folder) if is_published(folder) else load_checkpoint(folder / "model.ckpt")


def write_model(checkpoint: Checkpoint, folder: Path) -> None:
    """Write both files of a model into a folder."""
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in checkpoint.state.items()}
    content: dict[str, Any] = {
        "model_cfg": {NAME: name_of(checkpoint.config), **model_cfg_of(checkpoint.config)},
        "epoch": checkpoint.epoch,
        "format_version": FORMAT_VERSION,
        **({"made_by": checkpoint.made_by} if checkpoint.has_record else {}),
        **({"features": checkpoint.features} if checkpoint.features else {}),
    }
    digest = content_digest({**content, "model": state})
    needed(PACKAGE, "a published model", INSTALL).save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    make_ordinary(folder / WEIGHTS, 0o666)
    write_json({**content, "digest": digest}, folder / CONFIG, indent=True)


def _load_published(folder: Path) -> Checkpoint:
    path, config = folder / WEIGHTS, read_json(folder / CONFIG, REMEDY)
    if not isinstance(config, dict) or not {"model_cfg", "digest"} <= config.keys():
        raise InputError(f"{folder / CONFIG}: does not describe a model: {REMEDY}")
    state = _read_weights(path)
    content = {name: config[name] for name in FIELDS if name in config}
    return checked_checkpoint({**content, "model": state}, folder, os.path.getsize(path))


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    package = needed(PACKAGE, "a published model", INSTALL)
    if not path.is_file():
        raise InputError(f"{path}: is missing: {REMEDY}")
    try:
        return package.load_file(path)
    except (import_module("safetensors").SafetensorError, OSError, KeyError, ValueError) as err:
        raise InputError(f"{path}: cannot be read as weights ({first_line(err)}): {REMEDY}") from err
