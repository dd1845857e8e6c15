"""Training over several processes whose sum is the training of one: what they exchange in a step, and between steps.

Each process encodes its share of a batch. Queries are gathered, so that each scores its own videos against all of them;
the scores are gathered, so that each computes the loss of the whole batch, the same one; the gradients of the shares
are summed. torch's DistributedDataParallel averages losses of separate batches instead, in which a query would meet
only the videos of its own process.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from utils.basic_utils import InputError
from utils.model_utils import named_generator
from utils.ranks import BatchShare, Ranks

T = TypeVar("T")

NEVER = timedelta(days=365)
TIMEOUT = timedelta(minutes=30)  # that one process may let the others wait, for example while it writes files


class ProcessRanks(Ranks):
    """The processes of a `torch.distributed` group, which meet in a store that all share, seen from one of them.

    Tensors on the `device` where this process computes are exchanged by NCCL or gloo, Python objects by gloo.
    """

    def __init__(self, device: torch.device, store: dist.Store, rank: int, size: int) -> None:
        self.rank, self.size, self.device = rank, size, device
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)

    def close(self) -> None:
        """Wait for all, and leave the group, as far as that can be left before the process ends.

        gloo's part ends with the process: torch 2.4 sometimes hangs in destroying a group of it.
        """
        self.barrier()
        if self.device.type == "cuda":
            dist.destroy_process_group()

    def share(self, batch: Mapping[str, torch.Tensor]) -> BatchShare:
        shape = torch.tensor(batch["ctx_mask"].shape)
        shapes = torch.empty((self.size, 2), dtype=torch.int64)
        dist.all_gather(list(shapes.unbind()), shape)
        counts, lengths = shapes.t().tolist()
        filled = _lengthened(batch if counts[self.rank] else _blank(batch), max(lengths))
        return _GatheredShare(filled, counts, self.rank)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        trained = [p for p in parameters if p.requires_grad]
        present = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8)
        dist.all_reduce(present, dist.ReduceOp.MAX)
        summed = [p for p, somewhere in zip(trained, present.tolist(), strict=True) if somewhere]
        if not summed:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in summed])
        dist.all_reduce(flat)
        for p, grad in zip(summed, flat.split([p.numel() for p in summed]), strict=True):
            p.grad = grad.view_as(p)

    def seed_dropout(self, seed: int) -> None:
        if not self.is_main:
            torch.manual_seed(named_generator(seed, f"dropout/{self.rank}").initial_seed())

    def barrier(self) -> None:
        self.any(False)

    def any(self, flag: bool) -> bool:
        flags = torch.tensor([flag], dtype=torch.uint8)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def broadcast(self, value: T) -> T:
        values = [value]
        dist.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        gathered: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, gathered)
        return gathered or []

    @torch.inference_mode(False)  # a search is in it, and gloo's threads, which fill in what is received, are not
    def all_gather(self, value: T) -> list[T]:
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def check_equal(self, tensors: Iterable[torch.Tensor], what: str) -> None:
        found = hashlib.sha256()
        for tensor in tensors:
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        digests = self.all_gather(found.hexdigest())
        if len(set(digests)) > 1:
            raise InputError(
                f"{what} differ between processes (digests by rank: {', '.join(digest[:12] for digest in digests)}): "
                "make sure that all see the same files and have the same versions installed"
            )


class Watch:
    """Notices when another process is gone, whatever the main thread is doing or waiting for.

    From each of the others a message is waited for that never comes. gloo's connection to it fails as soon as it has
    ended, however it did; a machine that is switched off ends no connection, and is not noticed.

    `then` is called in a thread, for each that goes; the store is as for `ProcessRanks`, with other keys.
    """

    def __init__(self, store: dist.Store, rank: int, size: int, then: Callable[[], None]) -> None:
        self._group: Any = dist.ProcessGroupGloo(store, rank, size, NEVER)
        self._then = then
        for other in range(size):
            if other != rank:
                threading.Thread(target=self._wait_for, args=(other,), daemon=True).start()

    def _wait_for(self, other: int) -> None:
        with suppress(RuntimeError):
            self._group.recv([torch.empty(1)], other, 0).wait()
        self._then()


class _GatheredShare(BatchShare):
    """Args: batch: at least one row. counts: rows of each process; where it is 0, the row of `batch` is blank."""

    def __init__(self, batch: dict[str, torch.Tensor], counts: list[int], rank: int) -> None:
        super().__init__(batch)
        self._counts, self._rank = counts, rank

    def gather_queries(self, query: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self._gather(query, sum_gradients=True)

    def gather_scores(self, scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self._gather(scores, sum_gradients=False)

    def gather_labels(self, labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        gathered = self._gather({name: label.float() for name, label in labels.items()}, sum_gradients=False)
        return {name: gathered[name].to(label.dtype) for name, label in labels.items()}

    def _gather(self, rows: dict[str, torch.Tensor], sum_gradients: bool) -> dict[str, torch.Tensor]:
        if not rows:
            return rows
        own = torch.cat(list(rows.values()), dim=1)[: self._counts[self._rank]]
        everyones: torch.Tensor = _GatherRows.apply(own, self._counts, self._rank, sum_gradients)
        widths = [tensor.shape[1] for tensor in rows.values()]
        return dict(zip(rows, everyones.split(widths, dim=1), strict=True))


class _GatherRows(torch.autograd.Function):
    """Rows (n, K) of each process -> (N, K), those of rank 0 first.

    What each process computes from all rows is either a part of the loss, and then a row's gradient is the sum of what
    all processes find for it (`sum_gradients`), or the whole loss, and then each process's own finding is right.
    """

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, counts: list[int], rank: int, sum_gradients: bool) -> torch.Tensor:
        ctx.sum_gradients = sum_gradients
        ctx.own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        # shares differ in length, and what the processes send must not
        sent = F.pad(own, (0, 0, 0, max(counts) - len(own))).contiguous()
        received = own.new_empty((len(counts), *sent.shape))
        dist.all_gather(list(received.unbind()), sent)
        return torch.cat([rows[:count] for rows, count in zip(received, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad = grads[0]
        if ctx.sum_gradients:
            grad = grad.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(grad)
        return grad[ctx.own], None, None, None


def _lengthened(batch: Mapping[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """The batch with its clips padded to `length`."""
    longer = dict(batch)
    missing = length - batch["ctx_mask"].shape[1]
    for name, tensor in batch.items():
        of_clips = name in ("ctx_mask", "match_labels") or (name.endswith("_feat") and name != "query_feat")
        if of_clips and missing:
            longer[name] = F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, missing))
    return longer


def _blank(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A row without content in place of no rows.

    A process without a share takes part like any, so that all exchange the same things in the same order; its row is
    dropped when rows are gathered.
    """
    blank = {name: tensor.new_zeros((1, *tensor.shape[1:])) for name, tensor in batch.items()}
    blank["query_mask"][:, 0] = 1  # attention needs something to look at
    blank["ctx_mask"][:, 0] = 1
    if "ctx_lengths" in blank:
        blank["ctx_lengths"][:] = 1
    return blank
