"""Dropout with cheap random numbers on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from method_tvr.layers.seen import Seen


def random_draws(shape: torch.Size) -> torch.Tensor:
    """Random int16 on the CPU, for `kept`.

    torch's own CPU dropout draws a float per element, which takes longer than the matrix products around it. Here each
    64-bit number of a fast generator, seeded by torch's, gives four draws.
    """
    n = shape.numel()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    return torch.from_numpy(np.random.SFC64(seed).random_raw((n + 3) // 4).view(np.int16))[:n].view(shape)


def kept(draws: torch.Tensor, p: float, dtype: torch.dtype) -> torch.Tensor:
    """A mask of draws: 0 with probability `p` (to 1/65536), 1 elsewhere."""
    return torch.ge(draws, _dropped_levels(p) - 32768, out=torch.empty(draws.shape, dtype=dtype))


def _dropped_levels(p: float) -> int:
    return round(p * 65536)  # of the 65536 values of 16 bits


def keep_scale(p: float) -> float:
    """What kept elements are multiplied by, for the probability that `kept` really has."""
    return 65536 / (65536 - _dropped_levels(p))


class Dropout(nn.Dropout):
    """Dropout with cheap random numbers on the CPU, of (N, L, …), or of its seen clips (R, …)."""

    def forward(self, x: torch.Tensor, seen: Seen | None = None) -> torch.Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        if seen is None:
            draws = random_draws(x.shape)
        else:
            draws = seen.of(random_draws(torch.Size((seen.n_videos, seen.length, *x.shape[1:]))))
        return x * kept(draws, self.p, x.dtype).mul_(keep_scale(self.p))
