"""Feature files with arrays of the test's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from utils.feature_files.feature_file import new_feature_file


def write(path: Path, arrays: dict[str, np.ndarray], **attributes: Any) -> Path:
    """The path of a feature file with these arrays and these attributes."""
    with new_feature_file(path, **attributes) as out:
        for key, array in arrays.items():
            out.put(key, array)
    return path
