"""Weights of models from files: read without running any code in them, and fitted to a model by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from utils.basic_utils import InputError, StrPath, first_few, first_line

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_COUNTERS = "num_batches_tracked"  # of batch normalisation; older files do not have them, and no feature needs them


def read_state_dict(path: StrPath) -> dict[str, torch.Tensor]:
    """The tensors of a state dict (`.pth`, `.pt`, `.ckpt`, `.safetensors`), by name.

    It may lie in a dict with other things, under `state_dict`, `model_state_dict` or `model`, and its names may begin
    with `module.`, as data parallel training leaves them.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: weights not found: give the file that holds them")
    try:
        if str(path).endswith(".safetensors"):
            from safetensors.torch import load_file  # comes with transformers and timm

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # whatever torch and safetensors raise on files that are damaged or something else
        raise InputError(
            f"{path}: cannot be read as weights ({first_line(err)}): it is damaged, or holds more than tensors"
        ) from err
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__}, not a state dict: save model.state_dict()")
    odd = [name for name, value in content.items() if not isinstance(value, torch.Tensor) or not isinstance(name, str)]
    if odd:
        raise InputError(f"{path}: is no state dict, {first_few(odd, 3)} are no tensors: save model.state_dict()")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def without_counters(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that decide what a model computes."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTERS)}


def fill(net: nn.Module, state: Mapping[str, torch.Tensor], source: str, head: str) -> None:
    """Put weights into a model without its classifier by their names; names that it does not have are told of.

    Weights of the same network written by another library, none of whose names fit, are put in by their order, if
    shapes and what names end with agree all along.

    Args:
        source: where the weights come from, for messages.
        head: what names of the classifier, which may be among them, begin with.

    Raises:
        InputError: weights are missing or have other shapes.
    """
    own, given = without_counters(net.state_dict()), without_counters(state)
    if given.keys().isdisjoint(own) and _alike(own, given):
        print(f"note: {source}: names its weights in its own way; all of them fit in their order", file=sys.stderr)
        given = dict(zip(own, given.values(), strict=False))
    missing = [name for name in own if name not in given]
    other = [name for name in own if name in given and given[name].shape != own[name].shape]
    if missing or other:
        found = f"lacks {first_few(missing)}" if missing else f"has other shapes of {first_few(other)}"
        raise InputError(f"{source}: {found}: are these weights of another model?")
    if unused := [name for name in given if name not in own and not name.startswith(head)]:
        print(f"note: {source}: not used: {first_few(unused)}", file=sys.stderr)
    net.load_state_dict({name: given[name] for name in own}, strict=False)


def _alike(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> bool:
    """Whether the weights of a model and the first ones of a file are of the same shapes and kinds, in order."""
    ours, theirs = (
        [(tensor.shape, name.rpartition(".")[2]) for name, tensor in state.items()] for state in (own, given)
    )
    return theirs[: len(ours)] == ours
