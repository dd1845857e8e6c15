"""ReLoCLNet and its training step written straightforwardly: what the fast one is compared with, in answers and time.

Everything is computed for everything: padded clips, (Lq, Lk) attention weights with -10000 on masked keys, every clip
of every video against every query, whole sorts of scores, one parameter tensor after another. Parameters have the
names of `method_tvr.model`, so that weights can be copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from method_tvr.model import LossSettings, ModelConfig

Batch = Mapping[str, torch.Tensor]


class Projection(nn.Module):
    """LayerNorm, dropout, Linear, ReLU."""

    def __init__(self, in_size: int, out_size: int, dropout: float) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(in_size)
        self.net = nn.Sequential(nn.Dropout(dropout), nn.Linear(in_size, out_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.net(self.LayerNorm(x)))


class Positions(nn.Module):
    """Learned positions, LayerNorm, dropout."""

    def __init__(self, n_positions: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(n_positions, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        return self.dropout(self.LayerNorm(x + self.position_embeddings(positions)))


class Attention(nn.Module):
    """Multi-head attention without an output projection."""

    def __init__(self, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: torch.Tensor, key_value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """query (N, Lq, D), key_value (N, Lk, D), mask (N, 1 or Lq, Lk) float -> (N, Lq, D)."""
        q, k, v = (self._heads(x) for x in (self.query(query), self.key(key_value), self.value(key_value)))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        scores = scores + (1 - mask.unsqueeze(1)) * -10000.0
        weights = self.dropout(torch.softmax(scores, dim=-1))
        return torch.matmul(weights, v).permute(0, 2, 1, 3).contiguous().flatten(2)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.n_heads, -1).permute(0, 2, 1, 3)  # (N, nh, L, D / nh)


class Output(nn.Module):
    """Linear, dropout, residual, LayerNorm."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Encoder(nn.Module):
    """Self-attention and its output block."""

    def __init__(self, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.self = Attention(hidden_size, n_heads, dropout)
        self.output = Output(hidden_size, dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.output(self.self(x, x, mask.unsqueeze(1)), x)


class ReferenceModel(nn.Module):
    """The model and its losses, for video and subtitles.

    Args:
        config: sizes and loss weights.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d, kernel = config.hidden_size, config.conv_kernel_size
        attention = (d, config.n_heads, config.drop)
        self.query_pos_embed = Positions(config.max_desc_l, d, config.input_drop)
        self.ctx_pos_embed = Positions(config.max_ctx_l, d, config.input_drop)
        self.query_input_proj = Projection(config.query_input_size, d, config.input_drop)
        self.query_encoder = Encoder(*attention)
        self.query_encoder1 = Encoder(*attention)
        for m in ("video", "sub"):
            setattr(self, f"{m}_input_proj", Projection(config.input_sizes[m], d, config.input_drop))
            for i in (1, 2, 3):
                setattr(self, f"{m}_encoder{i}", Encoder(*attention))
            setattr(self, f"{m}_cross_att", Attention(*attention))
            setattr(self, f"{m}_cross_layernorm", nn.LayerNorm(d))
            setattr(self, f"{m}_query_linear", nn.Linear(d, d))
        self.modular_vector_mapping = nn.Linear(d, 2, bias=False)
        self.merged_st_predictor = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.merged_ed_predictor = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def encode_query(self, feat: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, Lq, Dq) tokens -> one (N, D) vector per modality."""
        tokens = self.query_pos_embed(self.query_input_proj(feat))
        tokens = self.query_encoder1(self.query_encoder(tokens, mask), mask)
        weights = torch.softmax(masked(self.modular_vector_mapping(tokens), mask.unsqueeze(2)), dim=1)
        video, sub = torch.einsum("nlm,nld->mnd", weights, tokens)
        return {"video": video, "sub": sub}

    def encode_context(self, batch: Batch) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """{modality: (h2, h3)}, each (N, L, D)."""
        mask = batch["ctx_mask"]
        h1 = {}
        for m in ("video", "sub"):
            projected = self.ctx_pos_embed(self.get_submodule(f"{m}_input_proj")(batch[f"{m}_feat"]))
            h1[m] = self.get_submodule(f"{m}_encoder1")(projected, mask)
        cross_mask = torch.einsum("nm,nk->nmk", mask, mask)
        encoded = {}
        for m, side in (("video", "sub"), ("sub", "video")):
            crossed = self.get_submodule(f"{m}_cross_att")(h1[m], h1[side], cross_mask)
            crossed = self.get_submodule(f"{m}_cross_layernorm")(crossed + h1[m])
            h2 = self.get_submodule(f"{m}_encoder2")(crossed, mask)
            encoded[m] = (h2, self.get_submodule(f"{m}_encoder3")(h2, mask))
        return encoded

    def forward(self, batch: Batch, settings: LossSettings) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Total loss of a batch and its terms, weights applied."""
        mask = batch["ctx_mask"]
        query = self.encode_query(batch["query_feat"], batch["query_mask"])
        context = self.encode_context(batch)
        h2, h3 = ({m: context[m][i] for m in context} for i in (0, 1))
        scores = best_clip_scores(
            {m: F.normalize(q, dim=-1) for m, q in query.items()},
            {m: F.normalize(h, dim=-1) for m, h in h3.items()},
            mask,
        )
        losses = {
            "loss_st_ed": settings.lw_st_ed * self._span_loss(query, h3, batch),
            "loss_fcl": settings.lw_fcl * self._frame_cl(query, h2, batch),
            "loss_vcl": settings.lw_vcl * video_cl(best_clip_scores(query, h2, mask)),
            "loss_neg_ctx": settings.lw_neg_ctx * ranking_loss(scores, settings),
            "loss_neg_q": settings.lw_neg_q * ranking_loss(scores.t(), settings),
        }
        total = sum(losses.values(), torch.zeros((), device=mask.device))
        return total, losses | {"loss_overall": total}

    def _span_loss(self, query: Batch, h3: Batch, batch: Batch) -> torch.Tensor:
        per_modality = [
            torch.einsum("nd,nld->nl", self.get_submodule(f"{m}_query_linear")(query[m]), h3[m]) for m in h3
        ]
        similarity = torch.stack(per_modality).mean(dim=0).unsqueeze(1)
        loss = similarity.new_zeros(())
        for i, predictor in enumerate((self.merged_st_predictor, self.merged_ed_predictor)):
            logits = masked(predictor(similarity).squeeze(1), batch["ctx_mask"])
            loss = loss + F.cross_entropy(logits, batch["st_ed_indices"][:, i])
        return loss

    def _frame_cl(self, query: Batch, h2: Batch, batch: Batch) -> torch.Tensor:
        positives = batch["match_labels"].float()
        negatives = (1 - positives) * batch["ctx_mask"]
        loss = positives.new_zeros(())
        for m in h2:
            r = torch.einsum("nd,nld->nl", query[m], h2[m])
            e_pos = ((math.log(2) - F.softplus(-r)) * positives).sum(1) / (positives.sum(1) + 1e-12)
            e_neg = ((F.softplus(-r) + r - math.log(2)) * negatives).sum(1) / (negatives.sum(1) + 1e-12)
            loss = loss + (e_neg - e_pos).mean() / 2
        return loss


def masked(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores where the mask is 1, -1e10 where it is 0."""
    return scores * mask + (1 - mask) * -1e10


def best_clip_scores(query: Batch, clips: Batch, mask: torch.Tensor) -> torch.Tensor:
    """(Nq, Nv): maximum over clips of the dot products, averaged over modalities."""
    best = [masked(torch.einsum("qd,vld->qvl", query[m], clips[m]), mask).max(dim=2).values for m in query]
    return sum(best, torch.zeros((), device=mask.device)) / len(best)


def video_cl(scores: torch.Tensor) -> torch.Tensor:
    """MIL-NCE: logsumexp of row and column together, minus the diagonal."""
    return (torch.logsumexp(torch.cat([scores, scores.t()], dim=1), dim=1) - torch.diagonal(scores)).mean()


def ranking_loss(scores: torch.Tensor, settings: LossSettings) -> torch.Tensor:
    """Hinge between the diagonal and one negative per row, drawn from the sorted row."""
    n = len(scores)
    rows = torch.arange(n, device=scores.device)
    sortable = scores.detach().clone()
    sortable[rows, rows] = 999.0  # first, to be left out
    ranked = torch.sort(sortable, descending=True, dim=1).indices
    pool = min(settings.hard_pool_size, n - 1) if settings.use_hard_negative else n - 1
    drawn = ranked[rows, torch.randint(1, 1 + pool, (n,), device=scores.device)]
    return torch.clamp(settings.margin + scores[rows, drawn] - torch.diagonal(scores), min=0).mean()


class ReferenceBertAdam:
    """BertAdam, one parameter tensor after another.

    Args:
        groups: [{"params": …, "weight_decay": …}].
        lr: peak learning rate.
        warmup, t_total: proportion of the steps over which it grows, and how many are planned.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, warmup: float, t_total: int) -> None:
        self.groups = list(groups)
        self.lr, self.warmup, self.t_total = lr, warmup, t_total
        self.steps_done = 0
        self.state: dict[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        p = self.steps_done / self.t_total
        multiplier = p / self.warmup if p < self.warmup else max((p - 1) / (self.warmup - 1), 0)
        for group in self.groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._update(param, group["weight_decay"], self.lr * multiplier)
        self.steps_done += 1

    def _update(self, param: torch.Tensor, weight_decay: float, lr: float) -> None:
        assert param.grad is not None
        torch.nn.utils.clip_grad_norm_([param], 1.0)
        m, v = self.state.setdefault(param, (torch.zeros_like(param), torch.zeros_like(param)))
        m.mul_(0.9).add_(param.grad, alpha=0.1)
        v.mul_(0.999).addcmul_(param.grad, param.grad, value=0.001)
        update = m / (v.sqrt() + 1e-6)
        if weight_decay > 0:
            update += weight_decay * param
        param.sub_(lr * update)


def training_step(
    model: ReferenceModel, optimizer: ReferenceBertAdam, batch: Batch, settings: LossSettings, anomaly_detection: bool
) -> dict[str, float]:
    """One step as the published code takes it: losses are read at every one."""
    with torch.autograd.set_detect_anomaly(anomaly_detection):
        loss, losses = model(batch, settings)
        model.zero_grad(set_to_none=False)
        loss.backward()
    optimizer.step()
    return {name: float(value.detach()) for name, value in losses.items()}
