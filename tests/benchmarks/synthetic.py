"""Data of TVR's shape: lengths as TVR's, contents drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from method_tvr.model import ModelConfig

# clips per video at these shares of TVR's videos: most are of one of two lengths, few are long
_SHARES = (0.0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0)
_CLIPS = (6, 30, 38, 39, 41, 47, 61, 63, 71, 96, 128)
MEAN_TOKENS, TOKEN_DEVIATION, LEAST_TOKENS = 14, 4, 5


def clip_counts(n: int, max_ctx_l: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) numbers of clips, distributed as those of TVR's videos: mean about 52 of 128."""
    return np.interp(rng.random(n), _SHARES, _CLIPS).round().astype(np.int64).clip(max=max_ctx_l)


def token_counts(n: int, max_desc_l: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) numbers of query tokens, about as TVR's: mean 14."""
    drawn = rng.normal(MEAN_TOKENS, TOKEN_DEVIATION, n).round().astype(np.int64)
    return drawn.clip(min(LEAST_TOKENS, max_desc_l), max_desc_l)


def mask_of(lengths: np.ndarray, longest: int) -> torch.Tensor:
    """(N, longest) float32, 1 on what exists."""
    return (torch.arange(longest) < torch.from_numpy(lengths).unsqueeze(1)).float()


def unit_rows(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Random rows of length 1 over the last axis, as normalised features are."""
    return torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=-1)


def context_batch(
    config: ModelConfig, n_clips: np.ndarray, generator: torch.Generator, pool: dict[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Clip features of videos, padded to `max_ctx_l`, as `StartEndDataset` makes them.

    Args:
        config: input sizes.
        n_clips: (N,) int64.
        generator: of the features.
        pool: {modality: (at least N, max_ctx_l, D)} features to cut from instead of drawing new ones.
    """
    mask = mask_of(n_clips, config.max_ctx_l)
    batch = {"ctx_mask": mask, "ctx_lengths": torch.from_numpy(n_clips)}
    for m in config.modalities:
        shape = (len(n_clips), config.max_ctx_l, config.input_sizes[m])
        rows = unit_rows(shape, generator) if pool is None else pool[m][: len(n_clips)]
        batch[f"{m}_feat"] = rows * mask.unsqueeze(2)
    return batch


def training_batch(config: ModelConfig, n: int, seed: int) -> dict[str, torch.Tensor]:
    """A batch of `n` queries with their videos and moments, as `StartEndDataset` makes it."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    n_clips = clip_counts(n, config.max_ctx_l, rng)
    n_tokens = token_counts(n, config.max_desc_l, rng)
    query_mask = mask_of(n_tokens, int(n_tokens.max()))
    query = unit_rows((*query_mask.shape, config.query_input_size), generator) * query_mask.unsqueeze(2)
    st = (rng.random(n) * n_clips).astype(np.int64)
    ed = np.minimum(st + rng.integers(1, 8, n), n_clips - 1)
    clip = torch.arange(config.max_ctx_l)
    inside = (clip >= torch.from_numpy(st).unsqueeze(1)) & (clip <= torch.from_numpy(ed).unsqueeze(1))
    return {
        **context_batch(config, n_clips, generator),
        "query_feat": query,
        "query_mask": query_mask,
        "st_ed_indices": torch.from_numpy(np.stack([st, ed], axis=1)),
        "match_labels": inside.long(),
    }


@dataclass
class EncodedData:
    """Encoded videos and queries that look for them, as a model might make them.

    Attributes:
        rows: Nv tensors (min(L_i + reach, max_ctx_l), M, D).
        n_clips: (Nv,) int64, the L_i.
        own: (Nq,) int64, the video each query is about.
        query: (Nq, M, D) modular queries.
        span_query: (Nq, M, D) projected queries.
        st_kernel, ed_kernel: (kernel,) of the span predictors.
    """

    rows: list[torch.Tensor]
    n_clips: np.ndarray
    own: np.ndarray
    query: torch.Tensor
    span_query: torch.Tensor
    st_kernel: torch.Tensor
    ed_kernel: torch.Tensor


def encoded_data(
    n_videos: int, n_queries: int, hidden_size: int, n_modalities: int, kernel: int, max_ctx_l: int, seed: int
) -> EncodedData:
    """Draw encoded videos, and queries that resemble a clip of their own video."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    n_clips = clip_counts(n_videos, max_ctx_l, rng)
    n_rows = np.minimum(n_clips + kernel // 2, max_ctx_l)
    packed = torch.randn((int(n_rows.sum()), n_modalities, hidden_size), generator=generator)
    own = rng.integers(n_videos, size=n_queries)
    first_row = np.cumsum(n_rows) - n_rows
    clip = first_row[own] + (rng.random(n_queries) * n_clips[own]).astype(np.int64)
    noise = torch.randn((n_queries, n_modalities, hidden_size), generator=generator)
    query = packed[torch.from_numpy(clip)] + 2.0 * noise
    # the similarity of a matching clip is then about 8, of others about 0: soft probabilities, as a model's
    span_query = query * (8.0 / hidden_size)
    st_kernel, ed_kernel = torch.rand((2, kernel), generator=generator)
    return EncodedData(list(packed.split(n_rows.tolist())), n_clips, own, query, span_query, st_kernel, ed_kernel)
