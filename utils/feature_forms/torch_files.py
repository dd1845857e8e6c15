"""`.pt` and `.pth` files: a folder with one for each video, or one file of them all by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from utils.basic_utils import InputError, first_few
from utils.feature_files import bfloat16
from utils.feature_files.feature_file import FeatureError
from utils.feature_forms.file_folder import FileFolder
from utils.feature_forms.named_arrays import features_among
from utils.feature_forms.source import ArraySource, Stored, refuse_claims


class TorchFolder(FileFolder):
    """Checked reading of `DIR/KEY.pt`: a tensor, or a dict with `features`, or see `named_arrays`."""

    suffixes = (".pt", ".pth")

    def find(self, key: str) -> Stored:
        """What a file holds, mapped where torch can."""
        name = self.name_of(key)
        return _found(_loaded(self.path / name), self.path, name, self.dataset)


class TorchFile(ArraySource):
    """Checked reading of one file `{name: tensor}`, mapped where torch can."""

    def __init__(self, path: Path, dataset: str | None = None) -> None:
        super().__init__(path, dataset)
        content = _loaded(path)
        if not isinstance(content, dict) or not content:
            what = "an empty dict" if content == {} else f"a {type(content).__name__}"
            raise InputError(f"{path}: holds {what}, expected {{name: tensor}}, or give a folder with a file a video")
        if odd := [key for key in content if not isinstance(key, str | int)]:
            raise InputError(f"{path}: has keys that are no names, {first_few(odd, 3)}: save {{name: tensor}}")
        self._content: dict[str, Any] = {str(key): value for key, value in content.items()}
        if twice := [key for key in content if not isinstance(key, str) and str(key) in content]:
            raise InputError(f"{path}: has {first_few(twice, 3)} as numbers and as text: keep one of each")

    def close(self) -> None:
        """Let go of the file's content."""
        super().close()
        self._content = {}

    def feature_keys(self) -> list[str]:
        """The names, in the file's order."""
        return list(self._content)

    def find(self, key: str) -> Stored:
        """What lies under a name."""
        return _found(self._content[key], self.path, key, self.dataset)


def _loaded(path: Path) -> Any:
    """What `torch.save` wrote; no code that comes with it is run."""
    try:
        from utils.safe_pickle import load_safely
    except ImportError as err:
        raise InputError(f"{path}: needs torch ({err}): pip install -r requirements.txt -c constraints.txt") from err
    return load_safely(path, "tensors", "make", mapped=True)


def _found(value: Any, path: Path, key: str, dataset: str | None) -> Stored:
    if isinstance(value, dict):
        names = [name for name in value if isinstance(name, str)]
        return features_among(names, lambda name: _stored(value[name], path, key), path, key, dataset)
    return _stored(value, path, key)


def _stored(value: Any, path: Path, key: str) -> Stored:
    import torch

    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        raise FeatureError(path, key, f"is a {type(value).__name__}, expected a tensor, or a dict with features")
    tensor = value.detach()
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise FeatureError(path, key, "is no plain tensor: save tensor.cpu().contiguous()")
    refuse_claims(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
    shape = tuple(tensor.shape)
    if tensor.dtype == torch.bfloat16:
        return Stored(shape, np.dtype(np.float32), lambda: tensor.float().numpy(), bfloat16.NAME)
    return Stored(shape, torch.empty(0, dtype=tensor.dtype).numpy().dtype, lambda: tensor.numpy().copy())
