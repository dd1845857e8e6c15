"""Videos of a batch that are encoded together, and how much of their padding is encoded with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from method_tvr.layers.seen import Seen

# Videos that are encoded together on the CPU: so few that what a layer wrote is still in the caches when the next one
# reads it. On a GPU all of them: it must not wait for its host.
CPU_GROUP = 16
# Numbers of clips and of tokens that evaluation encodes are multiples of it: what AVX-512 computes is then, to the last
# bit, what it is beside all of the reference's padding.
WHOLE = 16
# Share of a group's clips: training that looks at more of them computes all, and saves the copies.
MOST = 0.75

ByModality = Mapping[str, torch.Tensor]


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
        lengths, whole = _ends(mask), WHOLE if reach else 1
        for rows in lengths.argsort().split(CPU_GROUP):
            n_clips = int(lengths[rows].max()) + reach
            yield rows, min(padded, n_clips + -n_clips % whole)


def seen_clips(mask: torch.Tensor, reach: int) -> Seen | None:
    """The clips of videos with a mask (N, L) of them, and at least `reach` of each one's padding.

    None where that is most of it; on a GPU, which must not wait for its host; and within autocast, whose second number
    type the layers of what is seen do not know.
    """
    if mask.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return None
    length = mask.shape[1]
    seen = (end + reach for end in _ends(mask).tolist())
    n_clips = [min(length, n + -n % WHOLE) for n in seen]
    return Seen(n_clips, length) if sum(n_clips) < MOST * mask.numel() else None


def _ends(mask: torch.Tensor) -> torch.Tensor:
    """(N,) where videos with a mask (N, L) of their clips end."""
    return (mask * torch.arange(1, mask.shape[1] + 1)).amax(dim=1).long()
