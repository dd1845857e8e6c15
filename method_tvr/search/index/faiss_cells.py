"""What the cells of an inverted file say for certain about the clips in them.

Each cell has a centre, and all its clips' directions lie within an angle `a` of the centre's. For a query whose angle
to the centre is `b`, no clip of the cell is nearer to it than `b - a`, so that none has a cosine above cos(b - a).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from method_tvr.search.index.certified.bounds import slack

ROUNDING = 1e-12  # of a cosine computed in float64
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cells:
    """C cells over vectors of D numbers.

    Attributes:
        centres: (C, D) float32.
        angles: (C,) float64, radians: no clip of a cell lies farther from its centre, nor that it has none.
        error: length of the largest difference between a clip's vector and what the index keeps of it.
    """

    centres: np.ndarray
    angles: Floats
    error: float

    @classmethod
    def of(cls, index: Any, described: Mapping[str, Any]) -> Cells:
        """Those of an inverted file of faiss, of which `Measured.described` gave the rest.

        Raises:
            ValueError: these are of no such index.
        """
        angles, error = np.array(described["angles"], np.float64), float(described["error"])
        possible = np.all((angles >= 0) & (angles <= np.pi)) and 0 <= error < np.inf
        if angles.shape != (index.nlist,) or not possible:
            raise ValueError("cells are damaged")
        return cls(centres_of(index), angles, error)

    @property
    def allowance(self) -> float:
        """By which products computed in float32 may be off: of a query with a centre, and with a clip by a search."""
        return 2 * slack(self.centres.shape[1])

    def above(self, products: np.ndarray) -> Floats:
        """(C,): no clip of a cell has a cosine above this, as a search computes it.

        The products (C,) float32 are those of a query of length 1 with the centres. No bound is below 0, which is the
        cosine of clips whose numbers are 0.
        """
        cosines = products / lengths_of(self.centres) + self.allowance
        to_centre = np.arccos(np.clip(cosines, -1, 1))
        return np.maximum(np.cos(np.maximum(to_centre - self.angles, 0)), 0) + self.allowance

    def above_outside(self, query: np.ndarray) -> Floats:
        """(C + 1,): no clip outside of the n cells nearest to a query (D,) has a cosine above the number n of these."""
        products = self.centres @ query
        in_order = self.above(products)[np.argsort(-products, kind="stable")]
        return np.append(np.maximum.accumulate(in_order[::-1])[::-1], -np.inf)


class Measured:
    """The angles and the error of an index's cells, while it is filled.

    Args:
        index: an inverted file of faiss, trained.
    """

    def __init__(self, index: Any) -> None:
        self._index, self._number_bytes = index, index.coarse_code_size()
        centres = centres_of(index).astype(np.float64)
        self._directions = centres / lengths_of(centres)[:, None]
        self._least, self._error = np.ones(len(centres)), 0.0

    def add(self, vectors: np.ndarray, codes: np.ndarray) -> None:
        """More vectors (n, D) float32, and their codes, of `sa_encode`."""
        numbers = np.zeros((len(codes), 8), np.uint8)
        numbers[:, : self._number_bytes] = codes[:, : self._number_bytes]
        cell, exact = numbers.view("<i8")[:, 0], vectors.astype(np.float64)
        products = np.einsum("nd,nd->n", exact, self._directions[cell])
        there = exact.any(axis=1)
        np.minimum.at(self._least, cell[there], products[there] / np.linalg.norm(exact[there], axis=1))
        differences = np.linalg.norm(exact - self._index.sa_decode(codes), axis=1)
        self._error = max(self._error, float(differences.max(initial=0.0)))

    def described(self) -> dict[str, Any]:
        """For an index's description."""
        return {"angles": np.arccos(np.clip(self._least - ROUNDING, -1, 1)).tolist(), "error": self._error}


def centres_of(index: Any) -> np.ndarray:
    """(C, D) float32: of the cells of an inverted file."""
    return np.asarray(index.quantizer.reconstruct_n(0, index.nlist))


def lengths_of(centres: np.ndarray) -> np.ndarray:
    """(C,), where 1 stands for 0: bounds hold for a centre without a direction, too."""
    lengths = np.linalg.norm(centres, axis=1)
    return np.where(lengths > 0, lengths, 1)
