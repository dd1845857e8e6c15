"""The model as training begins: drawn, but for the kernels of its start and end predictors, if `--span_init` says so.

A start is where the similarity of clips with the query rises, an end where it falls: ConvSE (SIGIR 2021, 3.4) detects
edges. Its kernels are a handful of numbers that are drawn around 0 like any others, so that chance decides whether
similarity or its opposite begins a moment, and a model that begins with the opposite has to unlearn it first.
"""

from __future__ import annotations

import torch

from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.options.values import SPAN_INITS
from utils.model_utils import named_generator

DRAWN, IMPULSE, EDGE = SPAN_INITS
PEAK = 0.4  # about the largest weight that is drawn for 5 taps, which are within 1 / sqrt(5)
FALL = 0.5  # from one clip inside the moment to the next


def initial_model(config: ModelConfig, seed: int, span_init: str = DRAWN) -> ReLoCLNet:
    """A model of these sizes, its weights drawn by a run's seed; `span_init` is one of `SPAN_INITS`."""
    model = config.build(named_generator(seed, "initialisation"))
    if span_init != DRAWN:
        _set_kernels(model, span_init)
    return model


def span_kernel(size: int, span_init: str) -> torch.Tensor:
    """(size,) weights of a start predictor; those of an end predictor are its mirror image.

    Args:
        size: odd; the middle one weighs the clip itself, those before it earlier clips.
        span_init: `IMPULSE`: the clip alone. `EDGE`: the clips before it against it and those after it, which count
            less and less.
    """
    before = size // 2
    kernel = torch.zeros(size)
    kernel[before] = PEAK
    if span_init == EDGE and before:
        kernel[:before] = -PEAK / before
        kernel[before:] = PEAK * FALL ** torch.arange(before + 1)
    return kernel


@torch.no_grad()
def _set_kernels(model: ReLoCLNet, span_init: str) -> None:
    """Those of all start and end predictors: XML has some of each modality."""
    for name, kernel in model.named_parameters():
        if name.endswith("_st_predictor.weight"):
            kernel.copy_(span_kernel(kernel.shape[-1], span_init))
        elif name.endswith("_ed_predictor.weight"):
            kernel.copy_(span_kernel(kernel.shape[-1], span_init).flip(0))
