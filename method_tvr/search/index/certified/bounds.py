"""What a few bytes of a clip say for certain about its cosine with a query.

A clip's unit vector u is described in an orthonormal basis of the whole space, after a fixed vector m was taken from
it: u - m = sum of z_j b_j. The first directions form bands. In each band the numbers z are kept as 8-bit numbers times
a scale, with the length r of what rounding left out; and after each band, the length s of all that lies beyond it. For
a query q, by Cauchy-Schwarz in the rounding's error and in what lies beyond,

    |q u - (q m + sum over bands of q_band z'_band)|  <=  sum of |q_band| r  +  |q_beyond| s

where z' are the numbers as they are kept. The query is rounded too, to 15 bits, and its error counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

LARGEST = 127  # of an 8-bit number, as is used here
STEPS = 255  # of a length that is kept in a byte, rounded up
PRECISION = 2.0**-24  # relative error of a float32 operation
OWN_ERROR = 4e-6  # of what is computed here in float32 from exact products: some operations on numbers up to 2
LEAST_BEYOND = 1e-6  # a length is at least this: it comes from a difference of squares
ORTHONORMAL = 1e-9  # of products of directions, at most off by
LONGEST = 2 + 1e-3  # a unit vector less the mean of unit vectors is not longer; nor is any of its numbers
BEYOND_UNIT = (LONGEST + LEAST_BEYOND) / STEPS
Floats = npt.NDArray[np.float64]


class Codes(NamedTuple):
    """N vectors in one band of B directions, in 8 bits a number."""

    numbers: np.ndarray  # (N, B) int8
    scale: np.ndarray  # (N,) float16: a number of 1 stands for this
    rounding: np.ndarray  # (N,) uint8: length of the rounding's error, in `rounding_unit`s
    beyond: np.ndarray  # (N,) uint8: length of what lies beyond this band, in `BEYOND_UNIT`s


@dataclass(frozen=True)
class Basis:
    """An orthonormal basis of unit vectors' space, and the vector that is taken from each.

    Attributes:
        mean: (D,) float64.
        directions: (D, D) float64, columns in order: those in which clips and queries lie most come first.
    """

    mean: Floats
    directions: Floats

    @property
    def is_orthonormal(self) -> bool:
        """Whether it is one: bounds hold for no other."""
        products = self.directions.T @ self.directions
        alike = np.abs(products - np.eye(len(products))).max() < ORTHONORMAL
        return bool(alike and np.linalg.norm(self.mean) <= 1 + ORTHONORMAL)

    @classmethod
    def of(cls, clips: np.ndarray, queries: np.ndarray) -> Basis:
        """Of samples (n, D) of unit vectors of clips and, if any are known, of queries.

        The bound's width is |q_beyond| s: directions matter in which clips lie, and those in which queries do. Both
        are taken together, each with its whole power as 1.
        """
        mean = clips.mean(axis=0, dtype=np.float64)
        power = np.zeros((len(mean), len(mean)))
        for vectors in (clips.astype(np.float64) - mean, queries.astype(np.float64)):
            if len(vectors) and np.any(vectors):
                of_these = vectors.T @ vectors
                power += of_these / np.trace(of_these)
        _, directions = np.linalg.eigh(power)  # from the smallest eigenvalue to the largest
        return cls(mean, np.ascontiguousarray(directions[:, ::-1]))

    def coded(self, vectors: np.ndarray, bands: Sequence[slice]) -> list[Codes]:
        """(N, D) unit vectors as they are kept in bands of directions that follow each other from the first on."""
        centred = vectors.astype(np.float64) - self.mean
        left = np.einsum("nd,nd->n", centred, centred)
        found = []
        for band in bands:
            z = centred @ self.directions[:, band]
            scale = float16_above(np.abs(z).max(axis=1) / LARGEST)
            step = scale.astype(np.float64)[:, None]
            numbers = np.rint(np.divide(z, step, out=np.zeros_like(z), where=step > 0))
            rounding = np.linalg.norm(z - numbers * step, axis=1)
            left = left - np.einsum("nb,nb->n", z, z)
            beyond = np.sqrt(np.maximum(left, 0)) + LEAST_BEYOND
            unit = rounding_unit(z.shape[1])
            found.append(Codes(numbers.astype(np.int8), scale, in_units(rounding, unit), in_units(beyond, BEYOND_UNIT)))
        return found


def float16_above(values: Floats) -> npt.NDArray[np.float16]:
    """The least float16 that are not below some values."""
    near = values.astype(np.float16)
    return np.where(near.astype(np.float64) < values, np.nextafter(near, np.float16(np.inf)), near)


def rounding_unit(n_directions: int) -> float:
    """So that the error of rounding any vector's numbers, at most half a step each, fits into a byte."""
    largest_step = LONGEST / LARGEST * (1 + 2.0**-9)  # as a float16
    return largest_step / 2 * math.sqrt(n_directions) / STEPS


def in_units(lengths: Floats, unit: float) -> npt.NDArray[np.uint8]:
    """Lengths (N,) in units, rounded up: none stands for less than it is."""
    return np.ceil(lengths / unit).astype(np.uint8)


class BandQuery(NamedTuple):
    """A query in one band: q_band is about coarse * first + fine * second, exactly but for an error that is counted."""

    numbers: torch.Tensor  # (B, 2) int8
    steps: torch.Tensor  # (2,) float32: coarse and fine
    length: float  # of q_band
    beyond: float  # length of the query beyond the band
    error: float  # by which products with any clip may be off


class SplitQuery:
    """A query (D,) float32 of unit length in the bands of a basis."""

    def __init__(self, basis: Basis, query: np.ndarray, bands: Sequence[slice]) -> None:
        exact = query.astype(np.float64)
        self.base = float(exact @ basis.mean)
        self._slack = slack(len(exact))
        z = exact @ basis.directions
        self.bands = [_band_query(z, band) for band in bands]

    def __getitem__(self, band: int) -> BandQuery:
        return self.bands[band]

    def constant(self, last: int) -> float:
        """What is to be added to bounds by the bands up to the `last`, whatever the clip."""
        return self.base + sum(band.error for band in self.bands[: last + 1]) + self._slack


def _band_query(z: Floats, band: slice) -> BandQuery:
    own, beyond = z[band], float(np.linalg.norm(z[band.stop :]))
    coarse = max(float(np.abs(own).max(initial=0.0)) / LARGEST, 1e-30)
    first = np.rint(own / coarse)
    fine = coarse / (2 * LARGEST)
    second = np.clip(np.rint((own - coarse * first) / fine), -LARGEST, LARGEST)
    error = float(np.linalg.norm(own - coarse * first - fine * second))
    numbers = torch.from_numpy(np.stack([first, second], axis=1).astype(np.int8))
    steps = torch.tensor([coarse, fine], dtype=torch.float32)
    return BandQuery(numbers, steps, float(np.linalg.norm(own)), beyond, LONGEST * error)  # |z'| is not above LONGEST


def slack(size: int) -> float:
    """What is added to a bound so that it holds for cosines as a search computes them, in float32, of D numbers."""
    return OWN_ERROR + (size + 8) * PRECISION
