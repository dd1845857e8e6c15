"""Padding of sequences of different lengths into one tensor with a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def pad_sequences(sequences: Sequence[np.ndarray], length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack (L_i, D) arrays, zeros after each one's end.

    Args:
        sequences: N arrays (L_i, D) of one D and dtype.
        length: padded length, by default that of the longest.

    Returns:
        (N, length, D) tensor, and its mask (N, length) float32, 1 on rows that exist.
    """
    lengths = [len(sequence) for sequence in sequences]
    length = max(lengths) if length is None else length
    padded = np.zeros((len(sequences), length, sequences[0].shape[1]), dtype=sequences[0].dtype)
    mask = np.zeros((len(sequences), length), dtype=np.float32)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1.0
    return torch.from_numpy(padded), torch.from_numpy(mask)
