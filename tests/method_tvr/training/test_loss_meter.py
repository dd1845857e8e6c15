"""A mean of losses goes on from where it was, and from nothing else."""

from typing import Any

import pytest
import torch

from method_tvr.training.loss_meter import LOSS_NAMES, LossMeter

CPU = torch.device("cpu")


def meter_of(*losses: float) -> LossMeter:
    meter = LossMeter(CPU)
    for loss in losses:
        meter.add({name: torch.tensor(loss) for name in LOSS_NAMES})
    return meter


def test_a_meter_goes_on_with_another_ones_sums():
    meter = meter_of()
    meter.load_state_dict(meter_of(1.0, 2.0).state_dict())
    meter.add({"loss_fcl": torch.tensor(6.0)})
    assert meter.means()["loss_fcl"] == 3
    assert meter.means()["loss_vcl"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batches", -1),
        ("batches", 1.5),
        ("batches", "2"),
        ("batches", 10**400),
        ("sums", {}),
        ("sums", [1, 2]),
        ("loss_fcl", torch.zeros(1)),
        ("loss_fcl", torch.zeros((), dtype=torch.complex64)),
        ("loss_fcl", 0.5),
    ],
)
def test_what_is_no_state_of_a_meter_is_refused(name, value):
    state: dict[str, Any] = meter_of(1.0).state_dict()
    (state["sums"] if name in LOSS_NAMES else state)[name] = value
    with pytest.raises((KeyError, TypeError, AttributeError, ValueError)):
        LossMeter(CPU).load_state_dict(state)
