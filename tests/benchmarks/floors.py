"""Multiply-adds that the mathematics needs, counted from sizes: what the floors are made of.

Only matrix products count. Normalisation, softmax and the like are linear in the data and left out, so no program
reaches its floor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from method_tvr.model import ModelConfig

TRAINING = 3  # a product's backward pass is two products of the same size
Lengths = Sequence[int] | np.ndarray


def context_macs(config: ModelConfig, n_clips: Lengths) -> float:
    """Encoding videos of these numbers of clips (padded ones included, if they are computed)."""
    rows = np.asarray(n_clips, dtype=np.float64)
    d = config.hidden_size
    n_modalities = len(config.modalities)
    inputs = sum(config.input_sizes[m] for m in config.modalities) * d
    crossed = int(n_modalities > 1)  # a modality alone attends to no other
    linears = n_modalities * (3 * 4 + 3 * crossed) * d * d  # encoders: query, key, value, dense; cross attention: three
    attentions = n_modalities * (3 + crossed) * 2 * d  # per pair of clips: scores and weighted sum
    return float((rows * (inputs + linears) + rows**2 * attentions).sum())


def query_macs(config: ModelConfig, n_tokens: Lengths) -> float:
    """Encoding queries of these numbers of tokens."""
    rows = np.asarray(n_tokens, dtype=np.float64)
    d = config.hidden_size
    per_token = config.query_input_size * d + 2 * 4 * d * d
    return float((rows * per_token + rows**2 * 2 * 2 * d).sum())


def pair_macs(config: ModelConfig, n_queries: int, n_clips: Lengths) -> float:
    """Comparing every query with every clip, in all modalities."""
    return float(n_queries * np.sum(n_clips) * config.hidden_size * len(config.modalities))


def training_step_macs(config: ModelConfig, n_clips: Lengths, n_tokens: Lengths) -> float:
    """Forward and backward pass of a batch: encoders, and all pairs twice (VideoCL on h2, ranking on h3)."""
    pairs = 2 * pair_macs(config, len(n_tokens), n_clips)
    return TRAINING * (context_macs(config, n_clips) + query_macs(config, n_tokens) + pairs)


def retrieval_macs(hidden_size: int, n_modalities: int, n_clips: Lengths, n_videos_kept: int) -> float:
    """Answering one query: all clips for the video scores, the clips of the kept and of the own video for spans."""
    mean = float(np.mean(n_clips))
    return hidden_size * n_modalities * (float(np.sum(n_clips)) + mean * (min(n_videos_kept, len(n_clips)) + 1))
