"""Devices, seeds and parameter counts."""

from __future__ import annotations

import hashlib
import os
import random
import sys

import numpy as np
import torch
from torch import nn


def choose_device(device: int) -> torch.device:
    """CUDA device `device` when it is there, else the CPU, said aloud; -1 asks for the CPU."""
    if device < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        print("note: CUDA is not available, using the CPU (--device -1 asks for it without this note)", file=sys.stderr)
        return torch.device("cpu")
    if device >= torch.cuda.device_count():
        print(f"note: there is no CUDA device {device}, using cuda:0", file=sys.stderr)
        device = 0
    return torch.device("cuda", device)


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


def named_seed(seed: int, name: str) -> int:
    """A seed for one source of chance, such as `shuffle/3`: independent of others, found again by its name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def named_generator(seed: int, name: str, device: torch.device | None = None) -> torch.Generator:
    """A generator for one source of chance, see `named_seed`; on the CPU if no device is given."""
    return torch.Generator(device or "cpu").manual_seed(named_seed(seed, name))


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
