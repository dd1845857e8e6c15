"""Random states that were taken and given back make the same draws again."""

import io
import random

import numpy as np
import torch

from utils.random_states import RandomStates

CPU = torch.device("cpu")


def draws() -> tuple:
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),  # noqa: NPY002
        np.random.randn(),  # noqa: NPY002
        torch.rand(3).tolist(),
        torch.randn(3).tolist(),
    )


def test_states_given_back_draw_the_same_again():
    draws()  # an odd number of gaussians: the other half of a pair is kept
    states = RandomStates.take(CPU)
    first, second = draws(), draws()
    assert first != second
    states.give_back(CPU)
    assert (draws(), draws()) == (first, second)


def test_states_survive_a_checkpoint():
    draws()
    states = RandomStates.take(CPU)
    buffer = io.BytesIO()
    torch.save(states.to_plain(), buffer)
    expected = draws()
    buffer.seek(0)
    RandomStates.from_plain(torch.load(buffer, weights_only=True)).give_back(CPU)
    assert draws() == expected
