"""Padding keeps what is there and masks what is not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.tensor_utils import pad_sequences, to_host


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 4), st.booleans())
def test_rows_stay_and_the_rest_is_zero(lengths, extra, as_long_as_the_longest):
    random = np.random.default_rng(0)
    sequences = [random.normal(size=(n, 3)).astype(np.float32) for n in lengths]
    length = None if as_long_as_the_longest else max(lengths) + extra
    padded, mask = pad_sequences(sequences, length)
    assert padded.shape == (len(lengths), max(lengths) if length is None else length, 3)
    assert mask.dtype == torch.float32
    for row, sequence in enumerate(sequences):
        n = len(sequence)
        np.testing.assert_array_equal(padded[row, :n].numpy(), sequence)
        assert not padded[row, n:].any()
        assert mask[row].tolist() == [1.0] * n + [0.0] * (padded.shape[1] - n)


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_the_type_of_values_stays(dtype):
    assert pad_sequences([np.ones((2, 1), dtype)])[0].numpy().dtype == dtype


def test_sequences_longer_than_the_length_are_an_error():
    with pytest.raises(ValueError, match="broadcast"):
        pad_sequences([np.ones((5, 1))], length=3)


def test_tensors_of_several_types_come_to_the_host_together_as_they_are():
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(3, 1, generator=generator).half(),
        torch.arange(12).view(3, 4)[:, 1:],
        torch.rand(5, generator=generator) > 0.5,
        torch.randn(2, 3, generator=generator).t(),
        torch.empty(0, 7),
        torch.tensor(3.5, dtype=torch.float64),
    ]
    for found, tensor in zip(to_host(*tensors), tensors, strict=True):
        assert found.dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found, tensor.numpy())
