"""The states of the global random generators, taken and given back.

A state that was saved may have been damaged or made to do harm: numpy reads wherever a state says that it is, torch
nearly so, and there are states with which some draws never end.
"""

from __future__ import annotations

import math
import random
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

CUDA_STATE_BYTES = 16
N_WORDS = 624  # in the Mersenne Twister, which Python, numpy and torch all draw from
TORCH_POSITION = struct.Struct("<8xi4xQ")  # in a state of torch: how many draws until new words are made, the next word


@dataclass(frozen=True)
class RandomStates:
    """States of the generators of Python, numpy, torch and one CUDA device, as these give them."""

    python: Any
    numpy: dict[str, Any]
    cpu: torch.Tensor  # torch's own
    cuda: torch.Tensor | None

    @classmethod
    def take(cls, device: torch.device) -> RandomStates:
        """The present states; `device` is the one whose CUDA generator counts, if it is a CUDA device."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        numpy = dict(np.random.get_state(legacy=False))  # noqa: NPY002  (libraries draw from the global generator)
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def give_back(self, device: torch.device) -> None:
        """Set the generators to these states; a CUDA device that had none keeps its own."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, device)

    def to_plain(self) -> dict[str, Any]:
        """As plain types and tensors, for a checkpoint."""
        version, words, gauss = self.python
        key = self.numpy["state"]["key"]
        return {
            "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
            "numpy": {**self.numpy, "state": {**self.numpy["state"], "key": torch.from_numpy(key.astype(np.int64))}},
            "cpu": self.cpu,
            "cuda": self.cuda,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> RandomStates:
        """Back from `to_plain`; KeyError, TypeError, AttributeError or ValueError when it is something else."""
        python, numpy, cuda = plain["python"], plain["numpy"], plain["cuda"]
        *words, place = _integers(python["words"], N_WORDS + 1)
        key, pos = _integers(numpy["state"]["key"], N_WORDS), numpy["state"]["pos"]
        _check_twister(words, place)
        _check_twister(key, pos)
        check_torch_state(plain["cpu"])
        version, kind, has_gauss = python["version"], numpy["bit_generator"], numpy["has_gauss"]
        for value, known in ((version, random.getstate()[:1]), (kind, ("MT19937",)), (has_gauss, (0, 1))):
            if type(value) is not type(known[0]) or value not in known:
                raise ValueError("states of other generators")
        for deviate in (numpy["gauss"], 0.0 if python["gauss"] is None else python["gauss"]):
            if type(deviate) is not float or not math.isfinite(deviate):
                raise ValueError("a generator's state with a normal deviate that is none")
        if cuda is not None and (cuda.dtype != torch.uint8 or cuda.ndim != 1):
            raise ValueError(f"a CUDA generator's state of {tuple(cuda.shape)} {cuda.dtype}")
        state = {"key": np.array(key, dtype=np.uint32), "pos": pos}
        return cls(
            (version, (*words, place), python["gauss"]),
            {"bit_generator": kind, "state": state, "has_gauss": has_gauss, "gauss": numpy["gauss"]},
            plain["cpu"],
            cuda,
        )


def check_torch_state(state: Any) -> None:
    """Refuse, by TypeError or ValueError, what is no state of a generator of torch on the CPU.

    torch would refuse it, or read past its words.
    """
    own = torch.Generator().get_state()
    if not isinstance(state, torch.Tensor) or (state.dtype, state.shape) != (own.dtype, own.shape):
        raise TypeError(f"a {type(state).__name__} that is no state of a generator")
    left, pos = TORCH_POSITION.unpack_from(bytes(state.tolist()))
    if not 1 <= left <= left + pos <= N_WORDS + 1:
        raise ValueError(f"a generator's state with {left} draws left from word {pos} on")


def is_cuda_state(state: Any) -> bool:
    """Whether this is the state of a generator of torch on a GPU: a seed and how far it has drawn."""
    return isinstance(state, torch.Tensor) and (state.dtype, state.shape) == (torch.uint8, (CUDA_STATE_BYTES,))


def _integers(tensor: torch.Tensor, n: int) -> list[int]:
    if tensor.dtype != torch.int64 or tensor.shape != (n,):
        raise ValueError(f"a generator's state of {tuple(tensor.shape)} {tensor.dtype} instead of {n} integers")
    numbers: list[int] = tensor.tolist()
    return numbers


def _check_twister(words: list[int], pos: Any) -> None:
    if type(pos) is not int or not 0 <= pos <= N_WORDS:
        raise ValueError("a generator's state whose position is none")
    if not all(0 <= word < 1 << 32 for word in words):
        raise ValueError("a generator's state of other than 32-bit words")
    if not any(words[1:]) and words[0] < 1 << 31:  # the other bits of the first word do not count
        raise ValueError("a generator's state that gives nothing but zeros")
