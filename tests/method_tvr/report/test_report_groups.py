"""Queries in groups: each in one of them, whose names say what is in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from method_tvr.dataset.annotations import Query
from method_tvr.report.groups import MAX_TYPES, by_length, by_position, by_type, wilson_interval


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 60), st.sampled_from("abc")), min_size=1, max_size=50))
def test_groups_hold_each_query_once_and_their_recalls_make_up_the_whole(moments):
    queries = [Query(i, "", i, "a", (start, start + length), kind) for i, (start, length, kind) in enumerate(moments)]
    hits = np.arange(len(queries)) % 3 == 0
    for grouping in (by_type(queries), by_length(queries), by_position(queries, {"a": 160.0})):
        assert grouping is not None
        assert min(grouping.counts) >= 1
        assert sum(grouping.counts) == len(queries)
        whole = np.average(grouping.shares(hits), weights=grouping.counts)
        assert whole == pytest.approx(100 * hits.mean())


def test_groups_by_length_and_position_are_those_that_their_names_say():
    queries = [Query(i, "", i, "a", (10.0 * i, 10.0 * i + 2 * i + 1), "v") for i in range(10)]
    by = by_length(queries)
    assert by.names[0].startswith("under ")
    limit = float(by.names[0].split()[1])
    assert [group == 0 for group in by.group_of] == [2 * i + 1 < limit for i in range(10)]
    position = by_position(queries, {"a": 109.0})
    assert position is not None
    assert position.names == ["first 20 %", "20 to 40 %", "40 to 60 %", "60 to 80 %", "last 20 %"]
    assert list(position.group_of) == [int((10 * i + i + 0.5) / 109 * 5) for i in range(10)]
    assert by_position(queries, {}) is None
    assert by_position([*queries, Query(11, "", 11, "b", (0.0, 1.0))], {"a": 109.0}).group_of[-1] == -1


def test_many_types_are_shown_as_some_and_the_others():
    queries = [Query(i, "", i, "a", (0.0, 1.0), f"type {i % 40}") for i in range(100)]
    grouping = by_type(queries)
    assert grouping is not None
    assert len(grouping.names) == MAX_TYPES
    assert grouping.names[-1] == "29 others"
    assert sum(grouping.counts) == 100


@given(st.integers(1, 1000), st.floats(0, 1))
def test_intervals_of_shares_hold_the_share_and_stay_possible(n, part):
    share = 100 * int(part * n) / n
    low, high = wilson_interval(share, n)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 100
