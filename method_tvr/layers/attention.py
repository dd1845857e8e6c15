"""Attention: what hides keys, and torch's fused kernels, or where there are none as few passes as it takes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from method_tvr.layers.dropout import keep_scale, kept, random_draws
from method_tvr.layers.seen import Part, Seen

ALIGNED = 8  # numbers of 16 bits a row of a matrix must be a multiple of, for a GPU's fast products


def hide(visible: torch.Tensor, dtype: torch.dtype = torch.float32, elsewhere: float = -torch.inf) -> torch.Tensor:
    """What is added to attention scores (of `dtype`) so that only keys get weight where `visible` (…, L) is 1 or True.

    0 there, `elsewhere` where not. Made once for all layers that look at the same keys: on a GPU each would turn its
    mask into this.
    """
    length = visible.shape[-1]
    # in rows of a length that GPU's kernels take as they are; and log(1) is 0, log(0) is -inf, in one kernel
    hidden = torch.empty((*visible.shape[:-1], length + -length % ALIGNED), dtype=dtype, device=visible.device)
    out = hidden[..., :length]
    return torch.log(visible, out=out) if elsewhere == -torch.inf else torch.mul(1 - visible, elsewhere, out=out)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    hidden: torch.Tensor,
    n_heads: int,
    dropout_p: float,
    seen: Seen | None = None,
) -> torch.Tensor:
    """softmax(query key' / sqrt(d) + hidden) value of each of several heads, with dropout on the weights.

    torch's fused kernels are used wherever there are any. On the CPU there are none with dropout.

    Args:
        query: (N, Lq, D); key, value: (N, Lk, D), each the heads' vectors side by side.
        hidden: (N, 1 or Lq, Lk), see `hide`.
        n_heads: number of heads.
        dropout_p: probability of dropping a weight; 0 in evaluation.
        seen: of queries its clips (R, D) are given, and also of keys and values, or of these all (N, L, D).

    Returns what queries attend to, in their shape.
    """
    if seen is None and (dropout_p == 0 or query.device.type != "cpu"):
        q, k, v = (x.unflatten(-1, (n_heads, -1)).transpose(1, 2) for x in (query, key, value))  # (N, nh, L, d)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden.unsqueeze(1), dropout_p=dropout_p)
        return attended.transpose(1, 2).flatten(2)
    of_heads: torch.Tensor = _DropoutAttention.apply(query, key, value, hidden, n_heads, dropout_p, seen)
    return of_heads


class _DropoutAttention(torch.autograd.Function):
    """Attention with dropout in as few passes over the (Lq, Lk) weights as plain operations can do it.

    Autograd would copy the weights for each mask, forward and backward; torch's own function falls back to just that.
    Videos of which equally many clips are seen are treated together.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        hidden: torch.Tensor,
        n_heads: int,
        dropout_p: float,
        seen: Seen | None,
    ) -> torch.Tensor:
        lengths = (query.shape[1], key.shape[1]) if seen is None else (seen.length, seen.length)
        drawn_for = torch.Size((len(hidden), n_heads, *lengths))
        draws = random_draws(drawn_for) if dropout_p else torch.zeros(drawn_for, dtype=torch.int16)
        ctx.scale, ctx.keep_scale = (query.shape[-1] // n_heads) ** -0.5, keep_scale(dropout_p)
        ctx.n_heads, ctx.shapes, ctx.parts = n_heads, (query.shape, key.shape), [None] if seen is None else seen.parts
        attended, saved = torch.empty_like(query), []
        with torch.autocast("cpu", enabled=False):
            for part in ctx.parts:
                q, k, v = (_heads(_of_part(x, part), n_heads) for x in (query, key, value))
                unseen, drawn = hidden, draws
                if part:
                    n_queries, n_keys = q.shape[1], k.shape[1]
                    unseen = hidden[:, :n_queries, :n_keys].index_select(0, part.videos)
                    drawn = draws[:, :, :n_queries, :n_keys].index_select(0, part.videos)
                scores = _of_pairs(q, k, ctx.scale).unflatten(0, (-1, n_heads))  # (B, nh, Lq, Lk)
                weights = scores.add_(unseen.unsqueeze(1)).softmax(dim=-1)
                keep = kept(drawn, dropout_p, weights.dtype)
                found = _bmm((weights * keep).flatten(0, 1), v, ctx.keep_scale)
                _write(attended, part, _side_by_side(found, n_heads))
                saved += [q, k, v, weights, keep]
        ctx.save_for_backward(*saved)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_queries, of_keys = ctx.shapes
        found = [grads[0].new_empty(shape) for shape in (of_queries, of_keys, of_keys)]
        saved = ctx.saved_tensors  # once: who keeps them elsewhere brings them back for each asking
        for i, part in enumerate(ctx.parts):
            q, k, v, weights, keep = saved[5 * i : 5 * i + 5]
            grad = _heads(_of_part(grads[0], part), ctx.n_heads)
            grad_v = _bmm((weights * keep).flatten(0, 1).transpose(1, 2), grad, ctx.keep_scale)
            grad_weights = _of_pairs(grad, v, ctx.keep_scale).view(weights.shape).mul_(keep)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).flatten(0, 1)
            grad_q = _bmm(grad_scores, k, ctx.scale)
            grad_k = _bmm(grad_scores.transpose(1, 2), q, ctx.scale)
            for out, of_part in zip(found, (grad_q, grad_k, grad_v), strict=True):
                _write(out, part, _side_by_side(of_part, ctx.n_heads))
        return *found, None, None, None, None


def _of_part(x: torch.Tensor, part: Part | None) -> torch.Tensor:
    """(B, l, D) of seen clips (R, D), or of all clips (N, L, D); all of it without a part."""
    if part is None:
        return x
    if x.dim() == 3:
        return x.index_select(0, part.videos)
    return x[part.rows].unflatten(0, (len(part.videos), -1))


def _write(out: torch.Tensor, part: Part | None, found: torch.Tensor) -> None:
    """Put (B, l, nh, d) where `_of_part` reads it."""
    if part is None:
        out.view(found.shape).copy_(found)
    elif out.dim() == 3:
        out.index_copy_(0, part.videos, found.flatten(2))
    else:
        out[part.rows].view(found.shape).copy_(found)


def _heads(x: torch.Tensor, n_heads: int) -> torch.Tensor:
    """(B, l, D) -> (B * nh, l, d)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2).flatten(0, 1)


def _side_by_side(x: torch.Tensor, n_heads: int) -> torch.Tensor:
    """(B * nh, l, d) -> (B, l, nh, d), a view."""
    return x.unflatten(0, (-1, n_heads)).transpose(1, 2)


def _of_pairs(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """scale * (a @ b'): (n, La, d), (n, Lb, d) -> (n, La, Lb)."""
    if a.shape[1] == b.shape[1]:
        return _bmm(a, b.transpose(1, 2), scale)
    # MKL may scale the smaller of two factors first: not the same, in the last bit, as the beginning of a square
    return torch.bmm(a, b.transpose(1, 2)).mul_(scale)


def _bmm(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """scale * (a @ b) in one pass over the result."""
    out = a.new_empty((len(a), a.shape[1], b.shape[2]))
    return torch.baddbmm(out, a, b, beta=0, alpha=scale)
