"""How far labels may be from the moment that they stand for."""

from __future__ import annotations

import math


def furthest(length: float) -> float:
    """The most clips by which the best run of clips may miss an end of a moment of `length` clips, 1 or more.

    Let the start lie a share f into its clip. The run may begin f too early or 1 - f too late, and the first is the
    better one while f * I <= (1 - f) * (U + f), I being what the run shares with the moment and U what they cover
    together when it begins with the moment. A late start is therefore less than 1/2 off. An early one is furthest off
    where the run ends f too late as well (I = length, U = length + f) or 1 - f too early (I = length - 1 + f,
    U = length), which is as good: 2 f (1 - f) = length * (2 f - 1). The end is the start's mirror image.
    """
    return (1 + math.sqrt(length**2 + 1) - length) / 2
