"""Random states that were taken and given back make the same draws again."""

import io
import random
from typing import Any

import numpy as np
import pytest
import torch

from utils.random_states import RandomStates, check_torch_state

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


def torch_state(left: int, pos: int) -> torch.Tensor:
    """A state of torch's generator that says it is elsewhere."""
    raw = bytearray(torch.get_rng_state().numpy().tobytes())
    raw[8:12], raw[16:24] = left.to_bytes(4, "little", signed=True), pos.to_bytes(8, "little")
    return torch.frombuffer(raw, dtype=torch.uint8)


def zeros(first: int = 0, n: int = 624) -> torch.Tensor:
    words = torch.zeros(n, dtype=torch.int64)
    words[0] = first
    return words


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("numpy state pos", -1),  # numpy reads wherever it is told to
        ("numpy state pos", 625),
        ("numpy state pos", 10**6),
        ("numpy state pos", 1.0),
        ("numpy state key", zeros()),  # numpy's normal deviates would never come
        ("numpy state key", zeros((1 << 31) - 1)),
        ("numpy state key", zeros(1 << 32)),
        ("numpy state key", zeros(-1)),
        ("numpy state key", zeros(1 << 31, 623)),
        ("numpy state key", zeros(1 << 31).float()),
        ("numpy state key", torch.ones(1, dtype=torch.int64).expand(1 << 40)),
        ("numpy bit_generator", "PCG64"),
        ("numpy has_gauss", 2),
        ("numpy has_gauss", torch.zeros(2)),
        ("numpy gauss", "0"),
        ("numpy gauss", float("nan")),
        ("python words", zeros(1, 625)),
        ("python words", torch.cat([torch.ones(624, dtype=torch.int64), torch.tensor([625])])),
        ("python words", [1] * 625),
        ("python version", 2),
        ("python gauss", "0"),
        ("python gauss", torch.zeros(2)),
        ("cpu", torch_state(624, 624)),  # torch would read on past its words
        ("cpu", torch_state(1, 625)),
        ("cpu", torch_state(0, 0)),
        ("cpu", torch.zeros(5056, dtype=torch.uint8)),
        ("cpu", torch.zeros(3, dtype=torch.uint8)),
        ("cpu", torch.zeros(5056)),
        ("cpu", None),
        ("cuda", torch.zeros(16)),
        ("cuda", 3),
        ("python", []),
        ("numpy", {}),
    ],
)
def test_states_that_are_none_are_refused_before_any_is_given_back(path, value):
    states = RandomStates.take(CPU).to_plain()
    *folders, name = path.split()
    inner: Any = states
    for folder in folders:
        inner = inner[folder]
    inner[name] = value
    with pytest.raises((KeyError, TypeError, AttributeError, ValueError)):
        RandomStates.from_plain(states)


def test_states_are_accepted_wherever_generators_are():
    for n in (0, 1, 200, 623, 624, 625):
        generator = torch.Generator().manual_seed(1)
        torch.rand(n, generator=generator)
        check_torch_state(generator.get_state())
        random.random()
        np.random.rand(n)  # noqa: NPY002
        RandomStates.from_plain(RandomStates.take(CPU).to_plain())
