"""BertAdam and its learning-rate schedule (as in TVRetrieval, after pytorch-pretrained-BERT)."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

MAX_GRAD_NORM = 1.0  # of each parameter tensor on its own
MOMENTS = ("next_m", "next_v")  # of its gradients and of their squares


def warmup_linear(p: float, warmup: float) -> float:
    """The learning rate's factor at the progress p = step / t_total: up while p is below warmup, then down to 0."""
    return p / warmup if p < warmup else max((p - 1.0) / (warmup - 1.0), 0.0)


class _UncompiledOptimizer(Optimizer):
    """torch's, but that no method imports torch's compiler to be left out of it: over a second of each start."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)


class BertAdam(_UncompiledOptimizer):
    """Adam with decoupled weight decay and each tensor's gradient clipped on its own.

    Args:
        params: parameters or groups; a group may have its own `weight_decay`.
        lr: peak learning rate, reached at the end of warm-up.
        warmup: proportion of `t_total`, the number of steps planned, that the learning rate grows over.
        b1, b2, eps: Adam's; eps is added outside the root.
        weight_decay: added to the update before the learning rate is applied.
        bias_correction: Adam's, for moments that begin at 0. Without it step t is (1 - b1^t) / sqrt(1 - b2^t) times as
            long as lr says where gradients agree: the first 3.2 times, the 12th 6.6 times, the 100th 3.2 times.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        warmup: float,
        t_total: int,
        b1: float = 0.9,
        b2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = False,
    ) -> None:
        self.bias_correction = bias_correction
        self.warmup, self.t_total, self.steps_done = warmup, t_total, 0
        self._multiplier = 0.0
        self._norms: torch.Tensor | None = None  # of the gradients there are, once somebody has asked
        self._on_device: dict[torch.device, torch.Tensor] = {}
        self._tensor_of_number: dict[tuple[int, ...], torch.Tensor] = {}  # by the sizes of tensors side by side
        super().__init__(params, {"lr": lr, "b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay})

    def lr_multiplier(self) -> float:
        """The schedule's factor for the next step; 0 for the very first one when there is a warm-up."""
        return warmup_linear(self.steps_done / self.t_total, self.warmup)

    def with_gradient(self) -> list[torch.Tensor]:
        """The parameters that have a gradient, group by group: those that the next step updates."""
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    @torch.no_grad()
    def gradient_norms(self) -> torch.Tensor:
        """(number of `with_gradient`,) norms of their gradients, in their order; the next update clips by them.

        Whoever changes gradients afterwards calls this again.
        """
        grads = [p.grad for p in self.with_gradient() if p.grad is not None]
        self._norms = torch.stack(torch._foreach_norm(grads)) if grads else torch.zeros(0)
        return self._norms

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._norms = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; gradients are clipped in place."""
        self.advance()
        self.update()

    def advance(self) -> None:
        """Take the learning rate of the next step, which `update` does. The host's part of a step."""
        self._multiplier = self.lr_multiplier()
        self.steps_done += 1
        if self.bias_correction:
            b1, b2 = self.defaults["b1"], self.defaults["b2"]
            self._multiplier *= math.sqrt(1 - b2**self.steps_done) / (1 - b1**self.steps_done)
        for multiplier in self._on_device.values():
            multiplier.fill_(self._multiplier)

    @torch.no_grad()
    def update(self) -> None:
        """The device's part of a step: on a GPU nothing in it differs between steps but what is in memory there."""
        norms = self.gradient_norms() if self._norms is None else self._norms
        self._norms = None
        grads = iter(self._clipped([p.grad for p in self.with_gradient() if p.grad is not None], norms))
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, list(itertools.islice(grads, len(params))), group)

    def _update(self, params: list[torch.Tensor], grads: list[torch.Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {name: torch.zeros_like(p) for name in MOMENTS}
        next_m, next_v = ([self.state[p][name] for p in params] for name in MOMENTS)
        # lists of tensors at a time: a handful of fused kernels instead of a dozen per parameter
        torch._foreach_mul_(next_m, group["b1"])
        torch._foreach_add_(next_m, grads, alpha=1 - group["b1"])
        torch._foreach_mul_(next_v, group["b2"])
        torch._foreach_addcmul_(next_v, grads, grads, 1 - group["b2"])
        denominator = torch._foreach_sqrt(next_v)
        torch._foreach_add_(denominator, group["eps"])
        update = torch._foreach_div(next_m, denominator)
        if group["weight_decay"] > 0:
            torch._foreach_add_(update, params, alpha=group["weight_decay"])
        if params[0].is_cuda:
            torch._foreach_mul_(update, self._multiplier_on(params[0].device))
            torch._foreach_add_(params, update, alpha=-group["lr"])
        else:
            torch._foreach_add_(params, update, alpha=-self._multiplier * group["lr"])

    def _multiplier_on(self, device: torch.device) -> torch.Tensor:
        """The learning rate's factor in a device's memory, where a captured step finds that of its turn."""
        if device not in self._on_device:
            self._on_device[device] = torch.full((), self._multiplier, device=device)
        return self._on_device[device]

    def _clipped(self, grads: list[torch.Tensor], norms: torch.Tensor) -> list[torch.Tensor]:
        """The gradients, none longer than `MAX_GRAD_NORM`; as torch's `clip_grad_norm_`, one tensor at a time."""
        if not grads:
            return grads
        scales = (MAX_GRAD_NORM / (norms + 1e-6)).clamp(max=1.0)
        if not grads[0].is_cuda:
            torch._foreach_mul_(grads, list(scales.unbind()))
            return grads
        # on a GPU that would be a kernel for each: here each number is multiplied by the scale of its tensor
        sizes = tuple(grad.numel() for grad in grads)
        if sizes not in self._tensor_of_number:
            of_number = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
            self._tensor_of_number[sizes] = of_number.to(grads[0].device, torch.int32)
        flat = torch.cat([grad.flatten() for grad in grads])
        flat.mul_(scales.index_select(0, self._tensor_of_number[sizes]))
        return [part.view(grad.shape) for part, grad in zip(flat.split(sizes), grads, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps_done": self.steps_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned for an optimiser of the same parameters with the same settings.

        Unlike torch's own this takes nothing over but tensors of the right shapes, copied, and the number of steps.
        Of anything else it raises KeyError, TypeError, AttributeError, ValueError or RuntimeError.
        """
        if state_dict["param_groups"] != self.state_dict()["param_groups"]:
            raise ValueError("an optimiser with other settings")
        steps_done, saved = state_dict["steps_done"], state_dict["state"]
        if type(steps_done) is not int or not 0 <= steps_done <= self.t_total:
            raise ValueError(f"an optimiser that has not done between 0 and {self.t_total} steps")
        parameters = dict(enumerate(p for group in self.param_groups for p in group["params"]))
        if not saved.keys() <= parameters.keys():
            raise ValueError("an optimiser of other parameters")
        state = {parameters[number]: _moments(parameters[number], moments) for number, moments in saved.items()}
        self.state.clear()
        self.state.update(state)
        self.steps_done = steps_done


def _moments(parameter: torch.Tensor, saved: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of a parameter's moments."""
    moments = {name: torch.zeros_like(parameter) for name in MOMENTS}
    for name, moment in moments.items():
        if saved[name].shape != moment.shape or not saved[name].is_floating_point():
            raise ValueError(
                f"{name} of {tuple(saved[name].shape)} {saved[name].dtype} for a parameter of {tuple(moment.shape)}"
            )
        moment.copy_(saved[name])
    return moments


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay all parameters but biases and the weights of layers called LayerNorm (as in TVRetrieval)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        exempt = "bias" in name or "LayerNorm.weight" in name
        (plain if exempt else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
