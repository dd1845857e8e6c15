"""Saving and loading `model.ckpt` = {"model": state dict, "model_cfg": dict, "epoch": int}, and a digest of it.

Ours also hold `features`, what is known of the features that the model was trained on.
"""

from __future__ import annotations

import io
import os
import pickle
import reprlib
import struct
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from method_tvr.model import ModelConfig, ReLoCLNet
from utils.basic_utils import InputError, first_line, whole_file
from utils.content_digest import content_digest
from utils.feature_files.provenance import KINDS, Property, properties

FORMAT_VERSION = 1
BYTEARRAY = pickle.BYTEARRAY8[0]  # makes room before it reads
MADE_BY = "ReLoCLNet method_tvr/train.py"
UNKNOWN = "unknown"
INPUT_SIZES = ("visual_input_size", "sub_input_size")

FeatureRecords = dict[
    str, dict[str, Property]
]  # {"video", "sub", "query": decisive properties, see utils.feature_files.provenance}


class _DictWithAttributes(dict):
    """Stands in for EasyDict, whose pickle sets each entry as an attribute too."""


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("easydict", "EasyDict"): _DictWithAttributes,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class _RestrictedUnpickler(pickle._Unpickler):
    """Resolves tensors' own rebuild functions, OrderedDict and EasyDict (as a dict), and refuses all else.

    It is Python's own, not the one in C, which makes room for as many objects as any nine bytes may claim.

    torch's `weights_only` loader refuses the EasyDict that published checkpoints keep their model_cfg in, even when it
    is listed as safe. Storages do not come through here: torch resolves them by name before asking.
    """

    dispatch: ClassVar = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != BYTEARRAY}

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
    struct.error,
)

_restricted_pickle = types.ModuleType("restricted_pickle")
_restricted_pickle.Unpickler = _RestrictedUnpickler  # type: ignore[attr-defined]
_restricted_pickle.load = _restricted_load  # type: ignore[attr-defined]


@dataclass
class Checkpoint:
    """What a `model.ckpt` holds; `made_by` is 'unknown' for files that do not say.

    `training` is what a `last.ckpt` holds besides, see `TrainingState`; not checked beyond the digest.
    `features` are the records of the files that the model was trained on; empty in older files.
    """

    state: dict[str, torch.Tensor]
    config: ModelConfig
    epoch: int
    made_by: str
    training: dict[str, Any] | None = None
    features: FeatureRecords = field(default_factory=dict)

    @property
    def has_record(self) -> bool:
        """Whether it says what made it."""
        return self.made_by != UNKNOWN

    def note_if_unknown(self) -> None:
        """Say that a checkpoint carries no record of what made it, as those of the original do not."""
        if not self.has_record:
            print("note: the checkpoint does not say what made it; taken for one of the original's", file=sys.stderr)

    def build_model(self, device: torch.device | str = "cpu") -> ReLoCLNet:
        """The model with its weights, in evaluation mode."""
        model = ReLoCLNet(self.config)
        model.load_state_dict(self.state)
        return model.to(device).eval()


def save_checkpoint(
    path: str | os.PathLike[str], model: ReLoCLNet, epoch: int, features: FeatureRecords | None = None
) -> None:
    """Write a checkpoint of plain types, which `torch.load(path, weights_only=True)` reads, whole or not at all."""
    write_content(path, checkpoint_content(model, epoch, features))


def checkpoint_content(model: ReLoCLNet, epoch: int, features: FeatureRecords | None = None) -> dict[str, Any]:
    """What a checkpoint of the model holds, but for the digest; without `features` when nothing is known of them."""
    known = {"features": features} if features else {}
    # files record which strings are one object, as a ctx_mode of "video" and the name of a modality may be or not
    config = {key: sys.intern(value) if type(value) is str else value for key, value in model.config.to_dict().items()}
    return {
        **known,
        "model": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "model_cfg": config,
        "epoch": epoch,
        "format_version": FORMAT_VERSION,
        "made_by": MADE_BY,
    }


def write_content(
    path: str | os.PathLike[str], content: dict[str, Any], previous: str | os.PathLike[str] | None = None
) -> None:
    """Write what a checkpoint holds and its digest. Equal content gives equal files.

    Args:
        path: the file.
        content: plain types and tensors.
        previous: see `whole_file`.
    """
    # into memory first: torch puts a file's name into it, and has no clear error for a full disk
    buffer = io.BytesIO()
    torch.save({**content, "digest": content_digest(content)}, buffer)
    with whole_file(path, previous) as part:
        # not getbuffer: an error keeps that, and Python 3.12.1 crashes when it is collected
        part.write_bytes(buffer.getvalue())


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of ours or of the original, without running any code that it may carry.

    Raises:
        InputError: the file is missing, truncated, damaged, hostile, or not a ReLoCLNet checkpoint.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: checkpoint not found: give a results folder that training has saved a model in")
    content = _read(path)
    try:
        if not isinstance(content, dict):
            raise TypeError(f"a {type(content).__name__}")
        version = content.get("format_version", FORMAT_VERSION)
        if type(version) is not int or version != FORMAT_VERSION:
            raise ValueError(f"format_version {reprlib.repr(version)}, this code reads {FORMAT_VERSION}")
        # whatever has a state of training has a digest, which also bounds what that state can be
        intact = _digest_fits(content) if "digest" in content else "training" not in content
        # a dict alone: torch obeys what other ones may carry besides
        state, model_cfg, epoch = dict(content["model"]), content["model_cfg"], int(content.get("epoch", -1))
        config = ModelConfig.from_dict(model_cfg)
        if not all(_is_plain(name, value) for name, value in vars(config).items()):
            raise TypeError("its model_cfg holds something other than numbers and names")
        with torch.device("meta"):  # shapes alone, no weights
            expected = {name: tensor.shape for name, tensor in ReLoCLNet(config).state_dict().items()}
        found = {str(name): tensor.shape for name, tensor in state.items()}
        if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > os.path.getsize(path):
            raise ValueError("its weights are more than the file can hold")
        made_by, features = str(content.get("made_by", UNKNOWN)), _feature_records(content.get("features", {}))
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as err:
        raise InputError(
            f"{path}: is not a ReLoCLNet checkpoint ({type(err).__name__}: {err}): "
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
    return Checkpoint(state, config, epoch, made_by, content.get("training"), features)


def _is_plain(name: str, value: Any) -> bool:
    """Whether a value of model_cfg is a number or a name, or the absent size of a modality that is not in use."""
    return type(value) in (bool, int, float, str) or (value is None and name in INPUT_SIZES)


def _feature_records(saved: Any) -> FeatureRecords:
    if not isinstance(saved, dict) or not all(isinstance(record, dict) for record in saved.values()):
        raise TypeError("its record of features is none")
    return {kind: properties(saved[kind]) for kind in KINDS if kind in saved}


def _digest_fits(content: dict[str, Any]) -> bool:
    return bool(content["digest"] == content_digest({name: content[name] for name in content if name != "digest"}))


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        _refuse_other_forms(path)
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_restricted_pickle)
    except pickle.UnpicklingError as err:
        raise InputError(f"{path}: refused: {err}. Only load checkpoints from people you trust") from err
    except _UNREADABLE as err:
        raise InputError(
            f"{path}: cannot be read as a checkpoint ({first_line(err)}): it is truncated or foreign, "
            "copy or train it again"
        ) from err


def _refuse_other_forms(path: str | os.PathLike[str]) -> None:
    """Refuse what torch.load would hand to code that trusts its input, or unpack whatever comes out.

    torch.jit.load runs what is in a TorchScript archive, and can write files; old tar archives are extracted, and may
    hold pipes and devices. torch compresses nothing: what is compressed is another's, and may have no end.
    """
    with open(path, "rb") as file:
        zipped = torch.serialization._is_zipfile(file)
    if not zipped:
        if tarfile.is_tarfile(path):
            raise pickle.UnpicklingError("it is a tar archive")
        return
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise pickle.UnpicklingError("parts of it are compressed")
    if "constants.pkl" in torch._C.PyTorchFileReader(os.fspath(path)).get_all_records():
        raise pickle.UnpicklingError("it is a TorchScript archive, which holds code")
