"""Padding of sequences of different lengths into one tensor with a mask; copies to a device and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def pad_sequences(sequences: Sequence[np.ndarray], length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack N arrays (L_i, D) of one D and dtype, zeros after each one's end, by default to the longest.

    Returns (N, length, D), and its mask (N, length) float32, 1 on rows that exist.
    """
    lengths = [len(sequence) for sequence in sequences]
    length = max(lengths) if length is None else length
    padded = np.zeros((len(sequences), length, sequences[0].shape[1]), dtype=sequences[0].dtype)
    mask = np.zeros((len(sequences), length), dtype=np.float32)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1.0
    return torch.from_numpy(padded), torch.from_numpy(mask)


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy a small array to a device without waiting for what the device is doing."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def to_host(*tensors: torch.Tensor) -> list[np.ndarray]:
    """Copy tensors of one device, of any shapes and dtypes, to the host, which waits once for all of them."""
    flat = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors]).cpu()
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    # clones: a view of another dtype has to begin where its numbers may
    parts = [part.clone().view(tensor.dtype) for part, tensor in zip(flat.split(sizes), tensors, strict=True)]
    return [part.view(tensor.shape).numpy() for part, tensor in zip(parts, tensors, strict=True)]
