"""The states of the global random generators, taken and given back."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class RandomStates:
    """States of the generators of Python, numpy, torch and one CUDA device, as these give them."""

    python: Any
    numpy: dict[str, Any]
    cpu: torch.Tensor  # torch's own
    cuda: torch.Tensor | None

    @classmethod
    def take(cls, device: torch.device) -> RandomStates:
        """The present states; `device` is the one whose CUDA generator counts, if it is a CUDA device."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        numpy = dict(np.random.get_state(legacy=False))  # noqa: NPY002  (libraries draw from the global generator)
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def give_back(self, device: torch.device) -> None:
        """Set the generators to these states; a CUDA device that had none keeps its own."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, device)

    def to_plain(self) -> dict[str, Any]:
        """As plain types and tensors, for a checkpoint."""
        version, words, gauss = self.python
        key = self.numpy["state"]["key"]
        return {
            "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
            "numpy": {**self.numpy, "state": {**self.numpy["state"], "key": torch.from_numpy(key.astype(np.int64))}},
            "cpu": self.cpu,
            "cuda": self.cuda,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> RandomStates:
        """Back from `to_plain`."""
        python, numpy = plain["python"], plain["numpy"]
        key = numpy["state"]["key"].numpy().astype(np.uint32)
        return cls(
            (python["version"], tuple(python["words"].tolist()), python["gauss"]),
            {**numpy, "state": {**numpy["state"], "key": key}},
            plain["cpu"],
            plain["cuda"],
        )
