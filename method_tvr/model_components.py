"""The blocks ReLoCLNet is built of. Attribute names are the keys of published checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


def keep_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """Random mask on the CPU: 0 with probability `p` (to 1/65536), 1 elsewhere.

    torch's own CPU dropout draws a float per element, which takes longer than the matrix products around it. Here each
    64-bit number of a fast generator, seeded by torch's, gives four draws.
    """
    n = shape.numel()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = torch.from_numpy(np.random.SFC64(seed).random_raw((n + 3) // 4).view(np.int16))[:n]
    return torch.ge(draws.view(shape), _dropped_levels(p) - 32768, out=torch.empty(shape, dtype=dtype))


def _dropped_levels(p: float) -> int:
    return round(p * 65536)  # of the 65536 values of 16 bits


def keep_scale(p: float) -> float:
    """What kept elements are multiplied by, for the probability that `keep_mask` really has."""
    return 65536 / (65536 - _dropped_levels(p))


class Dropout(nn.Dropout):
    """Dropout with cheap random numbers on the CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        return x * keep_mask(x.shape, self.p, x.dtype).mul_(keep_scale(self.p))


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor, dropout_p: float
) -> torch.Tensor:
    """softmax(query key' / sqrt(d)) value, with dropout on the weights.

    torch's fused kernels are used wherever there are any. On the CPU there are none with dropout.

    Args:
        query: (N, nh, Lq, d); key, value: (N, nh, Lk, d).
        visible: (N, 1, 1 or Lq, Lk) bool, True where a query may look at a key.
        dropout_p: probability of dropping a weight; 0 in evaluation.
    """
    if dropout_p == 0 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout_p)
    hidden = torch.zeros(visible.shape, dtype=query.dtype).masked_fill_(~visible, -torch.inf)
    attended: torch.Tensor = _DropoutAttention.apply(query, key, value, hidden, dropout_p)
    return attended


class _DropoutAttention(torch.autograd.Function):
    """Attention with dropout in as few passes over the (Lq, Lk) weights as plain operations can do it.

    Autograd would copy the weights for each mask, forward and backward; torch's own function falls back to just that.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor, dropout_p: float
    ) -> torch.Tensor:
        """`hidden` (N, 1, 1 or Lq, Lk) is added to scores: -inf on keys that a query may not see, elsewhere 0."""
        with torch.autocast("cpu", enabled=False):
            scale = query.shape[-1] ** -0.5
            q, k, v = (x.flatten(0, 1) for x in (query, key, value))  # (N * nh, L, d)
            scores = _bmm(q, k.transpose(1, 2), scale).view(*query.shape[:3], -1)  # (N, nh, Lq, Lk)
            weights = scores.add_(hidden).softmax(dim=-1)
            keep = keep_mask(weights.shape, dropout_p, weights.dtype)
            attended = _bmm((weights * keep).flatten(0, 1), v, keep_scale(dropout_p))
        ctx.save_for_backward(q, k, v, weights, keep)
        ctx.scale, ctx.keep_scale = scale, keep_scale(dropout_p)
        return attended.view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, weights, keep = ctx.saved_tensors
        grad = grads[0].flatten(0, 1)
        grad_v = _bmm((weights * keep).flatten(0, 1).transpose(1, 2), grad, ctx.keep_scale)
        grad_weights = _bmm(grad, v.transpose(1, 2), ctx.keep_scale).view(weights.shape).mul_(keep)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).flatten(0, 1)
        grad_q = _bmm(grad_scores, k, ctx.scale)
        grad_k = _bmm(grad_scores.transpose(1, 2), q, ctx.scale)
        shape = grads[0].shape[:2]
        return (*(x.unflatten(0, shape) for x in (grad_q, grad_k, grad_v)), None, None)


def _bmm(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """scale * (a @ b) in one pass over the result."""
    out = a.new_empty((len(a), a.shape[1], b.shape[2]))
    return torch.baddbmm(out, a, b, beta=0, alpha=scale)


class LinearLayer(nn.Module):
    """LayerNorm, dropout, Linear, ReLU: projects input features to the hidden size (as in TVRetrieval)."""

    def __init__(self, in_size: int, out_size: int, dropout: float) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(in_size)
        self.net = nn.Sequential(Dropout(dropout), nn.Linear(in_size, out_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.net(self.LayerNorm(x)))  # (N, L, out_size)


class TrainablePositionalEncoding(nn.Module):
    """Add a learned vector per position, LayerNorm, dropout."""

    def __init__(self, max_position_embeddings: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(max_position_embeddings, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = self.position_embeddings.weight[: x.shape[1]]  # (L, D)
        return self.dropout(self.LayerNorm(x + positions))  # (N, L, D)


class BertSelfAttention(nn.Module):
    """Multi-head attention without an output projection.

    Masked keys get no weight. The reference adds -10000 to their scores instead, which float32 cannot tell apart.
    """

    def __init__(self, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        if hidden_size % n_heads:
            raise ValueError(f"hidden_size {hidden_size} is not a multiple of n_heads {n_heads}")
        self.n_heads = n_heads
        self.dropout = dropout
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)

    def forward(self, query: torch.Tensor, key_value: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Attend from `query` to `key_value`.

        Args:
            query: (N, Lq, D).
            key_value: (N, Lk, D), both keys and values.
            visible: (N, 1 or Lq, Lk) bool, True where a query may look at a key.

        Returns:
            (N, Lq, D), heads concatenated.
        """
        attended = attention(
            self._split_heads(self.query(query)),  # (N, nh, Lq, D/nh)
            self._split_heads(self.key(key_value)),
            self._split_heads(self.value(key_value)),
            visible.unsqueeze(1),  # (N, 1, 1 or Lq, Lk)
            self.dropout if self.training else 0.0,
        )
        return attended.transpose(1, 2).flatten(2)

    def _split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class BertSelfOutput(nn.Module):
    """Linear, dropout, residual, LayerNorm."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class BertAttention(nn.Module):
    """One post-norm attention block. There is no feed-forward sub-layer, as in the reference."""

    def __init__(self, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.self = BertSelfAttention(hidden_size, n_heads, dropout)
        self.output = BertSelfOutput(hidden_size, dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Self-attention over x (N, L, D); mask (N, L) bool hides padded keys. Padded queries are computed as well."""
        return self.output(self.self(x, x, mask.unsqueeze(1)), x)


def pool_clips(similarity: torch.Tensor) -> torch.Tensor:
    """A video's score from the similarities of its clips: the best one's. In training and in search alike.

    Args:
        similarity: (…, L); clips that do not exist have a very low one, or are left out.

    Returns:
        (…).
    """
    return similarity.amax(dim=-1)


def init_weights(module: nn.Module, std: float, generator: torch.Generator) -> None:
    """Fresh weights: Linear and Embedding normal(0, std), biases 0, LayerNorm 1/0, Conv1d torch's default law."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, 0.0, std, generator=generator)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv1d):
            nn.init.kaiming_uniform_(part.weight, a=5**0.5, generator=generator)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
