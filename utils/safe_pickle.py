"""Reading what `torch.save` wrote, and nothing else: a file from a stranger runs no code and fills no memory."""

from __future__ import annotations

import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from typing import Any, ClassVar

import torch

from utils.basic_utils import InputError, StrPath, first_line

BYTEARRAY = pickle.BYTEARRAY8[0]  # makes room before it reads


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
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which tensors have no need of") from None


class _RestrictedPickle:
    """What torch.load asks of the module pickle."""

    Unpickler = _RestrictedUnpickler

    @staticmethod
    def load(file: Any, **kwargs: Any) -> Any:
        return _RestrictedUnpickler(file, **kwargs).load()


def load_safely(path: StrPath, what: str = "a checkpoint", remedy: str = "train", mapped: bool = False) -> Any:
    """What `torch.save` wrote, tensors on the CPU, with no code run that it may carry.

    Args:
        what, remedy: what it is and how one gets it, for errors.
        mapped: read no tensor until it is used, where the file's form allows that.

    Raises:
        InputError: it is truncated, foreign, or asks for code.
    """
    try:
        mmap = _refuse_other_forms(path) and mapped
        form: dict[str, Any] = {"weights_only": False, "pickle_module": _RestrictedPickle, "mmap": mmap}
        return torch.load(os.fspath(path), map_location="cpu", **form)
    except pickle.UnpicklingError as err:
        raise InputError(f"{path}: refused: {err}. Only load {what} from people you trust") from err
    except Exception as err:  # torch raises nearly anything on files that are truncated or something else altogether
        raise InputError(
            f"{path}: cannot be read as {what} ({first_line(err)}): it is truncated or foreign, "
            f"copy or {remedy} it again"
        ) from err


def _refuse_other_forms(path: StrPath) -> bool:
    """Refuse what torch.load would hand to code that trusts its input, or unpack whatever comes out.

    Returns whether the file is of the newer form, a zip archive.

    torch.jit.load runs what is in a TorchScript archive, and can write files; old tar archives are extracted, and may
    hold pipes and devices. torch compresses nothing: what is compressed is another's, and may have no end.
    """
    with open(path, "rb") as file:
        zipped = torch.serialization._is_zipfile(file)
    if not zipped:
        if tarfile.is_tarfile(path):
            raise pickle.UnpicklingError("it is a tar archive")
        return False
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise pickle.UnpicklingError("parts of it are compressed")
    if "constants.pkl" in torch._C.PyTorchFileReader(os.fspath(path)).get_all_records():
        raise pickle.UnpicklingError("it is a TorchScript archive, which holds code")
    return True
