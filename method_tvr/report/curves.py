"""The curves of a training run, read back from the TensorBoard files in its results folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from utils.basic_utils import InputError

TOP_LEVEL_RUN = "."  # what TensorBoard calls the folder itself; each curve of an `add_scalars` has a folder of its own


@dataclass(frozen=True)
class Curve:
    """One scalar over epochs; epoch -1 is before training."""

    epochs: list[int]
    values: list[float]


def read_curves(log_dir: Path) -> dict[str, Curve]:
    """All scalars that training logged.

    Args:
        log_dir: `tensorboard_log` of a results folder.

    Returns:
        {tag: Curve}: `Train/loss_overall`, `Eval_Loss/loss_overall`, …; of curves that share a tag, as recalls do,
        the curve's name follows it: `Eval/VCMR-0.5/0.5-r1`, `Eval/VR/r1`, ….

    Raises:
        InputError: there is nothing to read.
    """
    events = EventMultiplexer().AddRunsFromDirectory(str(log_dir))
    events.Reload()
    curves = {}
    for run, content in events.Runs().items():
        for tag in content["scalars"]:
            shared_by = "" if run == TOP_LEVEL_RUN else run.removeprefix(tag.replace("/", "_") + "_")
            scalars = events.Scalars(run, tag)
            name = f"{tag}/{shared_by}" if shared_by else tag
            curves[name] = Curve([scalar.step for scalar in scalars], [scalar.value for scalar in scalars])
    if not curves:
        raise InputError(f"{log_dir}: has no TensorBoard curves: give the results folder of a training run")
    return curves
