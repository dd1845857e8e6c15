"""Tests are found to be slow by what they name, at whatever distance."""

from importlib import import_module
from pathlib import Path

import pytest

from method_tvr import train
from tests.support.slow import SLOW, TESTS, WHOLE, is_slow


@pytest.fixture
def trained() -> object:
    return train.Trainer


def helper() -> object:
    return [train.main for _ in range(1)]


def test_a_test_is_slow_by_its_fixture(request: pytest.FixtureRequest, trained: object) -> None:
    assert is_slow(request.node)


def test_a_test_is_slow_by_its_helper(request: pytest.FixtureRequest) -> None:
    assert helper()
    assert is_slow(request.node)


def test_a_test_is_quick_that_only_has_them_beside_it(request: pytest.FixtureRequest) -> None:
    assert not is_slow(request.node)


def test_slow_parts_are_there() -> None:
    assert all(Path(TESTS, part).exists() for part in WHOLE)


@pytest.mark.parametrize("module", SLOW)
def test_what_is_slow_is_still_called_so(module: str) -> None:
    assert all(hasattr(import_module(module), name) for name in SLOW[module])
