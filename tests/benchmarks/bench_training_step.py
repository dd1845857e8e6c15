"""One training step (forward, backward, optimiser) of each way to train, and of a straightforward implementation.

python tests/benchmarks/bench_training_step.py [--batch 128] [--device 0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from method_tvr.model import LossSettings, ModelConfig, ReLoCLNet
from method_tvr.optimization import BertAdam, parameter_groups
from tests.benchmarks.common import AnswersDiffer, benchmark_parser, start
from tests.benchmarks.floors import training_step_macs
from tests.benchmarks.reference_model import ReferenceBertAdam, ReferenceModel, training_step
from tests.benchmarks.synthetic import training_batch
from utils.basic_utils import command_line

LR, WARMUP, T_TOTAL, WEIGHT_DECAY = 1e-4, 0.01, 100, 0.01
SAME_LOSS, LEAST_LOSS = 1e-4, 1e-3  # relative, to at least the latter
COMPARED_STEPS = 4  # the first has learning rate 0; the others see what gradients and optimiser did


@dataclass(frozen=True)
class Variant:
    """A way to train: options of `ReLoCLNet.forward`."""

    trim_padding: bool = False
    amp_dtype: torch.dtype | None = None


VARIANTS = {
    "default": Variant(),
    "--trim_padding": Variant(trim_padding=True),
    "--amp bf16": Variant(amp_dtype=torch.bfloat16),
    "--trim_padding --amp bf16": Variant(trim_padding=True, amp_dtype=torch.bfloat16),
}

Batch = dict[str, torch.Tensor]


class FastTraining:
    """The project's training step.

    Args:
        model: trained in place.
        batch: on the model's device, `ctx_lengths` on the CPU.
        variant: how.
    """

    def __init__(self, model: ReLoCLNet, batch: Batch, variant: Variant) -> None:
        self.model = model.train()
        self.optimizer = BertAdam(parameter_groups(model, WEIGHT_DECAY), LR, WARMUP, T_TOTAL)
        self.batch = batch
        self.variant = variant
        self.generator = torch.Generator().manual_seed(0)

    def step(self, settings: LossSettings) -> dict[str, torch.Tensor]:
        """One step; losses stay on the device, as in training."""
        loss, losses = self.model(
            self.batch, settings, self.generator, self.variant.trim_padding, self.variant.amp_dtype
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return losses


def reference_copy(model: ReLoCLNet) -> tuple[ReferenceModel, ReferenceBertAdam]:
    """The straightforward implementation with the same weights, and its optimiser."""
    reference = ReferenceModel(model.config).to(next(model.parameters()).device).train()
    reference.load_state_dict(model.state_dict())
    return reference, ReferenceBertAdam(parameter_groups(reference, WEIGHT_DECAY), LR, WARMUP, T_TOTAL)


def compare_losses(config: ModelConfig, batch: Batch) -> str:
    """Train both implementations for a few steps without dropout; returns a note of the largest relative difference.

    The pool of negatives is of one, so that both draw the same.

    Raises:
        AnswersDiffer: a loss differs.
    """
    config = replace(config, drop=0.0, input_drop=0.0)
    settings = replace(config, use_hard_negative=True, hard_pool_size=1)
    model = new_model(config, batch)
    reference, reference_optimizer = reference_copy(model)
    fast = FastTraining(model, batch, VARIANTS["default"])
    worst = 0.0
    for step in range(COMPARED_STEPS):
        expected = training_step(reference, reference_optimizer, batch, settings, anomaly_detection=False)
        for name, loss in fast.step(settings).items():
            difference = abs(float(loss) - expected[name]) / max(abs(expected[name]), LEAST_LOSS)
            worst = max(worst, difference)
            if not difference <= SAME_LOSS:
                raise AnswersDiffer(f"step {step}: {name} is {float(loss)}, expected {expected[name]}")
    return f"losses equal (to {worst:.0e})"


def loss_shift(config: ModelConfig, batch: Batch, variant: Variant) -> str:
    """A note of how much a variant changes the loss of an untrained model without dropout."""
    config = replace(config, drop=0.0, input_drop=0.0)
    losses = []
    for way in (VARIANTS["default"], variant):
        losses.append(float(FastTraining(new_model(config, batch), batch, way).step(config)["loss_overall"]))
    return f"loss differs by {abs(losses[1] / losses[0] - 1):.0e}"


def new_model(config: ModelConfig, batch: Batch) -> ReLoCLNet:
    """The same fresh weights every time, where the batch is."""
    return ReLoCLNet(config, torch.Generator().manual_seed(0)).to(batch["ctx_mask"].device)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument_group("sizes").add_argument
    add("--batch", type=int, default=128, help="queries, each with its video")
    add("--max_ctx_l", type=int, default=128, help="clips that videos are padded to")
    add("--input_sizes", type=int, nargs=3, default=[514, 386, 384], help="video and subtitles (with tef), query")
    add("--hidden_size", type=int, default=384, help="D")
    add("--variants", nargs="+", default=[*VARIANTS], choices=[*VARIANTS], help="which of our ways to train")
    add("--no_reference", action="store_true", help="leave the straightforward implementation out")
    args = parser.parse_args(argv)

    report, stopwatch = start("training_step", f"one training step, batch {args.batch}", args)
    device = stopwatch.device
    visual, sub, query = args.input_sizes
    config = ModelConfig(
        visual_input_size=visual,
        sub_input_size=sub,
        query_input_size=query,
        hidden_size=args.hidden_size,
        max_ctx_l=args.max_ctx_l,
    )
    torch.manual_seed(args.seed)
    batch = training_batch(config, args.batch, args.seed)
    n_clips, n_tokens = batch["ctx_lengths"].numpy(), batch["query_mask"].sum(dim=1).long().numpy()
    batch = {name: tensor if name == "ctx_lengths" else tensor.to(device) for name, tensor in batch.items()}
    longest = batch["query_mask"].shape[1]
    padded = np.full(args.batch, args.max_ctx_l), np.full(args.batch, longest)
    floors = {False: training_step_macs(config, *padded), True: training_step_macs(config, n_clips, n_tokens)}
    print(f"clips {n_clips.mean():.1f} of {args.max_ctx_l}, tokens {n_tokens.mean():.1f} of {longest}")

    for name in args.variants:
        variant = VARIANTS[name]
        if name != "default":
            note = loss_shift(config, batch, variant)
        else:
            note = "" if args.no_reference else compare_losses(config, batch)
        fast = FastTraining(new_model(config, batch), batch, variant)
        timing, _ = stopwatch.time(lambda fast=fast: fast.step(config))  # type: ignore[misc]
        report.add(name, timing, args.batch, "queries", floors[variant.trim_padding], note)
    if not args.no_reference:
        for anomaly_detection in (False, True):
            reference, optimizer = reference_copy(new_model(config, batch))
            timing, _ = stopwatch.time(
                lambda r=reference, o=optimizer, a=anomaly_detection: training_step(r, o, batch, config, a)  # type: ignore[misc]
            )
            name = "straightforward" + (", anomaly detection" if anomaly_detection else "")
            report.add(name, timing, args.batch, "queries", floors[False])
    report.finish(args.json)


if __name__ == "__main__":
    main()
