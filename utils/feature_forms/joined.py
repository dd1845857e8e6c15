"""Features of several sources side by side, as Moment-DETR joins CLIP's and SlowFast's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from utils.basic_utils import Closing, InputError, first_few
from utils.feature_files.feature_array import normalized
from utils.feature_files.feature_file import FeatureError
from utils.feature_files.provenance import joined, properties
from utils.feature_files.several_files import refuse_other_clip_length
from utils.feature_forms.source import FeatureSource

MOST_APART = 1  # rows: one extractor rounds the end of a video up, another down


class JoinedSource(Closing):
    """The keys that all sources have, with their features side by side, cut to the shortest.

    Args:
        normalise: divide each row of each part by its L2 norm + 1e-5.

    Raises:
        InputError: no key is in all of them, or the lengths of their clips differ.
    """

    def __init__(self, sources: Sequence[FeatureSource], normalise: bool = False) -> None:
        self.path, self._sources, self._normalise = sources[0].path, sources, normalise
        self._widths: list[int | None] = [None] * len(sources)
        of_each = [source.feature_keys() for source in sources]
        common = set(of_each[0]).intersection(*of_each)
        self._keys = [key for key in of_each[0] if key in common]
        self.not_in_all = [key for key in dict.fromkeys(key for keys in of_each for key in keys) if key not in common]
        if not self._keys:
            few = [f"{source.path}: {first_few(keys, 3)}" for source, keys in zip(sources, of_each, strict=True)]
            raise InputError(f"no name is in all of the sources: {'; '.join(few)}")
        records = [source.made_by() for source in sources]
        for source, record in zip(sources[1:], records[1:], strict=True):
            refuse_other_clip_length(sources[0].path, records[0], source.path, record)

    def close(self) -> None:
        """Close all sources."""
        for source in self._sources:
            source.close()

    def feature_keys(self) -> list[str]:
        """Those that all sources have, in the first one's order."""
        return self._keys

    def made_by(self) -> dict[str, Any]:
        """What is known of all parts."""
        records = [source.made_by() for source in self._sources]
        about: dict[str, Any] = properties(records[0])
        for record in records[1:]:
            about = joined(about, record)
        texts = [text for record in records if isinstance(text := record.get("versions"), str)]
        about |= {"versions": ", ".join(dict.fromkeys(", ".join(texts).split(", ")))} if texts else {}
        return about | ({"normalised": "L2 per half" if len(records) > 1 else "L2"} if self._normalise else {})

    def form(self, key: str, width: int | None = None) -> tuple[int, int, str]:
        """(rows, D, type that all parts have; `float32` if they differ, or are normalised)."""
        forms = [source.form(key, size) for source, size in zip(self._sources, self._widths, strict=True)]
        types = {stored_as for _, _, stored_as in forms}
        kept = len(types) == 1 and not self._normalise
        return min(rows for rows, _, _ in forms), sum(size for _, size, _ in forms), types.pop() if kept else "float32"

    def read(self, key: str, width: int | None = None) -> np.ndarray:
        """(rows, D1 + D2 + …) float32; each part is as wide as in the first key that was read."""
        parts = [source.read(key, size) for source, size in zip(self._sources, self._widths, strict=True)]
        self._widths = [part.shape[1] for part in parts]
        rows = min(map(len, parts))
        prepared = [normalized(part[:rows]) if self._normalise else part[:rows] for part in parts]
        together = np.concatenate(prepared, axis=1)
        if width is not None and together.shape[1] != width:
            raise FeatureError(self.path, key, f"features are {together.shape[1]} wide together, expected {width}")
        return together

    def refuse_uneven(self, keys: Iterable[str]) -> None:
        """An `InputError` names keys whose numbers of rows are more than one apart; values are not read."""
        uneven = []
        for key in keys:
            try:
                rows = [source.form(key)[0] for source in self._sources]
            except InputError:  # is raised again, together with all such, when values are read
                continue
            if max(rows) - min(rows) > MOST_APART:
                uneven.append(f"{key} ({', '.join(map(str, rows))})")
        if uneven:
            names = ", ".join(str(source.path) for source in self._sources)
            what = f"rows of one video are more than {MOST_APART} apart: {first_few(uneven)}"
            raise InputError(f"{names}: {what}: extract them with one clip length")
