"""Losses and gradients that are not finite: found without waiting for the device at each step, and named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from method_tvr.annotations import Query
from utils.basic_utils import InputError, first_few

GPU_CHECK_EVERY = 20  # steps; each check waits for the device


class NotFiniteError(InputError):
    """A step whose loss or gradient is not finite; `report` has all of its batch, for a file."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class _Step:
    """What is needed to name a step once it turns out to be a bad one."""

    epoch: int
    number: int
    queries: Sequence[Query]
    losses: dict[str, torch.Tensor]
    names: list[str]  # of parameters that have a gradient
    norms: torch.Tensor  # (len(names),) of their gradients; one past float32 counts as not finite: clipping makes it 0

    def finite(self) -> torch.Tensor:
        return torch.isfinite(torch.cat([self.norms, self.losses["loss_overall"].reshape(1)])).all()

    def error(self) -> NotFiniteError:
        """The error that names the step, its batch and what is not finite in it."""
        bad = [name for name, norm in zip(self.names, self.norms.tolist(), strict=True) if not math.isfinite(norm)]
        losses = {name: float(loss) for name, loss in self.losses.items()}
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
    """The error for a step.

    Args:
        what: is not finite.
        epoch, number: of the step, the number within its epoch and from 0.
        queries: of its batch.
        losses: its loss terms.
        gradients: names of parameters whose gradient is not finite, as far as known.
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
    """Watches a model's steps between backward and update.

    On the CPU each step is looked at before its update. On a GPU that would mean waiting for it, so steps are looked at
    `GPU_CHECK_EVERY` at a time, when updates have happened: call `check` before anything is kept.

    Args:
        model: whose gradients are watched.
        every: look after this many steps.
    """

    def __init__(self, model: nn.Module, every: int) -> None:
        self.every = every
        self._parameters = list(model.named_parameters())
        self._unchecked: list[_Step] = []

    @classmethod
    def on(cls, device: torch.device, model: nn.Module, at_once: bool) -> StepGuard:
        """The guard for a device; `at_once` looks at each step, and waits for the device, anywhere."""
        return cls(model, 1 if at_once or device.type == "cpu" else GPU_CHECK_EVERY)

    @property
    def checks_before_update(self) -> bool:
        """Whether `watch` finds a bad step before anything was changed by it."""
        return self.every == 1

    def watch(self, epoch: int, number: int, queries: Sequence[Query], losses: dict[str, torch.Tensor]) -> None:
        """Take note of a step whose gradients are there.

        Args:
            epoch, number: of the step, the number within its epoch and from 0.
            queries: of its batch.
            losses: {name: scalar}, `loss_overall` among them.

        Raises:
            NotFiniteError: this step, or one that was not looked at yet, is a bad one.
        """
        grads = [(name, p.grad) for name, p in self._parameters if p.grad is not None]
        norms = torch.zeros(0, device=losses["loss_overall"].device)
        if grads:
            norms = torch.stack(torch._foreach_norm([grad for _, grad in grads]))
        self._unchecked.append(_Step(epoch, number, queries, losses, [name for name, _ in grads], norms))
        if len(self._unchecked) >= self.every:
            self.check()

    def check(self) -> None:
        """Look at the steps that were not looked at yet; waits for the device.

        Raises:
            NotFiniteError: for the first bad one.
        """
        steps, self._unchecked = self._unchecked, []
        if not steps:
            return
        for step, finite in zip(steps, torch.stack([step.finite() for step in steps]).tolist(), strict=True):
            if not finite:
                raise step.error()
