"""The blocks that ReLoCLNet and XML are built of. Attribute names are the keys of published checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

ALIGNED = 8  # numbers of 16 bits a row of a matrix must be a multiple of, for a GPU's fast products
HALF = (torch.bfloat16, torch.float16)


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
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor, dropout_p: float
) -> torch.Tensor:
    """softmax(query key' / sqrt(d) + hidden) value, with dropout on the weights.

    torch's fused kernels are used wherever there are any. On the CPU there are none with dropout.

    Args:
        query: (N, nh, Lq, d); key, value: (N, nh, Lk, d).
        hidden: (N, 1, 1 or Lq, Lk), see `hide`.
        dropout_p: probability of dropping a weight; 0 in evaluation.
    """
    if dropout_p == 0 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=hidden, dropout_p=dropout_p)
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


class _OwnProducts(torch.autograd.Function):
    """Products of each row's query with its own clips, see `own_products`."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(query, clips)
        return torch.bmm(clips, query.unsqueeze(2)).squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        query, clips = ctx.saved_tensors
        grad = grads[0]
        return torch.bmm(grad.unsqueeze(1), clips).squeeze(1), grad.unsqueeze(2) * query.unsqueeze(1)


def own_products(query: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    """(N, D) queries, (N, L, D) clips of each -> (N, L) dot products.

    As einsum("nd,nld->nl"), whose gradient of clips is an outer product that newer versions of torch leave to a
    compiler on a GPU: not every machine has one.
    """
    products: torch.Tensor = _OwnProducts.apply(query, clips)
    return products


class LinearLayer(nn.Module):
    """LayerNorm, dropout, Linear, ReLU: projects input features to the hidden size (as in TVRetrieval)."""

    def __init__(self, in_size: int, out_size: int, dropout: float) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(in_size)
        self.net = nn.Sequential(Dropout(dropout), nn.Linear(in_size, out_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropout, linear = self.net
        assert isinstance(linear, nn.Linear)
        x = dropout(self.LayerNorm(x))
        weight: torch.Tensor = linear.weight
        missing = -x.shape[-1] % ALIGNED
        if missing and x.dtype in HALF and x.is_cuda:  # 3074 and 770 with tef: zeros change nothing but the speed
            x, weight = F.pad(x, (0, missing)), F.pad(weight, (0, missing))
        return F.relu(F.linear(x, weight, linear.bias))  # (N, L, out_size)


class TrainablePositionalEncoding(nn.Module):
    """Add a learned vector per position, LayerNorm, dropout."""

    def __init__(self, max_position_embeddings: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(max_position_embeddings, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = self.position_embeddings.weight
        if x.shape[1] < len(positions):  # the way back of a slice is a copy
            positions = positions[: x.shape[1]]  # (L, D)
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

    def forward(self, query: torch.Tensor, key_value: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Attend from `query` (N, Lq, D) to `key_value` (N, Lk, D): (N, Lq, D), heads concatenated.

        `hidden` (N, 1 or Lq, Lk) hides keys from a query, see `hide`.
        """
        if key_value is query:
            q, k, v = _side_by_side(query, self.query, self.key, self.value)
        else:
            q, (k, v) = self.query(query), _side_by_side(key_value, self.key, self.value)
        attended = attention(
            self._split_heads(q),  # (N, nh, Lq, D/nh)
            self._split_heads(k),
            self._split_heads(v),
            hidden.unsqueeze(1),  # (N, 1, 1 or Lq, Lk)
            self.dropout if self.training else 0.0,
        )
        return attended.transpose(1, 2).flatten(2)

    def _split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def _side_by_side(x: torch.Tensor, *layers: nn.Linear) -> Sequence[torch.Tensor]:
    """What several layers of one size make of x. On a GPU by one product: it is as fast as each of them would be."""
    if not x.is_cuda:
        return [layer(x) for layer in layers]
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return F.linear(x, weight, bias).chunk(len(layers), dim=-1)


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

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Self-attention over x (N, L, D); hidden (N, 1, L) hides padded keys, see `hide`, but no queries."""
        return self.output(self.self(x, x, hidden), x)


class _Copies(torch.autograd.Function):
    """Copies of tensors in another number type, and of their gradients back, in a few kernels for all of them."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_copied(tensors, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        copies = iter(_copied([grad for grad in grads if grad is not None], torch.float32))
        return None, *(None if grad is None else next(copies) for grad in grads)


def _copied(tensors: Sequence[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return copies


@contextmanager
def computing_in(module: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Within it, a module computes in another number type; its parameters stay in float32, and get float32 gradients.

    On the CPU by torch's autocast. On a GPU, which spends more time on autocast's hundreds of conversions than on the
    products, all parameters are copied at once, and the module is as one of that type: norms and sums between layers
    too, as in the mixed precision of FSDP. None changes nothing.
    """
    parameters = [(part, name, p) for part in module.modules() for name, p in part._parameters.items() if p is not None]
    if dtype is None or not parameters[0][2].is_cuda:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            yield
        return
    copies = _Copies.apply(dtype, *(p for _, _, p in parameters))
    try:
        for (part, name, _), copy in zip(parameters, copies, strict=True):
            part._parameters[name] = copy
        yield
    finally:
        for part, name, p in parameters:
            part._parameters[name] = p


def pool_clips(similarity: torch.Tensor) -> torch.Tensor:
    """(…, L) similarities of a video's clips -> (…) its score, the best one's. In training and in search alike.

    Clips that do not exist have a very low one, or are left out.
    """
    return similarity.amax(dim=-1)


class SpanPredictor(Protocol):
    """What tells at inference, of each clip, whether a moment starts and ends there.

    Logits are those of two probabilities, whose product is a span's score; or, where it `scores_spans`, parts of one
    logarithm: the sum of a start's and an end's is that of the span's score.
    """

    scores_spans: bool = False

    def __call__(self, similarity: torch.Tensor, n_clips: torch.Tensor) -> torch.Tensor:
        """(n, L) similarities of a query with the clips of a video, of which it has (n,) -> (n, 2, L) logits.

        Those past a video's clips are not read.
        """


class ConvSE(SpanPredictor):
    """ConvSE (SIGIR 2021, 3.4) at inference: convolutions of the similarities with two kernels, (kernel,) each.

    For the wide batches of a search, one product with a matrix is several times faster than a convolution.
    """

    def __init__(self, st_kernel: torch.Tensor, ed_kernel: torch.Tensor) -> None:
        self._kernels = st_kernel.detach(), ed_kernel.detach()
        self._matrices = st_kernel.new_zeros((0, 2, 0))  # for the longest video so far

    def __call__(self, similarity: torch.Tensor, n_clips: torch.Tensor) -> torch.Tensor:
        length = similarity.shape[1]
        if len(self._matrices) < length:
            self._matrices = torch.stack([convolution_matrix(kernel, length) for kernel in self._kernels], dim=1)
        return (similarity @ self._matrices[:length, :, :length].flatten(1)).view(-1, 2, length)


def conv_predictors(st_kernels: torch.Tensor, ed_kernels: torch.Tensor) -> list[SpanPredictor]:
    """Of kernels (P, 1, kernel), or one (kernel,)."""
    pairs = zip(*(kernels.reshape(-1, kernels.shape[-1]) for kernels in (st_kernels, ed_kernels)), strict=True)
    return [ConvSE(*pair) for pair in pairs]


def convolution_matrix(kernel: torch.Tensor, length: int) -> torch.Tensor:
    """(length, length): x @ it is the convolution of x with `kernel` as Conv1d pads and computes it."""
    matrix = kernel.new_zeros((length, length))
    for i, weight in enumerate(kernel):
        offset = len(kernel) // 2 - i
        if abs(offset) < length:
            matrix.diagonal(offset).fill_(weight)
    return matrix


def first_clips(clips: torch.Tensor, n: int) -> torch.Tensor:
    """(N, n, D) of clips (N, L, D): of all of them no slice, through which gradients would add up in another order."""
    return clips if n == clips.shape[1] else clips[:, :n]


def mean_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of tensors of one shape; of one it is that one."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).mean(dim=0)


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
