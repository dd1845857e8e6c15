"""What a few bytes of a clip say for certain about its cosine with a query.

A clip's unit vector u has coordinates z_1 ... z_D in an orthonormal basis of the whole space. Of the first B of them a
row of the index keeps whole numbers n_j in a byte each: z_j is t_j n_j, but for what rounding left out. The others are
divided into stretches, of which it keeps lengths. For a query q, by Cauchy-Schwarz in what rounding left out, r, and
in each stretch,

    q u  <=  sum of q_j t_j n_j  +  sum over stretches of |q_stretch| |z_stretch|  +  |q_1..B| |r|

The first two sums are one product, of a row's bytes with weights that follow from the query. The weights are whole
numbers, too, so that a product is exact; what rounding them left out is counted. t_j and what a length of 1 means are
those of a part of the corpus, and the longest r of its clips stands for each.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

LARGEST = 127  # of an 8-bit number, as is used here
FINER = 2 * LARGEST  # times as fine as the first is the second byte of a weight
N_STRETCHES = 4  # each twice as wide as the one before it
PRECISION = 2.0**-24  # relative error of a float32 operation
OWN_ERROR = 4e-6  # of what is computed here in float32 and float64, and of bases that are nearly orthonormal
ORTHONORMAL = 1e-9  # of products of directions, at most off by
ROUNDED_UP = 1 + 1e-9
ROWS_AT_A_TIME = 1 << 14  # that are coded
Floats = npt.NDArray[np.float64]


class Layout(NamedTuple):
    """What the bytes of a row say."""

    n_directions: int  # B
    stretches: tuple[tuple[int, int], ...]  # of the directions beyond them, up to the last

    @classmethod
    def of(cls, row_bytes: int, size: int) -> Layout:
        """For rows of so many bytes at most, of vectors of D numbers: all of these where there is room for them."""
        if size <= row_bytes:
            return cls(size, ())
        n = row_bytes - N_STRETCHES
        edges = [n + round((size - n) / 2**k) for k in reversed(range(N_STRETCHES))]
        return cls(n, tuple(zip([n, *edges[:-1]], edges, strict=True)))

    @property
    def row_bytes(self) -> int:
        return self.n_directions + len(self.stretches)


@dataclass(frozen=True)
class Basis:
    """An orthonormal basis of the space of vectors: (D, D) float64, its directions as columns.

    Those in which clips and queries lie most come first.
    """

    directions: Floats

    @property
    def is_orthonormal(self) -> bool:
        """Whether it is one: bounds hold for no other."""
        products = self.directions.T @ self.directions
        return bool(np.abs(products - np.eye(len(products))).max() < ORTHONORMAL)

    @classmethod
    def of(cls, clips: np.ndarray, queries: np.ndarray) -> Basis:
        """Of samples (n, D) of unit vectors of clips and, if any are known, of queries.

        The bound's width is |q| |z| beyond the first directions: those matter in which clips lie, and those in which
        queries do. Both are taken together, each with its whole power as 1.
        """
        power = np.zeros((clips.shape[1], clips.shape[1]))
        for vectors in (clips.astype(np.float64), queries.astype(np.float64)):
            if len(vectors) and np.any(vectors):
                of_these = vectors.T @ vectors
                power += of_these / np.trace(of_these)
        _, directions = np.linalg.eigh(power)  # from the smallest eigenvalue to the largest
        return cls(np.ascontiguousarray(directions[:, ::-1]))

    def coordinates(self, vectors: np.ndarray) -> Floats:
        """(n, D) of vectors (n, D)."""
        return vectors.astype(np.float64, copy=False) @ self.directions


@dataclass(frozen=True)
class Scales:
    """What the bytes of the rows of a part mean.

    Attributes:
        steps: (W,) float64, what a 1 stands for in each.
        rounding: the longest r of a row.
        longest: the length of the longest row of numbers n.
    """

    steps: Floats
    rounding: float
    longest: float

    def written(self) -> dict[str, Any]:
        """The same in plain types, for `read`."""
        return {**asdict(self), "steps": self.steps.tolist()}

    @classmethod
    def read(cls, steps: Sequence[float], rounding: float, longest: float) -> Scales:
        """What `written` gave; a TypeError or ValueError if it did not give that."""
        return cls(np.array(steps, np.float64), float(rounding), float(longest))


def coded(numbers: Floats, lengths: Floats) -> tuple[npt.NDArray[np.int8], Scales]:
    """The rows (R, W) of the clips of a part, from their first coordinates (R, B) and lengths (R, S) of the others."""
    largest = np.maximum(numbers.max(axis=0), -numbers.min(axis=0))  # without a copy of them all
    tops = np.concatenate([largest, lengths.max(axis=0)])
    steps = tops / LARGEST * ROUNDED_UP
    t, units = np.split(steps, [numbers.shape[1]])
    rows = np.empty((len(numbers), len(steps)), np.int8)
    rounding = longest = 0.0
    for first in range(0, len(rows), ROWS_AT_A_TIME):
        some = slice(first, first + ROWS_AT_A_TIME)
        n = np.rint(_divided(numbers[some], t))
        rounding = max(rounding, float(np.linalg.norm(numbers[some] - n * t, axis=1).max()))
        longest = max(longest, float(np.linalg.norm(n, axis=1).max()))
        rows[some] = np.concatenate([n, np.ceil(_divided(lengths[some], units))], axis=1)
    return rows, Scales(steps, rounding, longest)


def _divided(values: Floats, steps: Floats) -> Floats:
    return np.divide(values, steps, out=np.zeros_like(values), where=steps > 0)


class Weights(NamedTuple):
    """What Nq queries multiply the rows of a part with: cosines are at most `product * step + constant`."""

    numbers: torch.Tensor  # (W, Nq) int8; or (W, 2 Nq), of each weight the first byte, and then of each a finer one
    step: Floats  # (Nq,)
    constant: Floats  # (Nq,)


class Asked(NamedTuple):
    """Nq queries as a level looks at them: the factors of what its rows say."""

    factors: Floats  # (Nq, W): coordinates, and lengths in the stretches
    length: Floats  # (Nq,) of the first coordinates
    slack: float

    @classmethod
    def of(cls, coordinates: Floats, layout: Layout) -> Asked:
        """Of their coordinates (Nq, D)."""
        own = coordinates[:, : layout.n_directions]
        lengths = [np.linalg.norm(coordinates[:, first:end], axis=1) for first, end in layout.stretches]
        return cls(np.column_stack([own, *lengths]), np.linalg.norm(own, axis=1), slack(coordinates.shape[1]))


def weights(asked: Asked, layout: Layout, scales: Scales, fine: bool) -> Weights:
    """What the rows of a part are multiplied with; `fine` weights take two bytes each."""
    b, exact = layout.n_directions, asked.factors * scales.steps
    step = np.maximum(np.abs(exact).max(axis=1, keepdims=True) * (ROUNDED_UP / LARGEST), 1e-30)
    if fine:
        step /= FINER
    whole = exact / step
    rounded = np.concatenate([np.rint(whole[:, :b]), np.ceil(whole[:, b:])], axis=1)
    error = np.linalg.norm((whole - rounded)[:, :b], axis=1) * step[:, 0] * scales.longest
    planes = [rounded]
    if fine:
        first = np.rint(rounded / FINER)
        planes = [first, rounded - FINER * first]
    numbers = torch.from_numpy(np.concatenate(planes).T.astype(np.int8, order="C"))
    return Weights(numbers, step[:, 0], error + asked.length * scales.rounding + asked.slack)


def side_by_side(of: Sequence[Weights]) -> Weights:
    """Fine weights of several modalities, for rows that have them one after another: as of M Nq queries."""
    planes = [torch.block_diag(*plane) for plane in zip(*(one.numbers.chunk(2, dim=1) for one in of), strict=True)]
    step, constant = (np.concatenate(column) for column in zip(*(one[1:] for one in of), strict=True))
    return Weights(torch.cat(planes, dim=1), step, constant)


def products(rows: torch.Tensor, of: Weights) -> torch.Tensor:
    """(n, Nq) int32 products of rows (n, W) int8 and weights; there is room for W up to 524."""
    found = _multiply(rows, of.numbers)
    if len(of.step) == found.shape[1]:
        return found
    first, second = found.chunk(2, dim=1)
    return second.add_(first, alpha=FINER)


def _multiply(rows: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    if eight_bits_are_exact():
        return torch._int_mm(rows, numbers)
    return (rows.float() @ numbers.float()).int()  # numbers up to 2^24, which float32 has


@functools.cache
def eight_bits_are_exact() -> bool:
    """Whether products of bytes are: some processors add them up in 16 bits, in which the largest have no room."""
    rows = torch.tensor([[LARGEST], [-LARGEST]], dtype=torch.int8).repeat(40, 128)
    numbers = torch.tensor([LARGEST, -LARGEST], dtype=torch.int8).repeat(128, 16)
    right = rows.long() @ numbers.long()
    return all(torch.equal(torch._int_mm(rows, numbers[:, :n].contiguous()).long(), right[:, :n]) for n in (1, 2, 32))


def slack(size: int) -> float:
    """What is added to a bound so that it holds for cosines as a search computes them, in float32, of D numbers."""
    return OWN_ERROR + (size + 8) * PRECISION
