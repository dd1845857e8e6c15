"""The best spans of many videos, without looking at all of them: only the band of allowed lengths, only the best k."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from method_tvr.search.records import IMPOSSIBLE, SearchSettings


class Joining(NamedTuple):
    """How a span's score is made of those of its start and its end; it grows with both."""

    join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    no_span: float  # the score of what is none


PRODUCTS = Joining(torch.mul, IMPOSSIBLE)  # of probabilities
SUMS = Joining(torch.add, float("-inf"))  # of logits


def best_spans(
    starts: torch.Tensor,
    ends: torch.Tensor,
    n_clips: torch.Tensor,
    settings: SearchSettings,
    joining: Joining = PRODUCTS,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best spans of each query over its videos: score = starts[i] * ends[j], min_pred_l <= j - i < max_pred_l.

    The best K spans start at the K starts whose best spans are best, so these starts are selected first, and only
    their spans are looked at one by one.

    Args:
        starts, ends: (Nq, V, L), anything past the video's clips, n_clips (Nq, V), is not read.
        settings: the band and `max_moments`.
        joining: how a span's score is made of those of its start and its end.

    Returns:
        score, video (index into V), i, j: (Nq, K), best first; that of no span where a query has fewer than K.
    """
    length, impossible = starts.shape[2], joining.no_span
    band = range(settings.min_pred_l, min(settings.max_pred_l, length))
    if not band:
        empty = torch.zeros((len(starts), 0), dtype=torch.int64, device=starts.device)
        return empty.to(starts.dtype), empty, empty, empty

    missing = torch.arange(length, device=starts.device) >= n_clips.unsqueeze(2)
    ends = F.pad(ends.masked_fill(missing, impossible), (0, band[-1]), value=impossible)  # (Nq, V, L + longest)
    best_end = _sliding_max(ends[:, :, band[0] :], len(band))  # (Nq, V, L)
    best_span = torch.where(best_end == impossible, impossible, joining.join(starts, best_end)).flatten(
        1
    )  # (Nq, V * L), of each start
    start = best_span.topk(min(settings.max_moments, best_span.shape[1]), dim=1).indices  # (Nq, S)
    video, st = start // length, start % length

    span_st = starts.flatten(1).gather(1, start).unsqueeze(2)  # (Nq, S, 1)
    lengths = torch.arange(band.start, band.stop, device=starts.device)
    end = (video * ends.shape[2] + st).unsqueeze(2) + lengths  # (Nq, S, band), positions in `ends`
    span_ed = ends.flatten(1).gather(1, end.flatten(1)).view(end.shape)
    spans = torch.where(span_ed == impossible, impossible, joining.join(span_st, span_ed)).flatten(1)  # (Nq, S * band)
    score, index = spans.topk(min(settings.max_moments, spans.shape[1]), dim=1)
    chosen = index // len(band)
    st = st.gather(1, chosen)
    return score, video.gather(1, chosen), st, st + lengths[index % len(band)]


def _sliding_max(x: torch.Tensor, width: int) -> torch.Tensor:
    """Maximum over the windows [i, i + width) of the last axis: (…, n) -> (…, n - width + 1)."""
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        x = torch.maximum(x[..., : x.shape[-1] - step], x[..., step:])
        covered += step
    return x
