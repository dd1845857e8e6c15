"""A model and batches small enough for a runtime that computes nothing, of any modalities."""

from __future__ import annotations

from dataclasses import replace

import torch

from method_tvr.model import ModelConfig

SMALL = ModelConfig(
    visual_input_size=6, sub_input_size=5, query_input_size=4, hidden_size=16, n_heads=2, max_ctx_l=10, max_desc_l=6,
    input_drop=0.0, drop=0.0,
)  # fmt: skip


def config_for(ctx_mode: str, **changes) -> ModelConfig:
    sizes = {
        "visual_input_size": 6 if "video" in ctx_mode else None,
        "sub_input_size": 5 if "sub" in ctx_mode else None,
    }
    return replace(SMALL, ctx_mode=ctx_mode, **sizes, **changes)


def small_batch(n: int, modalities) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 11, (n,), generator=generator)
    n_tokens = torch.randint(1, 7, (n,), generator=generator)
    sizes = {"video": 6, "sub": 5}
    return {
        "query_feat": torch.randn(n, 6, 4, generator=generator),
        "query_mask": (torch.arange(6) < n_tokens[:, None]).float(),
        **{f"{m}_feat": torch.randn(n, 10, sizes[m], generator=generator) for m in modalities},
        "ctx_mask": (torch.arange(10) < lengths[:, None]).float(),
        "ctx_lengths": lengths,
        "st_ed_indices": torch.tensor([[0, 1]] * n),
        "match_labels": (torch.arange(10) < 2).long().expand(n, -1).contiguous(),
    }
