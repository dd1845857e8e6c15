"""Saving and loading `model.ckpt` = {"model": state dict, "model_cfg": dict, "epoch": int}."""

from __future__ import annotations

import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from method_tvr.model import ModelConfig, ReLoCLNet
from utils.basic_utils import InputError, first_line, whole_file

FORMAT_VERSION = 1
MADE_BY = "ReLoCLNet method_tvr/train.py"
UNKNOWN = "unknown"


class _DictWithAttributes(dict):
    """Stands in for EasyDict, whose pickle sets each entry as an attribute too."""


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("easydict", "EasyDict"): _DictWithAttributes,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Resolves tensors' own rebuild functions, OrderedDict and EasyDict (as a dict), and refuses all else.

    torch's `weights_only` loader refuses the EasyDict that published checkpoints keep their model_cfg in, even when it
    is listed as safe. Storages do not come through here: torch resolves them by name before asking.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a checkpoint has no need of") from None


def _restricted_load(file: Any, **kwargs: Any) -> Any:
    return _RestrictedUnpickler(file, **kwargs).load()


# what torch raises on files that are truncated or something else altogether
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    ImportError,
    zipfile.BadZipFile,
)

_restricted_pickle = types.ModuleType("restricted_pickle")
_restricted_pickle.Unpickler = _RestrictedUnpickler  # type: ignore[attr-defined]
_restricted_pickle.load = _restricted_load  # type: ignore[attr-defined]


@dataclass
class Checkpoint:
    """What a `model.ckpt` holds; `made_by` is 'unknown' for files that do not say."""

    state: dict[str, torch.Tensor]
    config: ModelConfig
    epoch: int
    made_by: str

    def note_if_unknown(self) -> None:
        """Say that a checkpoint carries no record of what made it, as those of the original do not."""
        if self.made_by == UNKNOWN:
            print("note: the checkpoint does not say what made it; taken for one of the original's", file=sys.stderr)

    def build_model(self, device: torch.device | str = "cpu") -> ReLoCLNet:
        """The model with its weights, in evaluation mode."""
        model = ReLoCLNet(self.config)
        model.load_state_dict(self.state)
        return model.to(device).eval()


def save_checkpoint(path: str | os.PathLike[str], model: ReLoCLNet, epoch: int) -> None:
    """Write a checkpoint of plain types, which `torch.load(path, weights_only=True)` reads, whole or not at all."""
    content = {
        "model": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "model_cfg": model.config.to_dict(),
        "epoch": epoch,
        "format_version": FORMAT_VERSION,
        "made_by": MADE_BY,
    }
    with whole_file(path) as part:
        torch.save(content, part)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of ours or of the original, without running any code that it may carry.

    Raises:
        InputError: the file is missing, truncated, hostile, or not a ReLoCLNet checkpoint.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: checkpoint not found: give a results folder that training has saved a model in")
    content = _read(path)
    try:
        if not isinstance(content, dict):
            raise TypeError(f"a {type(content).__name__}")
        if content.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise ValueError(f"format_version {content['format_version']}, this code reads {FORMAT_VERSION}")
        state, model_cfg, epoch = content["model"], content["model_cfg"], int(content.get("epoch", -1))
        config = ModelConfig.from_dict(model_cfg)
        with torch.device("meta"):  # shapes alone, no weights
            expected = {name: tensor.shape for name, tensor in ReLoCLNet(config).state_dict().items()}
        found = {name: tensor.shape for name, tensor in state.items()}
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as err:
        raise InputError(
            f"{path}: is not a ReLoCLNet checkpoint ({type(err).__name__}: {err}): "
            'expected {"model": weights, "model_cfg": sizes, "epoch": number}'
        ) from err
    if expected != found:
        odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise InputError(f"{path}: weights do not fit its model_cfg: {odd[0]} and {len(odd) - 1} more differ")
    return Checkpoint(state, config, epoch, str(content.get("made_by", UNKNOWN)))


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        if _is_torchscript(path):
            raise pickle.UnpicklingError("it is a TorchScript archive, which holds code")
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_restricted_pickle)
    except pickle.UnpicklingError as err:
        raise InputError(f"{path}: refused: {err}. Only load checkpoints from people you trust") from err
    except _UNREADABLE as err:
        raise InputError(
            f"{path}: cannot be read as a checkpoint ({first_line(err)}): it is truncated or foreign, "
            "copy or train it again"
        ) from err


def _is_torchscript(path: str | os.PathLike[str]) -> bool:
    """Whether torch.load would hand the file to torch.jit.load, which runs what is in it: it can write files."""
    with open(path, "rb") as file:
        if not torch.serialization._is_zipfile(file):
            return False
    return "constants.pkl" in torch._C.PyTorchFileReader(os.fspath(path)).get_all_records()
