"""The mean of each loss term over an epoch."""

from __future__ import annotations

from typing import Any

import torch

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
        for name, total in self._sums.items():
            total.copy_(state["sums"][name])
        self._batches = state["batches"]
