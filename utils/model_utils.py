"""Devices and what goes wrong with them, seeds and parameter counts."""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from utils.basic_utils import InputError, first_line

# {value of an option: one that needs less memory}
NEEDING_LESS = {"fp32": "fp16", "off": "bf16", "device": "ram", "auto": "ram"}
# how CUDA, cuBLAS, cuDNN and NCCL say that a device has no memory left
OUT_OF_MEMORY = re.compile("CUDA out of memory|CUDA error: out of memory|'out of memory'|_STATUS_ALLOC_FAILED")


class TooOldError(InputError):
    """A CUDA device is there, but torch has no code for one so old, or so new."""


def choose_device(device: int, tf32: bool | None = None) -> torch.device:
    """CUDA device `device` when it is there, else the CPU, said aloud; -1 asks for the CPU.

    `InputError` when it is there, but does not work. For `tf32`, see `use_cuda`.
    """
    if device < 0:
        return torch.device("cpu")
    reason = _why_no_cuda()
    if reason is None:
        if device >= torch.cuda.device_count():
            print(f"note: there is no CUDA device {device}, using cuda:0", file=sys.stderr)
            device = 0
        try:
            return use_cuda(device, tf32)
        except TooOldError as err:
            reason = str(err)
    print(
        f"note: CUDA is not available, using the CPU: {reason} (--device -1 asks for it without this note)",
        file=sys.stderr,
    )
    return torch.device("cpu")


def use_cuda(number: int, tf32: bool | None = None) -> torch.device:
    """Make a CUDA device the one that this process uses where none is named, as when memory is pinned.

    Args:
        number: of the device.
        tf32: see `set_precision`; None leaves torch's defaults, TF32 in convolutions alone.

    Raises:
        TooOldError: torch has no code for it.
        InputError: it does not compute, for whatever reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of devices that are old: what comes of it is said below
            _add_on(number)
    except (RuntimeError, torch.cuda.DeferredCudaCallError) as err:
        if "no kernel image" in str(err):
            raise TooOldError(f"torch {torch.__version__} is not built for a device such as cuda:{number}") from err
        raise InputError(
            f"--device {number}: cuda:{number} is there but cannot be used ({first_line(err)}): see what nvidia-smi "
            "says about it, or give another --device, -1 for the CPU"
        ) from err
    torch.cuda.set_device(number)
    if tf32 is not None:
        set_precision(tf32)
    return torch.device("cuda", number)


def set_precision(tf32: bool) -> None:
    """Let CUDA round what float32 products and convolutions multiply to TF32, 10 bits of 23, or let it not."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def _why_no_cuda() -> str | None:
    """Why torch cannot use CUDA, None where it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's words are many
        if torch.cuda.is_available():
            return None
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} was installed without it"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as err:
        said = first_line(err)
    else:
        said = "torch finds no device"
    if "no NVIDIA driver" in said:
        return "there is no NVIDIA driver"
    if "driver on your system is too old" in said:
        return (
            f"the NVIDIA driver is too old for torch {torch.__version__}, built for CUDA {torch.version.cuda}: update "
            "the driver, or install a torch for an older CUDA"
        )
    return said


def _add_on(number: int) -> None:
    """See whether a CUDA device can add. What fails does so here, or when it is next waited for."""
    torch.zeros(1, device=f"cuda:{number}").add_(1)
    torch.cuda.synchronize(number)


@contextmanager
def named_when_out_of_memory(opt: Mapping[str, Any], names: Sequence[str], more: str = "") -> Iterator[None]:
    """Make CUDA memory that runs out an `InputError` that says how much was asked for, and which options need less.

    Those `names` of the program's options `opt` decide how much is needed; `more` is said at the end.
    """
    try:
        yield
    except RuntimeError as err:
        if not isinstance(err, torch.cuda.OutOfMemoryError) and OUT_OF_MEMORY.search(str(err)) is None:
            raise
        raise InputError(f"{_what_did_not_fit(err)}: try {_needing_less(opt, names)}{more}") from err


def _what_did_not_fit(err: RuntimeError) -> str:
    asked = re.search(r"Tried to allocate ([\d.]+ \w+)", str(err))
    card = re.search(r"GPU (\d+) has a total capacity of ([\d.]+ \w+)(?: of which ([\d.]+ \w+) is free)?", str(err))
    if asked is None or card is None:
        return f"the GPU's memory is not enough ({first_line(err)})"
    free = f", of which {card[3]} are free" if card[3] else ""
    return f"the GPU's memory is not enough: {asked[1]} were asked for, and GPU {card[1]} has {card[2]} in all{free}"


def _needing_less(opt: Mapping[str, Any], names: Sequence[str]) -> str:
    """What options that need less memory than those chosen are called, as a list in words."""
    found = []
    for name in names:
        value = opt[name]
        if value is False:
            found.append(f"--{name}")
        elif value in NEEDING_LESS:
            found.append(f"--{name} {NEEDING_LESS[value]}")
        elif type(value) is int and value > 1:
            found.append(f"a --{name} below {value}")
    return ", ".join([*found, "or --device -1 for the CPU"] if found else ["--device -1 for the CPU"])


def available_cpus() -> int:
    """CPUs this process may use, where the system says so, else those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> float:
    """Bytes of memory for this process: its share of what the system can give, taking none from others.

    A container may have less, and a launcher's other processes on the machine want as much. Infinite where the system
    does not say.
    """
    found = math.inf
    with suppress(OSError, ValueError), open("/proc/meminfo") as lines:
        found = min(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max") as limit:  # of some, "max"
        found = min(found, int(limit.read()))
    return found / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


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
