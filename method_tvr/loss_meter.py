"""The mean of each loss term over an epoch."""

from __future__ import annotations

from typing import Any

import torch

MOST_BATCHES = 1 << 53  # beyond which floats do not count
LOSS_NAMES = ("loss_st_ed", "loss_fcl", "loss_vcl", "loss_neg_ctx", "loss_neg_q", "loss_overall")


class LossMeter:
    """Mean of each loss term over an epoch, summed where the model is: reading it is the only wait for the device."""

    def __init__(self, device: torch.device) -> None:
        self._sums = {name: torch.zeros((), device=device) for name in LOSS_NAMES}
        self._batches = 0

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        for name, loss in losses.items():
            self._sums[name] += loss
        self._batches += 1

    def means(self) -> dict[str, float]:
        """{name: mean}; 0 for terms that were off."""
        return {name: float(total) / max(1, self._batches) for name, total in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            KeyError, TypeError, AttributeError, ValueError: it is something else.
        """
        sums, batches = state["sums"], state["batches"]
        if type(batches) is not int or not 0 <= batches < MOST_BATCHES:
            raise ValueError("a number of batches that is none")
        for name, total in self._sums.items():
            if sums[name].shape != total.shape or sums[name].dtype != total.dtype:
                raise ValueError(f"a sum of {name} of {tuple(sums[name].shape)} {sums[name].dtype}")
            total.copy_(sums[name])
        self._batches = batches
