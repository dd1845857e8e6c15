"""Batches of a dataset, made where its features want them made: by worker processes, by a thread, or on the spot."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from method_tvr.dataset.feature_store import FeatureStore
from utils.basic_utils import InputError
from utils.model_utils import available_cpus
from utils.ranks import ALONE, Ranks

PREFETCHED = 1  # batches a thread makes ahead of the one in use: TVR's take up to 400 MB each

# what each item is about, and tensors; with features on the device also sizes that tensors will be made of
Batch = tuple[list[Any], dict[str, Any]]


class Batched(Protocol):
    """What `BatchLoader` asks of a dataset."""

    @property
    def features(self) -> FeatureStore: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], ctx_length: int | None) -> Batch:
        """The batch of one item or more, clips padded to `ctx_length`, or None: those of the longest video."""


class BatchLoader:
    """Batches of a dataset, the same ones in the same order wherever its features are.

    Of several ranks each makes its share of every batch, which has no rows where a batch is smaller than their number.

    Args:
        dataset: of items; its features say how batches are made (`FeatureStore.made_by`).
        trim_padding: pad clips to the longest video of a batch, rather than to the features' `max_ctx_l`.
        sampler: order of the items, by default that of the dataset; the same one on all ranks.
    """

    def __init__(
        self,
        dataset: Batched,
        batch_size: int,
        trim_padding: bool,
        sampler: Iterable[int] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        order = list(range(len(dataset)) if sampler is None else sampler)
        whole = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
        self._features = dataset.features
        self._shares = [items[ranks.slice_of(len(items))] for items in whole]
        self._batches = _Batches(dataset, None if trim_padding else dataset.features.max_ctx_l)

    def __len__(self) -> int:
        return len(self._shares)

    def __iter__(self) -> Iterator[Batch]:
        if self._features.made_by == "caller":
            return map(self._made, self._shares)
        return self._by_thread() if self._features.made_by == "thread" else self._by_workers()

    def _by_thread(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(1) as thread:
            ahead: deque[Future[Batch]] = deque()
            for indices in self._shares:
                ahead.append(thread.submit(self._made, indices))
                if len(ahead) > PREFETCHED:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _made(self, indices: list[int]) -> Batch:
        meta, batch = self._batches.make(indices)
        if self._features.pin_memory and self._features.device is None:
            batch = {name: _pinned(x) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}
        return meta, batch

    def _by_workers(self) -> Iterator[Batch]:
        for batch in self._workers():
            if isinstance(batch, InputError):
                raise batch
            yield batch

    def _workers(self) -> DataLoader[Any]:
        return DataLoader(
            self._batches,
            sampler=self._shares,  # its "items" are whole batches
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=min(self._features.num_workers, available_cpus()),
            pin_memory=self._features.pin_memory,
            worker_init_fn=_outlive_signals,
            generator=torch.Generator(),  # else loading would draw from the global one, which dropout draws from
        )


def prepare_batch_inputs(batch: Mapping[str, Any], device: torch.device, non_blocking: bool = False) -> dict[str, Any]:
    """Move a batch to the device, but for `ctx_lengths`, by which the host plans, and sizes."""
    return {
        name: x.to(device, non_blocking=non_blocking) if name != "ctx_lengths" and isinstance(x, torch.Tensor) else x
        for name, x in batch.items()
    }


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


class _Batches(Dataset[Any]):
    """The batch of each list of items, also for worker processes.

    An `InputError` in a worker travels back in a batch's place and is raised by the loader: raised in the worker,
    DataLoader would make it a RuntimeError whose message is a traceback.
    """

    def __init__(self, dataset: Batched, ctx_length: int | None) -> None:
        self._dataset, self._ctx_length = dataset, ctx_length

    def make(self, indices: list[int]) -> Batch:
        """The batch of some items. That of none has the tensors that any has, without rows."""
        if indices:
            return self._dataset.batch(indices, self._ctx_length)
        _, batch = self._dataset.batch([0], self._ctx_length)
        return [], {name: x[:0] if isinstance(x, torch.Tensor) else x for name, x in batch.items()}

    def __getitem__(self, indices: list[int]) -> Batch | InputError:
        try:
            return self.make(indices)
        except InputError as err:
            return InputError(str(err))  # of the plain kind, which every process can unpickle


def _pinned(x: torch.Tensor) -> torch.Tensor:
    return x if x.is_pinned() else x.pin_memory()


def _outlive_signals(number: int) -> None:
    """Let a worker process end with the one that started it, and not before.

    torchrun, SLURM and others send SIGTERM to all processes of a run, and the main one has a step to finish then.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)  # which is the other one's, and says that a signal came to that


def _as_it_is(batch: Any) -> Any:
    return batch
