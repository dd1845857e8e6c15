"""Spans whose log score is a sum, of something of their first clip and something of their last, and of no other kind.

Such scores have no scale of their own: over a long video the sums drift to numbers whose exponents no float32 holds. So
they are looked at relative to the best span of their video, which counts as 1 in each.
"""

from __future__ import annotations

import torch


def relative_to_best(logits: torch.Tensor, one_video: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and end logits (Nq, V, 2, L), -inf where there is no clip -> (Nq, V, L) each, shifted as above.

    The best span of each entry, of any length, has 0; with `one_video` the best of all entries of the query.
    """
    st_logits, ed_logits = logits.unbind(dim=2)
    best = (ed_logits + st_logits.cummax(dim=2).values).amax(dim=2, keepdim=True)
    if one_video:
        best = best.amax(dim=1, keepdim=True)
    return st_logits, ed_logits - best


def best_through(starts: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(Nq, V, L), of each clip: the score, of 0 to 1, of the best span that starts there, and that ends there."""
    latest = ends.flip(2).cummax(dim=2).values.flip(2)
    return (starts + latest).exp(), (ends + starts.cummax(dim=2).values).exp()
