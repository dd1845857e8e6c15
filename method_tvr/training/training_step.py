"""One update of the model from a batch: the plain way, and as a CUDA graph.

A step at the paper's size is some 600 kernels, most of them shorter than the time that a host needs to ask for one. A
graph is asked for as a whole: all that happens on the device in a step, from the gathering of the batch to the update,
is recorded once for each size of batch, and repeated by one call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from method_tvr.model import LossSettings, ReLoCLNet
from method_tvr.optimization import BertAdam
from method_tvr.options.values import OFF
from method_tvr.training.step_guard import StepValues
from utils.basic_utils import first_line
from utils.ranks import Ranks

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
Inputs = Mapping[str, Any]  # of a batch: tensors, and numbers that sizes depend on
Watch = Callable[[StepValues], None]  # looks at a step, and may raise; before its update, if that is a plain one


class AnomalyError(RuntimeError):
    """What torch's search for anomalies says of a step's gradients, with the step's `losses`, {name: value}."""

    def __init__(self, message: str, losses: dict[str, float]) -> None:
        super().__init__(message)
        self.losses = losses


class TrainingStep:
    """Losses, gradients and the update of a batch.

    Args:
        assemble: makes the tensors that the model takes of what a loader gave.
        negatives: generator that negatives are drawn with.
        trim_padding, amp_dtype, ranks: see `ReLoCLNet.forward`.
        grad_clip: most that the norm of all gradients may be, -1: any.
    """

    def __init__(
        self,
        model: ReLoCLNet,
        optimizer: BertAdam,
        assemble: Callable[[Inputs], Mapping[str, torch.Tensor]],
        negatives: torch.Generator,
        trim_padding: bool,
        amp_dtype: torch.dtype | None,
        ranks: Ranks,
        grad_clip: float = OFF,
    ) -> None:
        self.model, self.optimizer, self.negatives = model, optimizer, negatives
        self._assemble, self._ranks, self._grad_clip = assemble, ranks, grad_clip
        self._trim_padding, self._amp_dtype = trim_padding, amp_dtype
        self._names: dict[torch.Tensor, str] = {p: name for name, p in model.named_parameters()}

    def __call__(self, batch: Inputs, settings: LossSettings, watch: Watch) -> StepValues:
        """Update the model, and say what is to be known of the step."""
        values = self.gradients(*self.losses(batch, settings))
        watch(values)
        self.clip()
        self.optimizer.step()
        return values

    def losses(self, batch: Inputs, settings: LossSettings) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch, and its terms, see `ReLoCLNet.forward`."""
        inputs = self._assemble(batch)
        return self.model(inputs, settings, self.negatives, self._trim_padding, self._amp_dtype, self._ranks)

    def gradients(self, loss: torch.Tensor, losses: dict[str, torch.Tensor]) -> StepValues:
        """Gradients of a loss, with those of other processes; and what is to be known of the step."""
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:  # a last batch of one query has no ranking loss, and maybe no other is on
            try:
                loss.backward()
            except RuntimeError as err:
                if "nan values" not in str(err):  # which only torch's search for anomalies finds
                    raise
                raise AnomalyError(first_line(err), {name: float(term) for name, term in losses.items()}) from err
        self._ranks.sum_gradients(self.model.parameters())
        norms = self.optimizer.gradient_norms()
        return StepValues.of([self._names[p] for p in self.optimizer.with_gradient()], norms, losses)

    def clip(self) -> None:
        """Shorten all gradients together, where that is asked for."""
        if self._grad_clip != OFF:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._grad_clip)
            self.optimizer.gradient_norms()


class _Recorded(NamedTuple):
    """A step on the device: what it reads, how it is repeated, and what it writes."""

    inputs: dict[str, Any]
    repeat: Callable[[], None]
    values: StepValues


class GraphedStep:
    """Steps of a `TrainingStep` by CUDA graphs, one for each size of batch and each set of losses.

    The first step of a kind is a plain one, by which libraries set up what they need; the second is recorded. Graphs
    share their memory: each is done with it before the next begins. Where steps cannot be recorded, they go on as plain
    ones, which is said, unless graphs are insisted on.
    """

    def __init__(self, step: TrainingStep, device: torch.device, insist: bool = False) -> None:
        self._step, self._device, self._insist = step, device, insist
        self._gave_up = False
        self._recorded: dict[Any, _Recorded | None] = {}
        self._pool: Any = None

    def __call__(self, batch: Inputs, settings: LossSettings, watch: Watch) -> StepValues:
        """Update the model, and say what is to be known of the step."""
        if self._gave_up:
            return self._step(batch, settings, watch)
        sizes = tuple((name, tuple(x.shape) if isinstance(x, torch.Tensor) else x) for name, x in _used(batch).items())
        kind = (settings, sizes)
        if kind not in self._recorded:
            self._recorded[kind] = None
            return self._step(batch, settings, watch)
        recorded = self._recorded[kind]
        if recorded is None:
            try:
                recorded = self._recorded[kind] = self._record(batch, settings)
            except RuntimeError as err:
                if self._insist:
                    raise
                self._gave_up = True
                why = f"note: training steps cannot be CUDA graphs here ({first_line(err)}): going on with plain steps"
                print(f"{why}; --cuda_graph off asks for them", file=sys.stderr)
                return self._step(batch, settings, watch)
        for name, x in recorded.inputs.items():
            if isinstance(x, torch.Tensor):
                x.copy_(batch[name], non_blocking=True)
        self._step.optimizer.advance()
        recorded.repeat()
        values = recorded.values.clone()
        watch(values)
        return values

    def _record(self, batch: Inputs, settings: LossSettings) -> _Recorded:
        inputs = {
            name: torch.empty_like(x, device=self._device).copy_(x) if isinstance(x, torch.Tensor) else x
            for name, x in _used(batch).items()
        }

        def step() -> StepValues:
            values = self._step.gradients(*self._step.losses(inputs, settings))
            self._step.clip()
            self._step.optimizer.update()
            return values

        self._step.optimizer.zero_grad(set_to_none=True)  # gradients of a graph lie in its own memory
        return _Recorded(inputs, *self._captured(step))

    def _captured(self, step: Callable[[], StepValues]) -> tuple[Callable[[], None], StepValues]:
        """Record what a function does on the device, without doing it: how it is repeated, and where its result is."""
        graph = torch.cuda.CUDAGraph()
        if TORCH < (2, 14):  # which finds the generators itself
            graph.register_generator_state(self._step.negatives)
        with torch.cuda.graph(graph, pool=self._pool):
            values = step()
        self._pool = self._pool or graph.pool()
        return graph.replay, values


def _used(batch: Inputs) -> dict[str, Any]:
    """What the device's part of a step depends on: not the lengths by which the host plans."""
    return {name: x for name, x in batch.items() if name != "ctx_lengths"}
