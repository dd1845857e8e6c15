"""The training objectives, as functions of scores and labels: FrameCL, VideoCL, and the ranking and span losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

LOG_2 = math.log(2.0)
EPS = 1e-12  # keeps the mean over no clips at 0

Part = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class LossSettings:
    """What the objective weighs and how it ranks; training switches some of it on at an epoch of its own."""

    margin: float = 0.1
    ranking_loss_type: str = "hinge"
    lw_neg_q: float = 1.0
    lw_neg_ctx: float = 1.0
    lw_fcl: float = 0.03
    lw_vcl: float = 0.03
    lw_st_ed: float = 0.01
    use_hard_negative: bool = False
    hard_pool_size: int = 20
    mask_same_query: bool = False
    clamp_similarity: bool = False
    all_negatives: bool = False


def _dv_negative(r: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(r, dim=-2) - math.log(r.shape[-2])


# measure: (what a positive clip's similarity r contributes, what a negative clip's does): the f-divergence bounds of
# Nowozin et al. (f-GAN, 2016) and Donsker-Varadhan (DV), in the forms that ReLoCLNet uses.
MEASURES: dict[str, tuple[Part, Part]] = {
    "JSD": (lambda r: LOG_2 - F.softplus(-r), lambda r: F.softplus(-r) + r - LOG_2),
    "GAN": (lambda r: -F.softplus(-r), lambda r: F.softplus(-r) + r),
    "X2": (lambda r: r**2, lambda r: -0.5 * (r.abs() + 1.0) ** 2),
    "KL": (lambda r: r + 1.0, lambda r: r.exp()),
    "RKL": (lambda r: -(-r).exp(), lambda r: r - 1.0),
    "H2": (lambda r: 1.0 - (-r).exp(), lambda r: r.exp() - 1.0),
    "W1": (lambda r: r, lambda r: r),
    "DV": (lambda r: r, _dv_negative),
}


def of_pairs(
    labels: Mapping[str, torch.Tensor], settings: LossSettings
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """What is special about items that are pairs of a query and a moment of several (TVR-Ranking, arXiv 2407.06597).

    Returns:
        (N,) what each item counts, and (N, N) bool, which other items are of its query and no negatives of it; each
        None where there is nothing to it.
    """
    weights, query_ids = labels.get("item_weights"), labels.get("query_ids")
    if weights is not None:
        weights = weights.squeeze(1).clamp(min=0) if settings.clamp_similarity else weights.squeeze(1)
    if query_ids is None or not settings.mask_same_query:
        return weights, None
    same = query_ids == query_ids.t()
    return weights, same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


def _weighted_mean(of_items: torch.Tensor, item_weights: torch.Tensor | None) -> torch.Tensor:
    """Mean of (…, N), each item times its weight (N,); divided by the number of items, not by their weights' sum."""
    return of_items.mean() if item_weights is None else (item_weights * of_items).mean()


def _cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, item_weights: torch.Tensor | None = None
) -> torch.Tensor:
    if item_weights is None:
        return F.cross_entropy(logits, targets)
    return _weighted_mean(F.cross_entropy(logits, targets, reduction="none"), item_weights)


def frame_cl(
    similarity: torch.Tensor,
    match_labels: torch.Tensor,
    mask: torch.Tensor,
    measure: str = "JSD",
    item_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """FrameCL: clips inside the moment against the other clips of the same video (ReLoCLNet, section 3.4).

    The mean over the batch, and modalities, of (expectation over negatives - expectation over positives).

    Args:
        similarity: (N, L) dot product of each query with the clips of its own video; or (M, N, L), of M modalities.
        match_labels: (N, L), 1 on the clips of the moment.
        mask: (N, L), 1 on clips that exist.
        measure: the estimator of mutual information, one of `MEASURES`.
        item_weights: (N,) what each query counts, by default 1; see `of_pairs`.
    """
    positive_part, negative_part = MEASURES[measure]
    positives = match_labels.to(similarity.dtype)
    negatives = (1.0 - positives) * mask.to(similarity.dtype)
    e_pos = _masked_mean(positive_part(similarity * positives), positives)
    e_neg = _masked_mean(negative_part(similarity * negatives), negatives)
    return _weighted_mean(e_neg - e_pos, item_weights)


def _masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (x * mask).sum(dim=-1) / (mask.sum(dim=-1) + EPS)  # (…, N)


def frame_cl_video_to_video(
    clips: torch.Tensor,
    st_ed_indices: torch.Tensor,
    match_labels: torch.Tensor,
    mask: torch.Tensor,
    measure: str = "JSD",
) -> torch.Tensor:
    """FrameCL with the moment's first and last clips in the query's place; for experiments, not in the paper's loss.

    Args:
        clips: (N, L, D) clip vectors.
        st_ed_indices: (N, 2) int64, first and last clip of the moment.
        match_labels, mask, measure: as for `frame_cl`.
    """
    rows = torch.arange(len(clips), device=clips.device)
    total = clips.new_zeros(())
    for boundary in st_ed_indices.unbind(dim=1):
        similarity = torch.einsum("nld,nd->nl", clips, clips[rows, boundary])
        total = total + frame_cl(similarity, match_labels, mask, measure)
    return total


def video_cl(
    scores: torch.Tensor, item_weights: torch.Tensor | None = None, same_query: torch.Tensor | None = None
) -> torch.Tensor:
    """VideoCL: each query with its video against all other pairs of the batch (MIL-NCE, Miech et al. 2020).

    (N, N) scores of query i against video j -> mean of logsumexp(row i and column i together) - scores[i, i]; for
    `item_weights` and `same_query`, which are left out of the sum, see `of_pairs`.
    """
    if same_query is not None:
        scores = scores.masked_fill(same_query, -torch.inf)
    both_ways = torch.cat([scores, scores.t()], dim=1)  # (N, 2N)
    own = torch.arange(len(scores), device=scores.device)
    return _cross_entropy(both_ways, own, item_weights)  # logsumexp - scores[i, i]


def draw_negatives(
    scores: torch.Tensor, pool_size: int | None, generator: torch.Generator, same_query: torch.Tensor | None = None
) -> torch.Tensor:
    """Draw one negative column per row, never the diagonal.

    Args:
        scores: (…, N, N), N >= 2.
        pool_size: draw among the `pool_size` best-scored negatives of the row (hard negatives), or None: among all.
        generator: of the draws, on the CPU or where the scores are.
        same_query: (N, N) columns that are no negatives either, see `of_pairs`. A row without any other has itself.

    Returns:
        (…, N) int64 column indices; no gradient flows through the choice.
    """
    n = scores.shape[-1]
    pool = n - 1 if pool_size is None else min(pool_size, n - 1)
    if same_query is not None:
        return _draw_unrelated(scores, pool, generator, same_query)
    drawn = torch.randint(pool, scores.shape[:-1], generator=generator, device=generator.device)
    drawn = drawn.to(scores.device, non_blocking=True)
    if pool == n - 1:  # any order of the negatives will do: no sort
        return (torch.arange(1, n + 1, device=scores.device) + drawn) % n
    own = torch.eye(n, dtype=torch.bool, device=scores.device)
    hardest = scores.detach().masked_fill(own, -torch.inf).topk(pool, dim=-1).indices
    return hardest.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)


def _draw_unrelated(
    scores: torch.Tensor, pool: int, generator: torch.Generator, same_query: torch.Tensor
) -> torch.Tensor:
    """`draw_negatives` among the `pool` best-scored items of other queries, of which there may be fewer."""
    own = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
    best = scores.detach().masked_fill(own | same_query, -torch.inf).topk(pool, dim=-1)
    n_negatives = torch.isfinite(best.values).sum(dim=-1)  # (…, N)
    drawn = torch.rand(n_negatives.shape, generator=generator, device=generator.device).to(scores.device)
    place = (drawn * n_negatives).long().clamp(max=pool - 1)
    chosen = best.indices.gather(-1, place.unsqueeze(-1)).squeeze(-1)
    return torch.where(n_negatives > 0, chosen, torch.arange(scores.shape[-1], device=scores.device))


def ranking_loss(
    scores: torch.Tensor, negatives: torch.Tensor, margin: float, ranking_loss_type: str = "hinge"
) -> torch.Tensor:
    """Push each row's diagonal score above its drawn negative's: (…).

    Args:
        scores: (…, N, N); queries by videos for `loss_neg_ctx`, transposed for `loss_neg_q`.
        negatives: (…, N) columns from `draw_negatives`.
        ranking_loss_type: `hinge`, mean max(0, margin + neg - pos), or `lse`, mean log(1 + exp(neg - pos)).
    """
    gap = scores.gather(-1, negatives.unsqueeze(-1)).squeeze(-1) - scores.diagonal(dim1=-2, dim2=-1)
    return _of_gap(gap, margin, ranking_loss_type).mean(dim=-1)


def _of_gap(gap: torch.Tensor, margin: float, ranking_loss_type: str) -> torch.Tensor:
    """Loss of a negative whose score is so much above the positive's."""
    return (margin + gap).clamp(min=0) if ranking_loss_type == "hinge" else F.softplus(gap)


def ranking_loss_of_all(
    scores: torch.Tensor, margin: float, ranking_loss_type: str = "hinge", same_query: torch.Tensor | None = None
) -> torch.Tensor:
    """What `ranking_loss` is on average over all draws of negatives: (…). No chance is in it.

    For the arguments see there; `same_query` (N, N) are columns that are no negatives, see `of_pairs`.
    """
    negative = ~torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
    if same_query is not None:
        negative = negative & ~same_query
    gap = scores - scores.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    loss = _of_gap(gap, margin, ranking_loss_type) * negative
    return (loss.sum(dim=-1) / negative.sum(dim=-1).clamp(min=1)).mean(dim=-1)


def ranking_losses(
    scores: torch.Tensor,
    settings: LossSettings,
    generator: torch.Generator,
    same_query: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Both directions of the ranking loss on (N, N) video scores, weights applied; `same_query` as in `of_pairs`."""
    pool_size = settings.hard_pool_size if settings.use_hard_negative else None
    directions = {
        "loss_neg_ctx": (settings.lw_neg_ctx, scores),  # a negative video for each query
        "loss_neg_q": (settings.lw_neg_q, scores.t()),  # a negative query for each video
    }
    weights = {name: weight for name, (weight, _) in directions.items() if weight}
    directed = torch.stack([directions[name][1] for name in weights])  # (1 or 2, N, N)
    if settings.all_negatives:
        both = ranking_loss_of_all(directed, settings.margin, settings.ranking_loss_type, same_query)
    else:
        negatives = draw_negatives(directed, pool_size, generator, same_query)
        both = ranking_loss(directed, negatives, settings.margin, settings.ranking_loss_type)
    # a weight of 1 is left out: one kernel less
    return {
        name: loss if weight == 1 else weight * loss
        for (name, weight), loss in zip(weights.items(), both.unbind(), strict=True)
    }


def span_loss(
    st_logits: torch.Tensor,
    ed_logits: torch.Tensor,
    st_ed_indices: torch.Tensor,
    item_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross entropy of the start clip plus that of the end clip: logits (N, L), st_ed_indices (N, 2) int64.

    For `item_weights` see `of_pairs`.
    """
    both = None if item_weights is None else item_weights.repeat(2)
    return 2 * _cross_entropy(torch.cat([st_logits, ed_logits]), st_ed_indices.t().flatten(), both)
