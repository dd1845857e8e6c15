"""What a certified index says of cosines holds, for whatever rows there may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.search.corpus import LEAST_NORM
from method_tvr.search.index.certified import bounds as bounds_module
from method_tvr.search.index.certified.bounds import (
    FINER,
    Asked,
    Basis,
    Layout,
    Scales,
    Weights,
    coded,
    eight_bits_are_exact,
    products,
    weights,
)
from method_tvr.search.scoring import products_alike

D = 96  # less than a row of the second level has room for
KINDS = ("normal", "equal", "one hot", "near ties", "tiny", "zero", "half", "huge")


def clips_of_kind(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, D) float32 rows of clips, as they may come."""
    normal = rng.standard_normal((n, D)).astype(np.float32)
    return {
        "normal": normal,
        "equal": np.repeat(normal[:1], n, axis=0),
        "one hot": np.eye(D, dtype=np.float32)[rng.integers(0, D, n)] * rng.choice([-1, 1], (n, 1)).astype(np.float32),
        "near ties": normal[:1] * (1 + 1e-6 * normal),
        "tiny": normal * np.float32(1e-30),
        "zero": np.zeros((n, D), np.float32),
        "half": normal.astype(np.float16).astype(np.float32),
        "huge": normal * np.float32(1e15),
    }[kind]


def excess(kinds: tuple[str, ...], row_bytes: int, seed: int, fine: bool) -> float:
    """By how much the cosines that a search computes are above their bounds, at most."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([clips_of_kind(kind, 8, rng) for kind in kinds])
    norms = np.maximum(np.linalg.norm(rows.astype(np.float64), axis=1).astype(np.float32), np.float32(LEAST_NORM))
    queries = F.normalize(torch.from_numpy(np.concatenate([rng.standard_normal((3, D)), rows[:5]])).float(), dim=-1)
    cosines = products_alike(torch.from_numpy(rows), queries) / torch.from_numpy(norms).unsqueeze(1)
    basis = Basis.of(rows / norms.astype(np.float64)[:, None], rng.standard_normal((4, D)))
    layout = Layout.of(row_bytes, D)
    z = basis.coordinates(rows / norms.astype(np.float64)[:, None])
    lengths = np.stack([np.linalg.norm(z[:, slice(*some)], axis=1) for some in layout.stretches] or [z[:, 0]], axis=1)
    kept, scales = coded(z[:, : layout.n_directions], lengths[:, : len(layout.stretches)])
    of = weights(Asked.of(basis.coordinates(queries.numpy()), layout), layout, scales, fine)
    found = products(torch.from_numpy(kept), of)
    assert torch.equal(found.long(), exact_products(kept, of))
    return float((cosines.double().numpy() - (found.numpy() * of.step + of.constant)).max())


def exact_products(kept: np.ndarray, of: Weights) -> torch.Tensor:
    planes = of.numbers.long().split(len(of.step), dim=1)
    return torch.from_numpy(kept).long() @ sum(FINER**k * plane for k, plane in enumerate(reversed(planes)))


@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    st.sampled_from([8, 48, 96]),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_no_cosine_is_above_its_bound(kinds, row_bytes, seed, fine):
    assert excess(tuple(kinds), row_bytes, seed, fine) <= 0


@pytest.mark.parametrize(
    ("wrong", "row_bytes", "fine"),
    [
        (lambda scales: replace(scales, rounding=0.0), 48, True),
        (lambda scales: replace(scales, longest=0.0), 96, False),  # by it the error of weights is counted
        (lambda scales: replace(scales, steps=np.append(scales.steps[:4], np.zeros(4))), 8, True),  # no lengths
    ],
)
def test_a_bound_that_is_wrong_is_noticed(monkeypatch, wrong, row_bytes, fine):
    """Each part of a bound is needed: without any of them the test above fails."""

    def coded_wrong(numbers: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, Scales]:
        rows, scales = bounds_module.coded(numbers, lengths)
        return rows, wrong(scales)

    monkeypatch.setitem(globals(), "coded", coded_wrong)
    assert max(excess(("normal", "equal", "one hot"), row_bytes, seed, fine) for seed in range(20)) > 0


def test_a_bound_without_slack_is_noticed(monkeypatch):
    monkeypatch.setattr(bounds_module, "slack", lambda size: -0.05)
    assert max(excess(("normal", "one hot"), 96, seed, True) for seed in range(5)) > 0


def test_products_are_exact_without_a_processor_that_multiplies_bytes_exactly(monkeypatch):
    assert eight_bits_are_exact() == bounds_module.eight_bits_are_exact.__wrapped__()
    monkeypatch.setattr(bounds_module, "eight_bits_are_exact", lambda: False)
    assert excess(("normal", "one hot"), 96, 0, True) <= 0
    assert excess(("normal", "one hot"), 48, 0, False) <= 0


@given(st.integers(1, 150), st.integers(1, 40), st.integers(0, 2**32))
def test_products_do_not_depend_on_what_else_is_computed(n_rows, n_queries, seed):
    generator = torch.Generator().manual_seed(seed)
    rows, queries = torch.randn(150, 2, 48, generator=generator), torch.randn(40, 2, 48, generator=generator)
    whole = products_alike(rows[:, 1], queries[:, 1])
    some = torch.randperm(150, generator=generator)[:n_rows]
    found = products_alike(rows[some][:, 1], queries[:n_queries, 1])
    of_all = whole if n_queries > 1 else products_alike(rows[:, 1], queries[:1, 1])  # alone, it is multiplied otherwise
    assert torch.equal(found, of_all[some][:, :n_queries])
    torch.testing.assert_close(whole, rows[:, 1] @ queries[:, 1].t(), rtol=1e-5, atol=1e-5)
