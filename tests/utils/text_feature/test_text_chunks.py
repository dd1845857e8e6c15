"""Chunks are made of whole lines, as in TVRetrieval."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.text_feature.chunks import chunk_lines, cut_lines


def test_a_line_that_does_not_fit_begins_a_chunk():
    assert chunk_lines([100, 100, 54, 1], 254) == [range(0, 3), range(3, 4)]


@pytest.mark.parametrize(("last", "kept"), [(25, False), (26, True)])
def test_a_last_chunk_below_a_tenth_is_dropped_for_training_only(last: int, kept: bool):
    lengths = [250, last]
    assert chunk_lines(lengths, 254) == [range(0, 1), range(1, 2)]
    assert chunk_lines(lengths, 254, drop_short_last=True) == [range(0, 1), range(1, 2)][: 1 + kept]


def test_no_lines_make_no_chunk_and_empty_ones_belong_to_their_neighbours():
    assert chunk_lines([], 10) == []
    assert chunk_lines([0, 5, 0], 10) == [range(0, 3)]


def test_a_line_longer_than_a_chunk_must_be_cut_before():
    with pytest.raises(ValueError, match="line 1 has 11 tokens"):
        chunk_lines([1, 11], 10)
    assert cut_lines([[1], list(range(11))], 10) == ([[1], list(range(10))], [1])


@given(st.lists(st.integers(0, 10)), st.booleans())
def test_chunks_hold_all_lines_once_and_are_as_full_as_whole_lines_allow(lengths: list[int], drop: bool):
    chunks = chunk_lines(lengths, 10, drop_short_last=drop)
    lines = [line for chunk in chunks for line in chunk]
    assert lines == list(range(len(lines)))
    assert sum(lengths[len(lines) :]) < 1 or not drop or len(lines) < len(lengths)
    if not drop:
        assert len(lines) == len(lengths)
    totals = [sum(lengths[line] for line in chunk) for chunk in chunks]
    assert all(total <= 10 for total in totals)
    for total, following in zip(totals, chunks[1:], strict=False):
        assert total + lengths[following[0]] > 10
