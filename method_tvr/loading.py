"""Batches of a dataset, loaded by worker processes whose errors arrive as what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from easydict import EasyDict
from torch.utils.data import DataLoader, Dataset

from method_tvr.start_end_dataset import start_end_collate
from utils.basic_utils import InputError
from utils.model_utils import available_cpus

Batch = tuple[list[Any], dict[str, torch.Tensor]]


class BatchLoader:
    """Batches of a dataset.

    An `InputError` in a worker travels back in a batch's place and is raised here: raised in the worker, DataLoader
    would make it a RuntimeError whose message is a traceback.

    Args:
        dataset: of items for `start_end_collate`.
        batch_size: items a batch.
        opt: `num_workers`, `no_pin_memory` and `max_ctx_l`.
        options: DataLoader's own.
    """

    def __init__(self, dataset: Any, batch_size: int, opt: EasyDict, **options: Any) -> None:
        self._loader = DataLoader(
            _ErrorsAsItems(dataset),
            batch_size=batch_size,
            collate_fn=partial(_collate, max_ctx_l=opt.max_ctx_l),
            num_workers=min(opt.num_workers, available_cpus()),
            pin_memory=torch.cuda.is_available() and not opt.no_pin_memory,
            **options,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


class _ErrorsAsItems(Dataset[Any]):
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._dataset[index]
        except InputError as err:
            return InputError(str(err))  # of the plain kind, which every process can unpickle


def _collate(items: Sequence[Any], max_ctx_l: int) -> Batch | InputError:
    errors = [item for item in items if isinstance(item, InputError)]
    return errors[0] if errors else start_end_collate(items, max_ctx_l)
