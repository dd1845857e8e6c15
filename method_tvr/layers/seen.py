"""Layers of those clips of padded videos that somebody looks at, with the gradients that they have of all clips.

Training pads videos to one length, and most of what it computes in padding reaches no loss. `Seen` says which clips do;
they lie one after another, (R, …) instead of (N, L, …), and the layers here compute no others. Gradients of others are
0, yet they count in the last bits of a weight's gradient: how a sum over rows is divided, among threads and within a
matrix product, depends on their number. So that sum is still one over all clips, with zeros in place of what was not
computed, and random numbers are drawn for all of them. What a model learns is then the same: to the last bit where
AVX-512 computes it, for videos padded to 128 clips as for fewer (from 192 on products are divided by length, too), by
no more threads than attention has heads (more divide the products of a head). Elsewhere it is the same to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

Move = Callable[[torch.Tensor], torch.Tensor]


class Part(NamedTuple):
    """Videos of which equally many clips are seen."""

    videos: torch.Tensor  # (B,) which
    rows: slice  # where their clips lie, B times as many as of each


class Seen:
    """Which clips of N padded videos somebody looks at: R in all. They are computed on the CPU alone.

    Args:
        n_clips: so many of each video, its first ones.
        length: L, clips that videos are padded to.
    """

    def __init__(self, n_clips: Sequence[int], length: int) -> None:
        self.n_videos, self.length = len(n_clips), length
        self.parts: list[Part] = []  # videos of which few clips are seen come first
        places, n_rows = [], 0
        for n in sorted(set(n_clips)):
            videos = torch.tensor([video for video, other in enumerate(n_clips) if other == n])
            places.append((videos.unsqueeze(1) * length + torch.arange(n)).flatten())
            self.parts.append(Part(videos, slice(n_rows, n_rows + len(videos) * n)))
            n_rows += len(videos) * n
        self._places = torch.cat(places)  # (R,) where in (N * L) each lies
        self._rows = torch.zeros(len(n_clips) * length, dtype=torch.int64)  # (N * L,) and where in (R), else 0
        self._rows[self._places] = torch.arange(n_rows)
        self._zeros = torch.empty(0, 0)

    def of(self, padded: torch.Tensor) -> torch.Tensor:
        """(N, L, …) -> (R, …)."""
        return padded.flatten(0, 1).index_select(0, self._places)

    def padded(self, x: torch.Tensor) -> torch.Tensor:
        """(R, …) -> (N, L, …), with zeros elsewhere."""
        of_all = x.new_zeros((len(self._rows), *x.shape[1:]))
        return of_all.index_copy_(0, self._places, x).unflatten(0, (self.n_videos, self.length))

    def for_sum(self, x: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, …) and the gradient (R, D) that it is multiplied with -> (N * L, …) and (N * L, D), for a sum over clips.

        Elsewhere the gradient is 0, and x anything that is finite. The gradient's memory is used again by the next.
        """
        if self._zeros.shape[1] != grad.shape[1]:
            self._zeros = grad.new_zeros((len(self._rows), grad.shape[1]))
        return x.index_select(0, self._rows), self._zeros.index_copy_(0, self._places, grad)


class _Moved(torch.autograd.Function):
    """What moves clips there, and their gradients back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, there: Move, back: Move) -> torch.Tensor:
        ctx.back = back
        return there(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.back(grads[0]), None, None


def seen_of(padded: torch.Tensor, seen: Seen | None) -> torch.Tensor:
    """(N, L, …) -> (R, …), or all of it where there is no `seen`."""
    return padded if seen is None else _Moved.apply(padded, seen.of, seen.padded)


def padded_again(x: torch.Tensor, seen: Seen | None) -> torch.Tensor:
    """(N, L, …) of what `seen_of` gave, with zeros elsewhere."""
    return x if seen is None else _Moved.apply(x, seen.padded, seen.of)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, seen: Seen) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.seen = seen
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_all, grad_of_all = ctx.seen.for_sum(x, grads[0])
        grad_bias = grad_of_all.sum(dim=0) if ctx.needs_input_grad[2] else None
        return grads[0] @ weight, grad_of_all.t() @ of_all, grad_bias, None


class Linear(nn.Linear):
    """A linear layer of (N, L, …), or of its seen clips (R, …)."""

    def forward(self, x: torch.Tensor, seen: Seen | None = None) -> torch.Tensor:
        y: torch.Tensor = super().forward(x) if seen is None else _Linear.apply(x, self.weight, self.bias, seen)
        return y


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, seen: Seen
    ) -> torch.Tensor:
        y, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight, bias)
        ctx.seen = seen
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, mean, rstd, weight, bias = ctx.saved_tensors
        way_back, shape = torch.ops.aten.native_layer_norm_backward, weight.shape
        grad_x, _, _ = way_back(grads[0], x, shape, mean, rstd, weight, bias, [True, False, False])
        mean, rstd = (ctx.seen.padded(part).flatten(0, 1) for part in (mean, rstd))
        x, grad = ctx.seen.for_sum(x, grads[0])
        _, *of_weights = way_back(grad, x, shape, mean, rstd, weight, bias, [False, True, True])
        return grad_x, *of_weights, None, None


class LayerNorm(nn.LayerNorm):
    """LayerNorm of (N, L, …), or of its seen clips (R, …)."""

    def forward(self, x: torch.Tensor, seen: Seen | None = None) -> torch.Tensor:
        y: torch.Tensor = (
            super().forward(x) if seen is None else _LayerNorm.apply(x, self.weight, self.bias, self.eps, seen)
        )
        return y
