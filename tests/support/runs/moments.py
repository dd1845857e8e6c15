"""Moments of a run, at which what it has left on the disk can be looked at: a kill then would leave that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Moment:
    """Before or after a call of a function.

    Attributes:
        target, name: whose function.
        call: its number, from 0.
        done: after it.
        to: where calls of `Path.replace` alone count that move a file to this name.
    """

    target: object
    name: str
    call: int
    done: bool = False
    to: str | None = None

    def __str__(self) -> str:
        return f"{self.name}-{self.call}-{'done' if self.done else 'begun'}"


@contextmanager
def looking_at(moments: Sequence[Moment], look: Callable[[Moment], object]) -> Iterator[None]:
    """Let `look` be called at each of the moments."""
    with pytest.MonkeyPatch.context() as patch:
        for target, name, to in {(moment.target, moment.name, moment.to) for moment in moments}:
            here = {(m.call, m.done): m for m in moments if (m.target, m.name, m.to) == (target, name, to)}
            patch.setattr(target, name, _looked_at(getattr(target, name), to, here, look))
        yield


def _looked_at(
    function: Callable[..., object],
    to: str | None,
    moments: dict[tuple[int, bool], Moment],
    look: Callable[[Moment], object],
) -> Callable[..., object]:
    numbers = count()

    def called(*args: Any, **kwargs: Any) -> object:
        if to is not None and Path(args[1]).name != to:
            return function(*args, **kwargs)
        number = next(numbers)
        if moment := moments.get((number, False)):
            look(moment)
        result = function(*args, **kwargs)
        if moment := moments.get((number, True)):
            look(moment)
        return result

    return called
