"""Losses and gradients that are not finite: found without waiting for the device at each step, and named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from method_tvr.dataset.annotations import Query
from utils.basic_utils import InputError, first_few

GPU_CHECK_EVERY = 20  # steps


class NotFiniteError(InputError):
    """A step whose loss or gradient is not finite; `report` has all of its batch, for a file."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report

    def kept_in(self, path: Path) -> InputError:
        """The error that ends a run, once the report is in a file."""
        return InputError(
            f"{self}; all of it is in {path}. What was saved is from before it. Check the features of this batch, "
            "start a new run with a lower --lr, or resume with --detect_anomaly to see which operation it comes from"
        )


@dataclass(frozen=True)
class StepValues:
    """What is known of a step once its gradients are there, all of it where the model is."""

    names: list[str]  # of the parameters that have a gradient
    norms: torch.Tensor  # (len(names),) of these; one past float32 counts as not finite: clipping makes it 0
    losses: dict[str, torch.Tensor]  # scalars by name, `loss_overall` among them
    finite: torch.Tensor  # bool scalar, whether `loss_overall` and all norms are

    @classmethod
    def of(cls, names: list[str], norms: torch.Tensor, losses: dict[str, torch.Tensor]) -> StepValues:
        """Join them, so that they are copied as one."""
        joined = torch.cat([norms.to(losses["loss_overall"].device), torch.stack(list(losses.values()))])
        # no term is infinite or NaN when their sum is neither; and 0 times a number is 0 only if it is finite
        return cls._split(names, list(losses), joined, (joined * 0).sum() == 0)

    @classmethod
    def _split(cls, names: list[str], terms: list[str], joined: torch.Tensor, finite: torch.Tensor) -> StepValues:
        losses = dict(zip(terms, joined[len(names) :].unbind(), strict=True))
        return cls(names, joined[: len(names)], losses, finite)

    def clone(self) -> StepValues:
        """A copy that stays when the memory of this one is used again."""
        n = len(self.names) + len(self.losses)
        joined = self.norms.as_strided((n,), (1,)).clone()
        return self._split(self.names, list(self.losses), joined, self.finite.clone())


class _Step(NamedTuple):
    """What is needed to name a step once it turns out to be a bad one."""

    epoch: int
    number: int
    queries: Sequence[Query]
    values: StepValues

    def error(self) -> NotFiniteError:
        """The error that names the step, its batch and what is not finite in it."""
        norms = zip(self.values.names, self.values.norms.tolist(), strict=True)
        bad = [name for name, norm in norms if not math.isfinite(norm)]
        losses = {name: float(loss) for name, loss in self.values.losses.items()}
        what = f"the gradient of {first_few(bad, 3)}" if math.isfinite(losses["loss_overall"]) else "the loss"
        return not_finite(what, self.epoch, self.number, self.queries, losses, bad)


def not_finite(
    what: str,
    epoch: int,
    number: int,
    queries: Sequence[Query],
    losses: dict[str, float],
    gradients: Sequence[str] = (),
) -> NotFiniteError:
    """The error for a step, `number` within its epoch and from 0, in which `what` is not finite.

    `gradients` are names of parameters whose gradient is not, as far as known.
    """
    desc_ids, vid_names = [query.desc_id for query in queries], [query.vid_name for query in queries]
    report = {
        "epoch": epoch,
        "step": number,
        "losses": {name: value if math.isfinite(value) else str(value) for name, value in losses.items()},
        "gradients": list(gradients),
        "desc_ids": desc_ids,
        "vid_names": vid_names,
    }
    terms = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    message = (
        f"epoch {epoch}, step {number}: {what} is not finite ({terms}); the batch: "
        f"desc_id {first_few(desc_ids, 8)}; vid_name {first_few(vid_names, 8)}"
    )
    return NotFiniteError(message, report)


class StepGuard:
    """Watches the steps of a training run between backward and update.

    On the CPU each step is looked at before its update. On a GPU that would mean waiting for it, so steps are looked at
    `GPU_CHECK_EVERY` at a time, when as many more have been asked for and these have long been done: call `check`
    before anything is kept.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._unchecked: list[_Step] = []
        self._asked: _Verdicts | None = None

    @classmethod
    def on(cls, device: torch.device, at_once: bool) -> StepGuard:
        """The guard for a device; `at_once` looks at each step, and waits for the device, anywhere."""
        return cls(1 if at_once or device.type == "cpu" else GPU_CHECK_EVERY)

    @property
    def checks_before_update(self) -> bool:
        """Whether `watch` finds a bad step before anything was changed by it."""
        return self.every == 1

    def watch(self, epoch: int, number: int, queries: Sequence[Query], values: StepValues) -> None:
        """Take note of a step, `number` within its epoch, whose gradients are there; nobody writes to `values` later.

        A NotFiniteError is raised if this step, or one that was not looked at yet, is a bad one.
        """
        self._unchecked.append(_Step(epoch, number, queries, values))
        if self.every == 1:
            self.check()
        elif len(self._unchecked) >= self.every:
            asked, self._asked = self._asked, _Verdicts(self._unchecked)
            self._unchecked = []
            if asked is not None:
                asked.look()

    def check(self) -> None:
        """Look at the steps that were not looked at yet; waits for the device."""
        steps, self._unchecked = self._unchecked, []
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.look()
        if steps:
            _Verdicts(steps).look()


class _Verdicts:
    """Which of some steps are finite, on its way from the device."""

    def __init__(self, steps: Sequence[_Step]) -> None:
        self._steps = steps
        flags = torch.stack([step.values.finite for step in steps])
        self._copied: torch.cuda.Event | None = None
        if flags.is_cuda:
            self._flags = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
            self._flags.copy_(flags, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._flags = flags

    def look(self) -> None:
        """Raises `NotFiniteError` for the first bad step; waits for the device only if it has not come so far."""
        if self._copied is not None and not self._copied.query():
            self._copied.synchronize()
        for step, finite in zip(self._steps, self._flags.tolist(), strict=True):
            if not finite:
                raise step.error()
