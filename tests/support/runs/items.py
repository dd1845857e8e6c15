"""A dataset of nothing but query features."""

import numpy as np

from utils.feature_files.feature_file import FeatureFile, new_feature_file


class Items:
    """Queries 0, 1, …; those in `broken` have features with a NaN."""

    def __init__(self, folder, n: int, broken: set[int]) -> None:
        with new_feature_file(folder / "query.h5") as features:
            for i in range(n):
                features.put(str(i), np.full((2, 3), np.nan if i in broken else i, dtype=np.float32))
        self.n, self.features = n, FeatureFile(folder / "query.h5")

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict:
        return {"meta": index, "query_feat": self.features.read(str(index))}
