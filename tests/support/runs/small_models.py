"""A model that computes in no time, and batches for it."""

import torch

from method_tvr.model import LossSettings, ModelConfig, ReLoCLNet
from utils.model_utils import named_generator

SMALL = ModelConfig(
    visual_input_size=6, sub_input_size=5, query_input_size=4, hidden_size=8, n_heads=2, max_ctx_l=10, max_desc_l=6
)


def small_batch(n: int, seed: int = 0, config: ModelConfig = SMALL) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, config.max_ctx_l + 1, (n,), generator=generator)
    n_tokens = torch.randint(1, config.max_desc_l + 1, (n,), generator=generator)
    clips = torch.arange(config.max_ctx_l)
    return {
        "query_feat": torch.randn(n, config.max_desc_l, config.query_input_size, generator=generator),
        "query_mask": (torch.arange(config.max_desc_l) < n_tokens[:, None]).float(),
        "video_feat": torch.randn(n, config.max_ctx_l, config.visual_input_size, generator=generator),
        "sub_feat": torch.randn(n, config.max_ctx_l, config.sub_input_size, generator=generator),
        "ctx_mask": (clips < lengths[:, None]).float(),
        "st_ed_indices": torch.tensor([[0, 1]] * n),
        "match_labels": (clips < 2).long().expand(n, -1).contiguous(),
    }


def small_model(config: ModelConfig = SMALL, seed: int = 1) -> ReLoCLNet:
    return ReLoCLNet(config, named_generator(seed, "initialisation"))


def golden_settings(kind: str) -> LossSettings:
    return LossSettings(ranking_loss_type=kind, lw_st_ed=0.01, use_hard_negative=True, hard_pool_size=1)
