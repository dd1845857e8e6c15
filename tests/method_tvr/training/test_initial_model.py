"""What training begins with: drawn by the seed, but for kernels that begin as an impulse or as a detector of edges."""

from __future__ import annotations

import pytest
import torch

from method_tvr.models import config_of
from method_tvr.training.initial_model import DRAWN, EDGE, IMPULSE, initial_model, span_kernel
from utils.model_utils import named_generator

SIZES = {
    "visual_input_size": 6,
    "sub_input_size": 6,
    "query_input_size": 6,
    "hidden_size": 8,
    "n_heads": 2,
    "max_ctx_l": 10,
    "max_desc_l": 6,
    "ctx_mode": "video_sub",
}


def is_kernel(name: str) -> bool:
    return name.endswith(("_st_predictor.weight", "_ed_predictor.weight"))


def model(name: str = "reloclnet", span_init: str = DRAWN, seed: int = 1, **more):
    return initial_model(config_of({**SIZES, "name": name, **more}), seed, span_init)


@pytest.mark.parametrize(
    ("size", "how", "wanted"),
    [
        (5, EDGE, [-0.2, -0.2, 0.4, 0.2, 0.1]),
        (3, EDGE, [-0.4, 0.4, 0.2]),
        (1, EDGE, [0.4]),
        (5, IMPULSE, [0, 0, 0.4, 0, 0]),
        (1, IMPULSE, [0.4]),
    ],
)
def test_kernels_of_a_start(size, how, wanted):
    torch.testing.assert_close(span_kernel(size, how), torch.tensor(wanted, dtype=torch.float32))


def test_an_edge_says_nothing_of_clips_that_are_all_alike_before_it():
    kernel = span_kernel(9, EDGE)
    assert kernel[:4].sum() == pytest.approx(-kernel.max())
    assert (kernel[4:].diff() < 0).all()


@pytest.mark.parametrize(("name", "more"), [("reloclnet", {}), ("xml", {}), ("xml", {"merge_two_stream": False})])
@pytest.mark.parametrize("how", [EDGE, IMPULSE])
def test_only_kernels_are_set_and_an_end_mirrors_a_start(name, more, how):
    drawn, found = model(name, **more), model(name, how, **more)
    starts = 0
    for (key, before), after in zip(drawn.named_parameters(), found.parameters(), strict=True):
        if not is_kernel(key):
            assert torch.equal(before, after), key
        else:
            wanted = span_kernel(5, how)
            starts += "_st_" in key
            assert torch.equal(after.flatten(), wanted if "_st_" in key else wanted.flip(0)), key
    assert starts == (2 if more else 1)


def test_by_default_all_is_drawn_by_the_seed():
    config = config_of({**SIZES, "name": "reloclnet"})
    wanted = config.build(named_generator(7, "initialisation")).state_dict()
    found = initial_model(config, 7).state_dict()
    assert all(torch.equal(found[key], weight) for key, weight in wanted.items())
    kernels = [weight for key, weight in found.items() if is_kernel(key)]
    assert len(kernels) == 2
    assert not torch.equal(kernels[0], model(seed=8).state_dict()["merged_st_predictor.weight"])
