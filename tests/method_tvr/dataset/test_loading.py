"""Batches come in order, and errors of workers arrive as what they are."""

import pickle

import pytest
import torch

from method_tvr.config import parse_train_options
from method_tvr.dataset.loading import BatchLoader
from method_tvr.inputs import Inputs
from method_tvr.options.rules import settings_of
from tests.support.runs.items import Items
from utils.basic_utils import InputError


def loader(items: Items, num_workers: int, **options: object) -> BatchLoader:
    items.features.num_workers = num_workers
    return BatchLoader(items, 2, False, **options)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_come_in_order_and_whole(tmp_path, num_workers):
    batches = list(loader(Items(tmp_path, 5, set()), num_workers))
    assert [metas for metas, _ in batches] == [[0, 1], [2, 3], [4]]
    assert [batch["query_feat"][:, 0, 0].tolist() for _, batch in batches] == [[0, 1], [2, 3], [4]]
    assert len(loader(Items(tmp_path, 5, set()), num_workers)) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_input_met_by_a_worker_is_one_plain_message(tmp_path, num_workers):
    seen = []

    def consume() -> None:
        for metas, _ in loader(Items(tmp_path, 6, {3}), num_workers):
            seen.append(metas)

    with pytest.raises(InputError) as caught:
        consume()
    assert seen == [[0, 1]]
    assert str(caught.value) == f"{tmp_path / 'query.h5'}, key 3: holds NaN or Inf: extract it again"


def test_items_can_be_drawn_in_another_order(tmp_path):
    batches = list(loader(Items(tmp_path, 4, set()), 0, sampler=[3, 1, 0, 2]))
    assert [metas for metas, _ in batches] == [[3, 1], [0, 2]]


@pytest.mark.parametrize(
    ("device", "no_pin_memory", "pinned"),
    [("cpu", False, False), ("cuda:1", False, True), ("cuda:1", True, False)],
)
def test_memory_is_pinned_for_a_run_on_cuda_alone(tiny_corpus, tmp_path, monkeypatch, device, no_pin_memory, pinned):
    """Whatever the machine has: to pin memory starts CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    opt = parse_train_options(tiny_corpus.options(exp_id="x", feature_cache="disk"))
    opt.no_pin_memory = no_pin_memory
    with settings_of(Inputs, opt).open_features(torch.device(device)) as features:
        items = Items(tmp_path, 2, set(), pin_memory=features.pin_memory)
    assert loader(items, 0)._workers().pin_memory == pinned


def test_workers_that_are_spawned_get_all_they_need(tmp_path):
    batches = loader(Items(tmp_path, 2, set()), 1)._workers()
    dataset, collate = pickle.loads(pickle.dumps((batches.dataset, batches.collate_fn)))
    assert collate(dataset[[1]])[0] == [1]
