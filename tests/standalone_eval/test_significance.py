import tracemalloc
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from standalone_eval.significance import LEVEL, holm, is_significant, paired_bootstrap

hits = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40).map(np.array)
numbers = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20).map(np.array)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(st.one_of(hits, numbers))
def test_a_system_does_not_differ_from_itself(results):
    found = paired_bootstrap(results[:, 0], results[:, 0], 200)
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


@settings(max_examples=100, deadline=None)
@given(st.one_of(hits, numbers), st.integers(0, 3))
def test_the_other_way_round_is_the_mirror_image(results, seed):
    there = paired_bootstrap(results[:, 0], results[:, 1], 200, seed)
    back = paired_bootstrap(results[:, 1], results[:, 0], 200, seed)
    assert back.difference == -there.difference
    assert back.p == there.p
    if there.difference != 0:
        assert (back.low, back.high) == (-there.high, -there.low)


@settings(max_examples=50, deadline=None)
@given(st.one_of(hits, numbers))
def test_the_difference_is_that_of_the_means_and_p_a_probability_above_zero(results):
    found = paired_bootstrap(results[:, 0], results[:, 1], 200)
    assert found.difference == pytest.approx(100 * np.diff(results[:, ::-1].astype(float).mean(axis=0))[0], abs=1e-9)
    assert found.low <= found.high
    assert 1 / 201 <= found.p <= 1


def resampled_by_index(a, b, n_resamples, rng):
    """The bootstrap as it is written in books: differences of resamples, in percent points."""
    drawn = rng.integers(0, len(a), size=(n_resamples, len(a)))
    return 100 * (a[drawn].mean(axis=1) - b[drawn].mean(axis=1))


def of_hits(rng):
    a = rng.random(400) < 0.3
    return a, np.where(rng.random(400) < 0.2, rng.random(400) < 0.2, a)


def of_numbers(rng):
    a = rng.gamma(2.0, size=400)
    return a, a + rng.normal(0.03, 0.5, size=400)


@pytest.mark.parametrize("draw", [of_hits, of_numbers])
def test_drawing_counts_is_drawing_queries(draw):
    rng = np.random.default_rng(7)
    a, b = draw(rng)
    n_resamples = 20_000
    found = paired_bootstrap(a, b, n_resamples)
    plain = resampled_by_index(a.astype(float), b.astype(float), n_resamples, rng)
    error = 5 * plain.std() / np.sqrt(n_resamples) / 0.374  # a normal quantile at 2.5 %: density / sqrt(p (1 - p))
    error = max(error, 100 / len(a))  # those of hits move by whole queries
    assert [found.low, found.high] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=error)
    plain_p = np.mean(np.abs(plain - found.difference) >= abs(found.difference) - 1e-9)
    assert found.p == pytest.approx(plain_p, abs=5 * np.sqrt(0.5 / n_resamples))


def test_where_the_resamples_distribution_is_known_they_have_it():
    """A is right where B is not for 9 of 60 queries, and never the other way: gains of resamples are binomial."""
    n, gained = 60, 9
    a, b = np.arange(n) < gained, np.zeros(n, dtype=bool)
    mass = [comb(n, m) * (gained / n) ** m * (1 - gained / n) ** (n - m) for m in range(n + 1)]
    exact_p = sum(mass[m] for m in range(n + 1) if abs(m - gained) >= gained)
    cumulative = np.cumsum(mass)
    low, high = (int(np.searchsorted(cumulative, share)) for share in (0.025, 0.975))
    found = paired_bootstrap(a, b, 100_000)
    assert found.difference == pytest.approx(15.0)
    assert [found.low, found.high] == pytest.approx([100 * low / n, 100 * high / n])
    assert found.p == pytest.approx(exact_p, abs=5 * np.sqrt(exact_p / 100_000))


def test_a_gain_of_every_query_alike_is_certain():
    found = paired_bootstrap([0.4, 0.6, 0.9], [0.1, 0.3, 0.6], 999)
    assert [found.difference, found.low, found.high, found.p] == pytest.approx([30.0, 30.0, 30.0, 0.001])


def test_equal_systems_are_told_apart_in_one_of_twenty_samples_and_intervals_hold_the_truth_in_the_others():
    rng = np.random.default_rng(11)
    n_samples, alarms, held = 1000, 0, 0
    true_difference = 5.0
    for _ in range(n_samples):
        shared, luck_a, luck_b = rng.random((3, 300)) < [[0.3], [0.2], [0.2]]
        alarms += paired_bootstrap(shared | luck_a, shared | luck_b, 400).p < 1 - LEVEL
        better = rng.random(300) < 0.2 + true_difference / 100
        found = paired_bootstrap(better, luck_b, 400)
        held += found.low <= true_difference <= found.high
    deviation = np.sqrt(0.05 * 0.95 / n_samples)
    assert alarms / n_samples == pytest.approx(0.05, abs=4 * deviation)
    assert held / n_samples == pytest.approx(0.95, abs=4 * deviation)


def test_pairing_finds_what_two_independent_samples_would_not():
    a = np.arange(1000) % 2 == 0
    b = a & (np.arange(1000) >= 30)
    found = paired_bootstrap(a, b)
    assert found.low > 0
    assert is_significant(found.p)


def test_equal_input_gives_equal_results_and_another_seed_others():
    a, b = of_hits(np.random.default_rng(3))
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b)
    assert paired_bootstrap(a, b, seed=1).p != paired_bootstrap(a, b, seed=2).p


def test_hits_of_tvrs_size_take_little_memory():
    """Ten thousand resamples of 10,895 queries by index would be 800 MB."""
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 10_895)) < 0.1
    tracemalloc.start()
    paired_bootstrap(a, b, 10_000)
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([1, 0], [1], r"not one result of each system for each query: \(2,\) and \(1,\)"),
        ([], [], "not one result"),
        ([[1, 0]], [[1, 0]], "not one result"),
        ([float("nan")], [1], "NaN or infinite"),
    ],
)
def test_results_that_are_no_pairs_are_refused(a, b, said):
    with pytest.raises(ValueError, match=said):
        paired_bootstrap(a, b)


@given(p_values)
def test_holm_is_the_step_down_procedure(p):
    corrected = holm(p)
    rejected, level = set(), 1 - LEVEL
    for step, number in enumerate(sorted(range(len(p)), key=p.__getitem__)):  # as Holm writes it
        if p[number] * (len(p) - step) >= level:
            break
        rejected.add(number)
    assert {number for number, value in enumerate(corrected) if is_significant(value)} == rejected
    assert all(before <= after <= 1 for before, after in zip(p, corrected, strict=True))


def test_holm_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
