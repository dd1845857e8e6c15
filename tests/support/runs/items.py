"""A dataset of nothing but query features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.dataset.loading import Batch
from utils.feature_files.feature_file import new_feature_file


class Items:
    """Queries 0, 1, …; those in `broken` have features with a NaN."""

    def __init__(self, folder, n: int, broken: set[int], **how: object) -> None:
        with new_feature_file(folder / "query.h5") as features:
            for i in range(n):
                features.put(str(i), np.full((2, 3), np.nan if i in broken else i, dtype=np.float32))
        self.n = n
        self.features = FeatureStore({}, folder / "query.h5", {"query": False}, 5, 2, False, {}, **how)

    def __len__(self) -> int:
        return self.n

    def batch(self, indices: Sequence[int], ctx_length: int | None) -> Batch:
        return list(indices), self.features.query_batch(indices)
