"""What a run's options mean for its model, its losses and its memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from easydict import EasyDict

from method_tvr.dataset.feature_store import TEF_SIZE, FeatureStore
from method_tvr.model import LossSettings, ModelConfig
from method_tvr.options.declared import OFF

AMP_DTYPES = {"off": None, "bf16": torch.bfloat16}


def model_config(opt: EasyDict, features: FeatureStore) -> ModelConfig:
    """Sizes from the features, the rest from the options."""
    tef = TEF_SIZE if features.use_tef else 0
    context_sizes = {m: features.sizes[m] + tef for m in features.modalities}
    return ModelConfig.from_dict(
        {
            **opt,
            "visual_input_size": context_sizes.get("video"),
            "sub_input_size": context_sizes.get("sub"),
            "query_input_size": features.sizes["query"],
        }
    )


def loss_settings(opt: EasyDict, config: ModelConfig, epoch: int) -> LossSettings:
    """The config's loss settings with what only counts from an epoch of its own."""
    spans = opt.train_span_start_epoch != OFF and epoch >= opt.train_span_start_epoch
    hard = opt.hard_negative_start_epoch != OFF and epoch >= opt.hard_negative_start_epoch
    return replace(config, lw_st_ed=opt.lw_st_ed if spans else 0.0, use_hard_negative=hard)


def training_memory(opt: EasyDict, config: ModelConfig) -> int:
    """Bytes that training takes on a GPU, about: copies of a step's inputs, and what layers leave for the way back.

    Plain steps and CUDA graphs each have memory of their own.
    """
    of_clip = 5 * sum(config.input_sizes.values()) + 60 * config.hidden_size  # measured: 2.4 GiB at the paper's sizes
    return 2 * opt.bsz * opt.max_ctx_l * of_clip * 4
