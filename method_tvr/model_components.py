"""The blocks that ReLoCLNet and XML are built of. Attribute names are the keys of published checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from method_tvr.layers.attention import ALIGNED, attention
from method_tvr.layers.dropout import Dropout
from method_tvr.layers.seen import LayerNorm, Linear, Seen, seen_of

HALF = (torch.bfloat16, torch.float16)


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
        self.LayerNorm = LayerNorm(in_size)
        self.net = nn.Sequential(Dropout(dropout), Linear(in_size, out_size))

    def forward(self, x: torch.Tensor, seen: Seen | None = None) -> torch.Tensor:
        dropout, linear = self.net
        assert isinstance(linear, Linear)
        x = dropout(self.LayerNorm(x, seen), seen)
        missing = -x.shape[-1] % ALIGNED
        if missing and x.dtype in HALF and x.is_cuda:  # 3074 and 770 with tef: zeros change nothing but the speed
            x, weight = F.pad(x, (0, missing)), F.pad(linear.weight, (0, missing))
            return F.relu(F.linear(x, weight, linear.bias))
        return F.relu(linear(x, seen))  # (N, L, out_size)


class TrainablePositionalEncoding(nn.Module):
    """Add a learned vector per position, LayerNorm, dropout."""

    def __init__(self, max_position_embeddings: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(max_position_embeddings, hidden_size)
        self.LayerNorm = LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, seen: Seen | None = None) -> torch.Tensor:
        positions, length = self.position_embeddings.weight, seen.length if seen else x.shape[1]
        if length < len(positions):  # the way back of a slice is a copy
            positions = positions[:length]  # (L, D)
        if seen:
            positions = seen_of(positions.expand(seen.n_videos, -1, -1), seen)
        return self.dropout(self.LayerNorm(x + positions, seen), seen)  # (N, L, D)


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
        self.query = Linear(hidden_size, hidden_size)
        self.key = Linear(hidden_size, hidden_size)
        self.value = Linear(hidden_size, hidden_size)

    def forward(
        self, query: torch.Tensor, key_value: torch.Tensor, hidden: torch.Tensor, seen: Seen | None = None
    ) -> torch.Tensor:
        """Attend from `query` (N, Lq, D) to `key_value` (N, Lk, D): (N, Lq, D), heads concatenated.

        `hidden` (N, 1 or Lq, Lk) hides keys from a query, see `hide`.
        """
        if key_value is query:
            q, k, v = _side_by_side(query, seen, self.query, self.key, self.value)
        else:
            q, (k, v) = self.query(query, seen), _side_by_side(key_value, None, self.key, self.value)
        return attention(q, k, v, hidden, self.n_heads, self.dropout if self.training else 0.0, seen)


def _side_by_side(x: torch.Tensor, seen: Seen | None, *layers: Linear) -> Sequence[torch.Tensor]:
    """What several layers of one size make of x. On a GPU by one product: it is as fast as each of them would be."""
    if not x.is_cuda:
        return [layer(x, seen) for layer in layers]
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return F.linear(x, weight, bias).chunk(len(layers), dim=-1)


class BertSelfOutput(nn.Module):
    """Linear, dropout, residual, LayerNorm."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dense = Linear(hidden_size, hidden_size)
        self.LayerNorm = LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, residual: torch.Tensor, seen: Seen | None = None) -> torch.Tensor:
        return self.LayerNorm(self.dropout(self.dense(x, seen), seen) + residual, seen)


class BertAttention(nn.Module):
    """One post-norm attention block. There is no feed-forward sub-layer, as in the reference."""

    def __init__(self, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.self = BertSelfAttention(hidden_size, n_heads, dropout)
        self.output = BertSelfOutput(hidden_size, dropout)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor, seen: Seen | None = None) -> torch.Tensor:
        """Self-attention over x (N, L, D); hidden (N, 1, L) hides padded keys, see `hide`, but no queries."""
        return self.output(self.self(x, x, hidden, seen), x, seen)


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


def with_padding(clips: torch.Tensor, length: int) -> torch.Tensor:
    """(N, length, D) of clips (N, n, D), of which the last, if n is less, is of padding, like all that follow."""
    beyond = length - clips.shape[1]
    return torch.cat([clips, clips[:, -1:].expand(-1, beyond, -1)], dim=1) if beyond else clips


def lengthened(rows: torch.Tensor, beyond: int, value: float) -> torch.Tensor:
    """Rows (n, L) with `beyond` more columns of a value: (n, L + beyond)."""
    return F.pad(rows, (0, beyond), value=value) if beyond else rows


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
