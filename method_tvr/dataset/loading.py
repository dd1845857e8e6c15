"""Batches of a dataset, from packed features or from worker processes whose errors arrive as what they are."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from easydict import EasyDict
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from method_tvr.dataset.packed_store import PackedStore
from method_tvr.start_end_dataset import Batch, prepare_batch_inputs, start_end_collate
from utils.basic_utils import InputError
from utils.model_utils import available_cpus
from utils.ranks import ALONE, Ranks

CPU = torch.device("cpu")
PREFETCHED = 1  # batches made ahead of the one in use: TVR's take up to 400 MB each


class BatchLoader:
    """Batches of a dataset, the same ones in the same order wherever its features are.

    Packed features need no worker processes: one thread makes batches ahead, or none when they are on the device.
    Of several ranks each makes its share of every batch, which has no rows where a batch is smaller than their number.

    Args:
        dataset: of items for `start_end_collate`; one whose features are a `PackedStore` makes batches itself.
        batch_size: items a batch.
        opt: `max_ctx_l` and `trim_padding`; `num_workers` and `no_pin_memory` for features on disk.
        sampler: order of the items, by default that of the dataset; the same one on all ranks.
        ranks: who shares the batches.
        device: where they go next.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        opt: EasyDict,
        sampler: Iterable[int] | None = None,
        ranks: Ranks = ALONE,
        device: torch.device = CPU,
    ) -> None:
        whole = BatchSampler(SequentialSampler(dataset) if sampler is None else sampler, batch_size, drop_last=False)
        indices = _Shares(whole, ranks)
        ctx_length = None if opt.trim_padding else opt.max_ctx_l
        self._batches: _PackedBatches | _DiskBatches
        if isinstance(dataset.features, PackedStore):
            self._batches = _PackedBatches(dataset, indices, ctx_length)
        else:
            self._batches = _DiskBatches(dataset, indices, ctx_length, opt, device)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


def copied_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches, copied to a CUDA device while the one before is in use; elsewhere as they are.

    What stays on the host (`ctx_lengths`), or is on the device already, is left alone.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream, waiting = torch.cuda.Stream(device), None
    for meta, batch in batches:
        with torch.cuda.stream(stream):
            copied = meta, prepare_batch_inputs(batch, device, non_blocking=True)
        if waiting is not None:
            yield _arrived(waiting, stream)
        waiting = copied
    if waiting is not None:
        yield _arrived(waiting, stream)


def _arrived(batch: Batch, stream: torch.cuda.Stream) -> Batch:
    """A batch that a stream has copied, for use by the present one."""
    present = torch.cuda.current_stream(stream.device)
    present.wait_stream(stream)
    for x in batch[1].values():
        if isinstance(x, torch.Tensor) and x.is_cuda:
            x.record_stream(present)
    return batch


class _Shares(Sampler[list[int]]):
    """One rank's part of each batch."""

    def __init__(self, batches: BatchSampler, ranks: Ranks) -> None:
        self._batches, self._ranks = batches, ranks

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            yield batch[self._ranks.slice_of(len(batch))]


def _made(make: Callable[[list[int]], Batch], indices: list[int]) -> Batch:
    """The batch of some items. That of none has the tensors that any has, without rows."""
    if indices:
        return make(indices)
    _, batch = make([0])
    return [], {name: x[:0] if isinstance(x, torch.Tensor) else x for name, x in batch.items()}


class _PackedBatches:
    def __init__(self, dataset: Any, indices: _Shares, ctx_length: int | None) -> None:
        self._dataset, self._indices, self._ctx_length = dataset, indices, ctx_length

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Batch]:
        if self._dataset.features.device is not None:
            yield from map(self._make, self._indices)
            return
        with ThreadPoolExecutor(1) as thread:
            ahead: deque[Future[Batch]] = deque()
            for indices in self._indices:
                ahead.append(thread.submit(self._make, indices))
                if len(ahead) > PREFETCHED:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _make(self, indices: list[int]) -> Batch:
        meta, batch = _made(partial(self._dataset.batch, ctx_length=self._ctx_length), indices)
        if self._dataset.features.device is None and self._dataset.features.pin_memory:
            batch = {name: _pinned(x) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}
        return meta, batch


def _pinned(x: torch.Tensor) -> torch.Tensor:
    return x if x.is_pinned() else x.pin_memory()


class _DiskBatches:
    """Made of items by worker processes.

    An `InputError` in a worker travels back in a batch's place and is raised here: raised in the worker, DataLoader
    would make it a RuntimeError whose message is a traceback.
    """

    def __init__(
        self, dataset: Any, indices: _Shares, ctx_length: int | None, opt: EasyDict, device: torch.device
    ) -> None:
        self.loader = DataLoader(
            _BatchesOfItems(dataset, ctx_length),
            sampler=indices,  # its "items" are whole batches
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=min(opt.num_workers, available_cpus()),
            pin_memory=device.type == "cuda" and not opt.no_pin_memory,
            worker_init_fn=_outlive_signals,
            generator=torch.Generator(),  # else loading would draw from the global one, which dropout draws from
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


class _BatchesOfItems(Dataset[Any]):
    def __init__(self, dataset: Any, ctx_length: int | None) -> None:
        self._dataset, self._ctx_length = dataset, ctx_length

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, indices: list[int]) -> Batch | InputError:
        try:
            return _made(self._of_items, indices)
        except InputError as err:
            return InputError(str(err))  # of the plain kind, which every process can unpickle

    def _of_items(self, indices: list[int]) -> Batch:
        return start_end_collate([self._dataset[index] for index in indices], self._ctx_length)


def _outlive_signals(number: int) -> None:
    """Let a worker process end with the one that started it, and not before.

    torchrun, SLURM and others send SIGTERM to all processes of a run, and the main one has a step to finish then.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)  # which is the other one's, and says that a signal came to that


def _as_it_is(batch: Any) -> Any:
    return batch
