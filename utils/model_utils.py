"""Devices, seeds and parameter counts."""

from __future__ import annotations

import hashlib
import os
import random
import sys

import numpy as np
import torch
from torch import nn


def choose_device(device: int, tf32: bool | None = None) -> torch.device:
    """CUDA device `device` when it is there, else the CPU, said aloud; -1 asks for the CPU.

    Args:
        device: its number.
        tf32: see `use_cuda`.
    """
    if device < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        print("note: CUDA is not available, using the CPU (--device -1 asks for it without this note)", file=sys.stderr)
        return torch.device("cpu")
    if device >= torch.cuda.device_count():
        print(f"note: there is no CUDA device {device}, using cuda:0", file=sys.stderr)
        device = 0
    return use_cuda(device, tf32)


def use_cuda(number: int, tf32: bool | None = None) -> torch.device:
    """Make a CUDA device the one that this process uses where none is named, as when memory is pinned.

    Args:
        number: of the device.
        tf32: see `set_precision`; None leaves torch's defaults, TF32 in convolutions alone.
    """
    torch.cuda.set_device(number)
    if tf32 is not None:
        set_precision(tf32)
    return torch.device("cuda", number)


def set_precision(tf32: bool) -> None:
    """Let CUDA round what float32 products and convolutions multiply to TF32, 10 bits of 23, or let it not."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def available_cpus() -> int:
    """CPUs this process may use, where the system says so, else those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch (dropout draws from torch's)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries draw from the global generator)
    torch.manual_seed(seed)


def named_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for one source of chance, such as `shuffle/3`: independent of others, restored by its name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
