"""Seconds of the stages that a run of the real program is made of, told apart while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from tests.benchmarks.common import Report, Timing, synchronize

Stages = Mapping[str, Sequence[tuple[Any, str]]]


class StageClock:
    """Seconds that each stage takes for itself, without the stages it calls.

    Args:
        device: waited for when a stage ends.
        stages: {stage: the functions it is made of, where the program looks them up}; what they call counts for the
            stage it is of.

    Attributes:
        seconds: {stage: seconds}.
    """

    def __init__(self, device: torch.device, stages: Stages) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)
        self._device, self._stages = device, stages
        self._inner: list[float] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the functions of the stages for the length of the block."""
        with ExitStack() as patches:
            for stage, functions in self._stages.items():
                for owner, name in functions:
                    timed = self._timed(stage, getattr(owner, name))
                    patches.enter_context(mock.patch.object(owner, name, timed))
            yield

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            begin = time.perf_counter()
            try:
                result = function(*args, **kwargs)
                synchronize(self._device)
                return result
            finally:
                elapsed = time.perf_counter() - begin
                self.seconds[stage] += elapsed - self._inner.pop()
                if self._inner:
                    self._inner[-1] += elapsed

        return timed

    def report(
        self, report: Report, whole: Timing, n: int, noun: str, floor_macs: Mapping[str, float], rest: str
    ) -> None:
        """A line for each stage, and one for what is left of the whole, called `rest`.

        Args:
            report: takes the lines.
            whole: how long all of it took.
            n, noun: how many of what were dealt with.
            floor_macs: {stage: multiply-adds}, for the stages that arithmetic decides.
            rest: name of the last line.
        """
        for stage, seconds in {**self.seconds, rest: whole.seconds - sum(self.seconds.values())}.items():
            timing = Timing(seconds, whole.unit_before, whole.unit_after)
            report.add(stage, timing, n, noun, floor_macs.get(stage))
