"""Saving and loading `model.ckpt` = {"model": state dict, "model_cfg": dict, "epoch": int}, and a digest of it.

Ours also hold `features`, what is known of the features that the model was trained on.
"""

from __future__ import annotations

import io
import os
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.models import NAME, config_of, model_cfg_of, name_of
from method_tvr.options.models import RELOCLNET
from utils.basic_utils import InputError, whole_file
from utils.content_digest import content_digest
from utils.feature_files.provenance import KINDS, FeatureRecords, properties
from utils.safe_pickle import load_safely

FORMAT_VERSION = 1
MADE_BY = "ReLoCLNet method_tvr/train.py"
UNKNOWN = "unknown"
WRAPPER = "module."  # what DataParallel begins names with
INPUT_SIZES = ("visual_input_size", "sub_input_size")


@dataclass
class Checkpoint:
    """What a `model.ckpt` holds."""

    state: dict[str, torch.Tensor]
    config: ModelConfig
    epoch: int
    made_by: str  # 'unknown' for files that do not say
    training: dict[str, Any] | None = None  # of a `last.ckpt`, see `TrainingState`; not checked beyond the digest
    features: FeatureRecords = field(default_factory=dict)  # of what it was trained on; empty in older files

    @property
    def has_record(self) -> bool:
        """Whether it says what made it."""
        return self.made_by != UNKNOWN

    def note_if_unknown(self) -> None:
        """Say that a checkpoint carries no record of what made it, as those of the original do not."""
        if not self.has_record:
            print("note: the checkpoint does not say what made it; taken for one of the original's", file=sys.stderr)

    def model_digest(self) -> str:
        """SHA-256 of its sizes and weights, however and whenever it was saved."""
        return content_digest({"model_cfg": _content(self.config), "model": self.state})

    def build_model(self, device: torch.device | str = "cpu") -> ReLoCLNet:
        """The model with its weights, in evaluation mode."""
        model = self.config.build()
        model.load_state_dict(self.state)
        return model.to(device).eval()


def save_checkpoint(
    path: str | os.PathLike[str], model: ReLoCLNet, epoch: int, features: FeatureRecords | None = None
) -> None:
    """Write a checkpoint of plain types, which `torch.load(path, weights_only=True)` reads, whole or not at all."""
    write_content(path, checkpoint_content(model, epoch, features))


def checkpoint_content(model: ReLoCLNet, epoch: int, features: FeatureRecords | None = None) -> dict[str, Any]:
    """What a checkpoint of the model holds, but for the digest; without `features` when nothing is known of them."""
    # files record which strings are one object, as a ctx_mode of "video" and the name of a modality may be or not
    config = {key: sys.intern(value) if type(value) is str else value for key, value in _content(model.config).items()}
    return {
        **({"features": features} if features else {}),
        "model": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "model_cfg": config,
        "epoch": epoch,
        "format_version": FORMAT_VERSION,
        "made_by": MADE_BY,
    }


def _content(config: ModelConfig) -> dict[str, Any]:
    """The `model_cfg` of a config, with the model's name; ReLoCLNet's has had none from the beginning."""
    name = name_of(config)
    return model_cfg_of(config) if name == RELOCLNET else {NAME: name, **model_cfg_of(config)}


def write_content(
    path: str | os.PathLike[str], content: dict[str, Any], previous: str | os.PathLike[str] | None = None
) -> None:
    """Write plain types and tensors and their digest, see `whole_file`. Equal content gives equal files."""
    # into memory first: torch puts a file's name into it, and has no clear error for a full disk
    buffer = io.BytesIO()
    torch.save({**content, "digest": content_digest(content)}, buffer)
    with whole_file(path, previous) as part:
        # not getbuffer: an error keeps that, and Python 3.12.1 crashes when it is collected
        part.write_bytes(buffer.getvalue())


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of ours or of the original, without running any code that it may carry.

    An `InputError` if the file is missing, truncated, damaged, hostile, or not a checkpoint of a model that is known.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: checkpoint not found: give a results folder that training has saved a model in")
    return checked_checkpoint(load_safely(path), path, os.path.getsize(path))


def checked_checkpoint(content: Any, path: str | os.PathLike[str], n_bytes: int) -> Checkpoint:
    """What content is as a checkpoint; an `InputError` where it is none, or does not have the digest that it names.

    Args:
        content: what `path` holds, of plain types and tensors; it may come from anyone.
        n_bytes: how much its weights can be.
    """
    try:
        if not isinstance(content, dict):
            raise TypeError(f"a {type(content).__name__}")
        version = content.get("format_version", FORMAT_VERSION)
        if type(version) is not int or version != FORMAT_VERSION:
            raise ValueError(f"format_version {reprlib.repr(version)}, this code reads {FORMAT_VERSION}")
        # whatever has a state of training has a digest, which also bounds what that state can be
        saved = {name: value for name, value in content.items() if name != "digest"}
        intact = bool(content["digest"] == content_digest(saved)) if "digest" in content else "training" not in content
        # a dict alone: torch obeys what other ones may carry besides
        state, model_cfg = _unwrapped(dict(content["model"])), content["model_cfg"]
        epoch = int(content.get("epoch", -1))
        config = config_of(model_cfg)
        if not all(_is_plain(name, value) for name, value in vars(config).items()):
            raise TypeError("its model_cfg holds something other than numbers and names")
        expected = _shapes(config, repr(config))
        found = {str(name): tensor.shape for name, tensor in state.items()}
        if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > n_bytes:
            raise ValueError("its weights are more than the file can hold")
        made_by, features = str(content.get("made_by", UNKNOWN)), content.get("features", {})
        if not isinstance(features, dict) or not all(isinstance(record, dict) for record in features.values()):
            raise TypeError("its record of features is none")
        records = {kind: properties(features[kind]) for kind in KINDS if kind in features}
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as err:
        raise InputError(
            f"{path}: is no checkpoint of a model that is known ({type(err).__name__}: {err}): "
            'expected {"model": weights, "model_cfg": sizes, "epoch": number}'
        ) from err
    if not intact:
        raise InputError(
            f"{path}: its content does not have the digest that was saved with it: it was damaged or changed, "
            "copy or train it again"
        )
    if expected != found:
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise InputError(f"{path}: weights do not fit its model_cfg: {odd[0]} and {len(odd) - 1} more differ")
    return Checkpoint(state, config, epoch, made_by, content.get("training"), records)


@lru_cache(maxsize=8)  # a run reads checkpoints of one model again and again
def _shapes(config: ModelConfig, text: str) -> Mapping[str, torch.Size]:
    """{name: shape} of a model's weights. With the text of its config, because 384.0 equals 384 and is no size."""
    with torch.device("meta"), _NothingDrawn():
        return {name: tensor.shape for name, tensor in config.build().state_dict().items()}


class _NothingDrawn(TorchFunctionMode):
    """Has layers made without drawing their weights: for those of "meta", torch would import its compiler first."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (nn.init.normal_, torch.Tensor.normal_):
            return None
        return func(*args, **(kwargs or {}))


def _unwrapped(state: dict[Any, Any]) -> dict[Any, Any]:
    """Weights by their names in the model: saved under DataParallel, all names begin with the same word."""
    if all(isinstance(name, str) and name.startswith(WRAPPER) for name in state):
        return {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    return state


def _is_plain(name: str, value: Any) -> bool:
    """Whether a value of model_cfg is a number or a name, or the absent size of a modality that is not in use."""
    return type(value) in (bool, int, float, str) or (value is None and name in INPUT_SIZES)
