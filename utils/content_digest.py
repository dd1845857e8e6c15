"""A digest of nested data with tensors in it, the same wherever and however often the data is saved and read."""

from __future__ import annotations

import hashlib
from itertools import count
from typing import Any

import torch

MOST_VALUES = 1_000_000  # far more than any checkpoint has: lists that hold each other can stand for endlessly many
MOST_DEPTH = 50  # of values in values


def content_digest(content: Any) -> str:
    """SHA-256 of dicts (in any order), lists, tuples, strings, numbers, booleans, None and tensors.

    Raises:
        TypeError: there is something else in it.
        ValueError: a tensor shows more elements than it stores, which none does that was saved whole, or there are
            more than `MOST_VALUES` values, or they lie more than `MOST_DEPTH` deep in each other.
    """
    sha = hashlib.sha256()
    _feed(sha, content, count())
    return sha.hexdigest()


def _feed(sha: Any, value: Any, seen: count[int], depth: int = 0) -> None:
    """Add a value: its kind and size first, so that no two different values feed the same bytes."""
    if next(seen) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values")
    if depth > MOST_DEPTH:
        raise ValueError(f"values more than {MOST_DEPTH} deep in each other")
    if isinstance(value, torch.Tensor):
        sha.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
        sha.update(_tensor_bytes(value))
    elif isinstance(value, dict):
        sha.update(f"dict {len(value)} ".encode())
        for key in sorted(value, key=lambda key: (type(key).__name__, key)):
            _feed(sha, key, seen, depth + 1)
            _feed(sha, value[key], seen, depth + 1)
    elif isinstance(value, list | tuple):
        sha.update(f"list {len(value)} ".encode())
        for item in value:
            _feed(sha, item, seen, depth + 1)
    elif value is None or isinstance(value, str | int | float | bool):
        text = repr(value).encode()  # exact for floats
        sha.update(f"{type(value).__name__} {len(text)} ".encode() + text)
    else:
        raise TypeError(f"a {type(value).__name__}, which has no digest")


def _tensor_bytes(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach().cpu()
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} stores fewer elements than it shows")
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
