"""Videos of a batch that are encoded together, and how much of their padding is encoded with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F

# Videos that are encoded together on the CPU: so few that what a layer wrote is still in the caches when the next one
# reads it. On a GPU all of them: it must not wait for its host.
CPU_GROUP = 16
# Numbers of clips and of tokens that evaluation encodes are multiples of it: what AVX-512 computes is then, to the last
# bit, what it is beside all of the reference's padding.
WHOLE = 16

ByModality = dict[str, torch.Tensor]


class EncodedVideos(NamedTuple):
    """Videos of a batch that were encoded together; encodings are {modality: (n, L, D)} in float32."""

    rows: slice | torch.Tensor  # which videos of the batch; a tensor is on the CPU
    mask: torch.Tensor  # (n, L), 1 on clips that exist; L is at most that of the batch
    for_videos: ByModality  # what videos are retrieved by: h3
    for_spans: ByModality  # what moments are localised by: h3
    h2: ByModality  # what FrameCL and VideoCL contrast


def encoded_together(mask: torch.Tensor, reach: int | None) -> Iterator[tuple[slice | torch.Tensor, int]]:
    """The rows of each group of videos, and how many of their clips are encoded, of a batch with a mask (N, L) of them.

    All clips of the batch on a GPU, or where `reach` is None. Otherwise a group's videos are of like length; if reach
    is 0, their padding ends with the longest of them, and else it goes on for at least so many clips, if there are any.
    """
    n, padded = mask.shape
    if mask.device.type != "cpu":
        yield slice(0, n), padded
    elif reach is None:
        yield from ((slice(first, min(first + CPU_GROUP, n)), padded) for first in range(0, n, CPU_GROUP))
    else:
        lengths, whole = mask.sum(dim=1).long(), WHOLE if reach else 1
        for rows in lengths.argsort().split(CPU_GROUP):
            n_clips = int(lengths[rows].max()) + reach
            yield rows, min(padded, n_clips + -n_clips % whole)


def with_padding(clips: torch.Tensor, length: int) -> torch.Tensor:
    """(N, length, D) of clips (N, n, D), of which the last, if n is less, is of padding, like all that follow."""
    beyond = length - clips.shape[1]
    return torch.cat([clips, clips[:, -1:].expand(-1, beyond, -1)], dim=1) if beyond else clips


def lengthened(rows: torch.Tensor, beyond: int, value: float) -> torch.Tensor:
    """Rows (n, L) with `beyond` more columns of a value: (n, L + beyond)."""
    return F.pad(rows, (0, beyond), value=value) if beyond else rows
