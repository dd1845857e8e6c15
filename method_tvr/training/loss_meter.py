"""The mean of each loss term over an epoch."""

from __future__ import annotations

from typing import Any

import torch

MOST_BATCHES = 1 << 53  # beyond which floats do not count
LOSS_NAMES = ("loss_st_ed", "loss_fcl", "loss_vcl", "loss_neg_ctx", "loss_neg_q", "loss_overall")


class LossMeter:
    """Mean of each loss term over an epoch, summed where the model is: only reading it waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self._sum_of_each = torch.zeros(len(LOSS_NAMES), device=device)
        self._off = torch.zeros((), device=device)
        self._batches = 0

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        """The loss terms of a batch, by name; those that are off may be left out."""
        self._sum_of_each += torch.stack([losses.get(name, self._off) for name in LOSS_NAMES])
        self._batches += 1

    def means(self) -> dict[str, float]:
        """{name: mean}; 0 for terms that were off."""
        sums = zip(LOSS_NAMES, self._sum_of_each.tolist(), strict=True)
        return {name: total / max(1, self._batches) for name, total in sums}

    def state_dict(self) -> dict[str, Any]:
        sums = zip(LOSS_NAMES, self._sum_of_each.clone().unbind(), strict=True)
        return {"sums": {name: total.clone() for name, total in sums}, "batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; else KeyError, TypeError, AttributeError or ValueError are raised."""
        sums, batches = state["sums"], state["batches"]
        if type(batches) is not int or not 0 <= batches < MOST_BATCHES:
            raise ValueError("a number of batches that is none")
        for name, total in zip(LOSS_NAMES, self._sum_of_each.unbind(), strict=True):
            if sums[name].shape != total.shape or sums[name].dtype != total.dtype:
                raise ValueError(f"a sum of {name} of {tuple(sums[name].shape)} {sums[name].dtype}")
            total.copy_(sums[name])
        self._batches = batches
