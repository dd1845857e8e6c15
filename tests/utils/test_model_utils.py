"""Devices are said aloud, seeds are obeyed, sources of chance are independent."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from utils.model_utils import choose_device, count_parameters, named_generator, seed_everything


def test_the_cpu_is_used_without_a_word_when_asked_for(capsys):
    assert choose_device(-1).type == "cpu"
    assert capsys.readouterr().err == ""


def test_a_missing_gpu_is_said_aloud(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(0).type == "cpu"
    assert "CUDA is not available, using the CPU" in capsys.readouterr().err


@pytest.mark.parametrize(("asked", "used", "said"), [(0, 0, False), (1, 1, False), (5, 0, True)])
def test_gpus_are_used_by_number(capsys, monkeypatch, asked, used, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device(asked) == torch.device("cuda", used)
    assert current == [used]  # or what names no device, such as pinning memory, would use cuda:0 too
    assert ("no CUDA device 5" in capsys.readouterr().err) == said


@pytest.fixture
def precision(monkeypatch):
    """Whether products, and convolutions, may use TF32 now."""

    def now() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = now()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    yield now
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("tf32", [False, True])
def test_products_and_convolutions_have_one_precision(precision, tf32):
    choose_device(0, tf32)
    assert precision() == (tf32, tf32)


def test_without_a_word_about_it_the_precision_is_torchs(precision):
    before = precision()
    choose_device(0)
    assert precision() == before


def test_on_the_cpu_the_precision_is_left_alone(precision):
    before = precision()
    choose_device(-1, True)
    assert precision() == before


def draws() -> tuple:
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002  (the global generator is meant)


def test_a_seed_decides_every_global_generator():
    seed_everything(3)
    first = draws()
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert not set(draws()) & set(first)


def test_named_generators_depend_on_seed_and_name_alone():
    def drawn(seed: int, name: str) -> list[int]:
        return torch.randint(1 << 30, (4,), generator=named_generator(seed, name)).tolist()

    first = drawn(1, "shuffle/0")
    torch.rand(7)
    assert drawn(1, "shuffle/0") == first
    others = [drawn(2, "shuffle/0"), drawn(1, "shuffle/1"), drawn(1, "negatives/0"), drawn(11, "/shuffle/0")]
    assert len({tuple(numbers) for numbers in [first, *others]}) == 5


def test_only_trainable_parameters_are_counted():
    model = nn.Linear(3, 2)
    assert count_parameters(model) == 8
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 6
