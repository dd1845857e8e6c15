"""The processes that train together, seen from one of them. Here it is alone: nothing is exchanged, nothing changes.

`method_tvr.training.distributed` has the processes that are not alone. Whoever uses either need not know which it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch

T = TypeVar("T")


class BatchShare:
    """A process's rows of a batch, and how the rows of all become the whole batch's. Alone, they are the batch.

    N rows of the whole batch, n of this process.
    """

    def __init__(self, batch: Mapping[str, torch.Tensor]) -> None:
        self.batch = batch  # the share, clips padded as in the whole batch, as `StartEndDataset` makes batches

    def gather_queries(self, query: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """{modality: (n, D)} -> {modality: (N, D)}, for use with the videos of this process alone.

        Gradients with respect to a query come from the videos of all processes.
        """
        return query

    def gather_scores(self, scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """{name: (n, K)} -> {name: (N, K)}, for a loss that every process computes alike from them."""
        return scores

    def gather_labels(self, labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """{name: (n, K)} -> {name: (N, K)}, without gradients; values must be numbers that float32 holds exactly."""
        return labels


class Ranks:
    """What a training process knows of the others and exchanges with them.

    All processes must make the same calls in the same order.
    """

    rank = 0  # number of this process
    size = 1  # number of processes

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def slice_of(self, n: int) -> slice:
        """This process's share of `n` things in a row: shares differ by one at most, and may be empty."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def share(self, batch: Mapping[str, torch.Tensor]) -> BatchShare:
        """Prepare the share of a batch that `BatchLoader` gave to this process."""
        return BatchShare(batch)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over processes; None counts as 0, and stays None where all have None."""

    def seed_dropout(self, seed: int) -> None:
        """Let each process drop other elements; call it after `seed_everything`. The main one keeps its state."""

    def barrier(self) -> None:
        """Wait for all."""

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any process."""
        return flag

    def broadcast(self, value: T) -> T:
        """The main process's `value`, a small Python object."""
        return value

    def gather(self, value: T) -> list[T]:
        """Each process's `value` (arrays, say) in order of rank on the main one, and [] on the others."""
        return [value]

    def all_gather(self, value: T) -> list[T]:
        """Each process's `value` in order of rank, on all of them; tensors in it must be on the CPU."""
        return [value]

    def check_equal(self, tensors: Iterable[torch.Tensor], what: str) -> None:
        """`InputError` when tensors, which `what` names, are not bit for bit the same on all processes."""


ALONE = Ranks()
