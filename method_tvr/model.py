"""ReLoCLNet (Zhang et al., SIGIR 2021): encoders, scores and the training objective, top to bottom.

N batch, Nq queries, Nv videos, L clips, Lq query tokens, D hidden size. A *modality* is `video` or `sub` (subtitles);
parameters are named `{modality}_{part}`, as in published checkpoints. Of two modalities each attends to the other, and
their scores and losses are averaged; of one there is neither the other's branch nor cross attention, and no mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from method_tvr.contrastive import LossSettings, frame_cl, of_pairs, ranking_losses, span_loss, video_cl
from method_tvr.dataset.video_groups import ByModality, EncodedVideos, encoded_together, seen_clips
from method_tvr.dset_configs import MODALITIES
from method_tvr.layers.attention import hide
from method_tvr.layers.seen import LayerNorm, Seen, padded_again, seen_of
from method_tvr.model_components import (
    BertAttention,
    BertSelfAttention,
    LinearLayer,
    SpanPredictor,
    TrainablePositionalEncoding,
    computing_in,
    conv_predictors,
    first_clips,
    init_weights,
    lengthened,
    mean_of,
    own_products,
    pool_clips,
    with_padding,
)
from utils.ranks import ALONE, Ranks

MASKED = -1e10  # score of a clip or token that does not exist
EPS = 1e-12  # added to the length of a vector in a cosine, which may be 0
# of a batch: what the losses need beside scores; the last two only where items are pairs
LABELS = ("ctx_mask", "st_ed_indices", "match_labels", "item_weights", "query_ids")


@dataclass(frozen=True)
class ModelConfig(LossSettings):
    """The `model_cfg` of a checkpoint.

    Input sizes include the two columns of tef. That of a modality which `ctx_mode` leaves out is None.
    """

    visual_input_size: int | None = 3074
    sub_input_size: int | None = 770
    query_input_size: int = 768
    hidden_size: int = 384
    conv_kernel_size: int = 5
    conv_stride: int = 1
    max_ctx_l: int = 128
    max_desc_l: int = 30
    input_drop: float = 0.1
    drop: float = 0.1
    n_heads: int = 8
    initializer_range: float = 0.02
    ctx_mode: str = "video_sub_tef"

    vectors_for: ClassVar[tuple[str, ...]] = ("videos and spans",)  # what an encoded clip has a vector for, a modality
    pads_to_batch: ClassVar[bool] = False  # whether batches of training are padded to their longest video
    compares_sentences: ClassVar[bool] = False  # whether a query's features are vectors of it, not of its tokens

    @classmethod
    def from_dict(cls, model_cfg: Mapping[str, Any]) -> ModelConfig:
        """Build from a checkpoint's `model_cfg` (an EasyDict will do); entries that are not ours are passed over."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in model_cfg.items() if name in known})

    def build(self, generator: torch.Generator | None = None) -> ReLoCLNet:
        """A model of these sizes, its initial weights drawn with `generator`."""
        return ReLoCLNet(self, generator)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities named in `ctx_mode`, in the order of `modular_vector_mapping`'s rows."""
        return tuple(m for m in MODALITIES if m in self.ctx_mode.split("_"))

    @property
    def input_sizes(self) -> dict[str, int]:
        """{modality: clip feature size, tef included} of the modalities in use."""
        sizes = {"video": self.visual_input_size, "sub": self.sub_input_size}
        return {m: size for m in self.modalities if (size := sizes[m]) is not None}


class ContextEncoding(NamedTuple):
    """One modality of some videos."""

    h2: torch.Tensor  # (n, L, D), for FrameCL and VideoCL
    h3: torch.Tensor  # (n, L, D), for retrieval and localisation


class ReLoCLNet(nn.Module):
    """Query, video and subtitle encoders with contrastive training; the initial weights are drawn with `generator`."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if config.conv_kernel_size % 2 == 0 or config.conv_stride != 1:
            raise ValueError("conv_kernel_size must be odd and conv_stride 1: one logit per clip is needed")
        self.config, self.modalities = config, config.modalities
        if not self.modalities or config.input_sizes.keys() != set(self.modalities):
            raise ValueError(f"ctx_mode {config.ctx_mode!r}: needs video, sub or both, and their input sizes")
        self.add_layers(config)
        init_weights(self, config.initializer_range, generator or torch.default_generator)

    def add_layers(self, config: ModelConfig) -> None:
        """Make all layers, in the order in which their weights are drawn."""
        hidden, heads, drop = config.hidden_size, config.n_heads, config.drop
        self.query_pos_embed = TrainablePositionalEncoding(config.max_desc_l, hidden, config.input_drop)
        self.ctx_pos_embed = TrainablePositionalEncoding(config.max_ctx_l, hidden, config.input_drop)
        self.query_input_proj = LinearLayer(config.query_input_size, hidden, config.input_drop)
        self.query_encoder = BertAttention(hidden, heads, drop)
        self.query_encoder1 = BertAttention(hidden, heads, drop)
        for m in self.modalities:
            self.add_modality(m, n_encoders=3, cross=len(self.modalities) > 1)
        self.modular_vector_mapping = nn.Linear(hidden, len(self.modalities), bias=False)
        self.add_predictors("merged")

    def add_modality(self, m: str, n_encoders: int, cross: bool) -> None:
        """Make the layers of a modality."""
        hidden, heads, drop = self.config.hidden_size, self.config.n_heads, self.config.drop
        self.add_module(f"{m}_input_proj", LinearLayer(self.config.input_sizes[m], hidden, self.config.input_drop))
        for i in range(1, n_encoders + 1):
            self.add_module(f"{m}_encoder{i}", BertAttention(hidden, heads, drop))
        if cross:
            self.add_module(f"{m}_cross_att", BertSelfAttention(hidden, heads, drop))
            self.add_module(f"{m}_cross_layernorm", LayerNorm(hidden))
        self.add_module(f"{m}_query_linear", nn.Linear(hidden, hidden))

    def add_predictors(self, name: str) -> None:
        """Make the convolutions that turn similarities into start and end logits."""
        kernel = self.config.conv_kernel_size
        for end in ("st", "ed"):
            self.add_module(f"{name}_{end}_predictor", nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False))

    @property
    def span_kernels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(P, 1, kernel) weights of the start and of the end predictors: one pair, of the mean over modalities."""
        return self.predictors("merged")

    @property
    def span_predictors(self) -> list[SpanPredictor]:
        """What localises moments at inference."""
        return conv_predictors(*self.span_kernels)

    def predictors(self, *names: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(P, 1, kernel) weights of the start and of the end predictors with these names."""
        weight = self.get_parameter
        st, ed = (torch.cat([weight(f"{name}_{end}_predictor.weight") for name in names]) for end in ("st", "ed"))
        return st, ed

    @property
    def dtype(self) -> torch.dtype:
        """What the encoders compute in, see `computing_in`."""
        return self.modular_vector_mapping.weight.dtype

    def part(self, modality: str, name: str) -> nn.Module:
        """The layer `{modality}_{name}`."""
        return self.get_submodule(f"{modality}_{name}")

    # ---------------------------------------------------------------- encoders

    def encode_tokens(self, query_feat: torch.Tensor, query_mask: torch.Tensor) -> torch.Tensor:
        """(N, Lq, D) encodings of query tokens, see `encode_query`."""
        hidden = hide(query_mask, self.dtype).unsqueeze(1)
        tokens = self.query_pos_embed(self.query_input_proj(query_feat.to(self.dtype)))
        return self.query_encoder1(self.query_encoder(tokens, hidden), hidden)

    def encode_query(self, query_feat: torch.Tensor, query_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Modular queries, one vector per modality: {modality: (N, D)}, the `video_query` and the `sub_query`.

        Args:
            query_feat: (N, Lq, Dq) token features.
            query_mask: (N, Lq), 1 on tokens that exist.
        """
        tokens = self.encode_tokens(query_feat, query_mask)
        attention = self.modular_vector_mapping(tokens)  # (N, Lq, M), one weight per token and modality
        attention = attention.masked_fill(query_mask.unsqueeze(2) == 0, MASKED).softmax(dim=1)
        if len(self.modalities) == 1:  # not by matmul: see `own_products`
            return {self.modalities[0]: (attention * tokens).sum(dim=1)}
        modular = attention.transpose(1, 2) @ tokens  # (N, M, D)
        return dict(zip(self.modalities, modular.unbind(dim=1), strict=True))

    def encode_context(
        self, ctx_feats: Mapping[str, torch.Tensor], ctx_mask: torch.Tensor, seen: Seen | None = None
    ) -> dict[str, ContextEncoding]:
        """Encode clips of videos, each modality attending to the other where there are two.

        Args:
            ctx_feats: {modality: (N, n, Dm)} features, tef included, of the first n clips; all others are as the last.
            ctx_mask: (N, L), 1 on clips that exist; modalities share their clips.
            seen: which clips scores see; by default all.

        Returns encodings of the first n clips, 0 where they are not seen.
        """
        n_clips = ctx_feats[self.modalities[0]].shape[1]
        own = ctx_mask[:, :n_clips]
        if len(self.modalities) > 1:
            # A padded clip is no clip to hide others from: it attends to all, as in the reference, whose boundary
            # scores see padded clips through the convolutions.
            visible = torch.maximum(ctx_mask.unsqueeze(1), 1 - own.unsqueeze(2))  # (N, n queries, L keys)
            crossing = hide(visible, self.dtype)
        else:
            ctx_mask = own  # nobody sees more
        hidden = hide(ctx_mask, self.dtype).unsqueeze(1)
        first = seen if len(self.modalities) == 1 else None  # the other modality sees all of h1
        h1 = {m: self._encode_input(m, ctx_feats[m].to(self.dtype), hidden, first) for m in self.modalities}
        encoded, hidden = {}, hidden[..., :n_clips]
        for m in self.modalities:
            crossed = self._cross(m, h1, crossing, seen) if len(self.modalities) > 1 else h1[m]
            h2 = self.part(m, "encoder2")(crossed, hidden, seen)
            h3 = self.part(m, "encoder3")(h2, hidden, seen)
            encoded[m] = ContextEncoding(padded_again(h2, seen), padded_again(h3, seen))
        return encoded

    def encode_videos(self, batch: Mapping[str, torch.Tensor], trim_padding: bool = False) -> list[EncodedVideos]:
        """Encode the videos of a batch group by group: what comes out is that of `encode_context`.

        With `trim_padding`, zeros stand in the place of padding. On the CPU a group's videos are then of like length
        and next to no padding is encoded; on a GPU they are one group, as long as the batch is. Clips that exist come
        out the same. Those at the end of a video then see a similarity of 0 past it, where the reference's see that of
        padding, which depends on how far the batch is padded. Without it the CPU encodes as much padding as they see.

        The batch has `{modality}_feat` (N, L, Dm), 0 in padding, and `ctx_mask` (N, L).
        """
        mask, encoded = batch["ctx_mask"], []
        reach = max(1, self.config.conv_kernel_size // 2)  # clips past the end that scores see
        dropping = self.training and not trim_padding and self.config.drop > 0
        for rows, length in encoded_together(mask, 0 if trim_padding else None if self.training else reach):
            group_mask = mask[rows, :length]
            feats = {m: batch[f"{m}_feat"][rows, :length] for m in self.modalities}
            seen = seen_clips(mask[rows], reach) if dropping else None
            context = self.encode_context(feats, group_mask if trim_padding else mask[rows], seen)
            h2, h3 = ({m: encoding[i].float() for m, encoding in context.items()} for i in (0, 1))
            if trim_padding:
                h3 = {m: h * group_mask.unsqueeze(2) for m, h in h3.items()}
            encoded.append(self.as_used(rows, group_mask, h2, h3))
        return encoded

    def as_used(self, rows: slice | torch.Tensor, mask: torch.Tensor, h2: ByModality, h3: ByModality) -> EncodedVideos:
        """What each encoding is for."""
        return EncodedVideos(rows, mask, for_videos=h3, for_spans=h3, h2=h2)

    def _encode_input(self, modality: str, feat: torch.Tensor, hidden: torch.Tensor, seen: Seen | None) -> torch.Tensor:
        clips = self.part(modality, "input_proj")(seen_of(feat, seen), seen)
        clips = clips if seen else with_padding(clips, hidden.shape[2])  # (N, L, D)
        return self.part(modality, "encoder1")(self.ctx_pos_embed(clips, seen), hidden, seen)

    def _cross(self, modality: str, h1: ByModality, hidden: torch.Tensor, seen: Seen | None) -> torch.Tensor:
        """Let clips of one of two modalities, as many as `hidden` (N, n, L) is of, attend to the other: (N, n, D)."""
        own = first_clips(h1[modality], hidden.shape[1])
        side = next(h1[other] for other in self.modalities if other != modality)
        cross = self.part(modality, "cross_att")(seen_of(own, seen), side, hidden, seen)
        return self.part(modality, "cross_layernorm")(cross + seen_of(own, seen), seen)

    # ---------------------------------------------------------------- scores

    def video_scores(self, query: ByModality, h3: ByModality, ctx_mask: torch.Tensor) -> torch.Tensor:
        """Score of every query with every video: best cosine over clips, averaged over modalities.

        {modality: (Nq, D)}, {modality: (Nv, L, D)} and (Nv, L) -> (Nq, Nv) `q2ctx_scores`.
        """
        queries = torch.stack([query[m] for m in self.modalities])  # (M, Nq, D)
        unit = queries / (torch.linalg.vector_norm(queries, dim=-1, keepdim=True) + EPS)
        norms = torch.stack([torch.linalg.vector_norm(h3[m], dim=-1) for m in self.modalities]) + EPS  # (M, Nv, L)
        cosine = self._similarity_of_all(unit, h3, ctx_mask) / norms.unsqueeze(1)  # (M, Nq, Nv, L)
        return pool_clips(cosine).mean(dim=0)

    def video_cl_scores(self, query: ByModality, h2: ByModality, ctx_mask: torch.Tensor) -> torch.Tensor:
        """(Nq, Nv) scores that VideoCL contrasts: as `video_scores` but on h2 and without normalisation."""
        return self._similarity_of_all([query[m] for m in self.modalities], h2, ctx_mask).amax(dim=-1).mean(dim=0)

    def _similarity_of_all(self, query: Iterable[torch.Tensor], clips: ByModality, mask: torch.Tensor) -> torch.Tensor:
        """(M, Nq, Nv, L) products of queries, (Nq, D) a modality, with clips, `MASKED` where there is no clip."""
        products = [torch.einsum("qd,vld->qvl", q, clips[m]) for q, m in zip(query, self.modalities, strict=True)]
        return torch.stack(products).masked_fill(mask == 0, MASKED)

    def span_queries(self, query: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """{modality: (N, D)}: the queries in the form that clips are compared with for localisation."""
        return {m: self.part(m, "query_linear")(query[m]) for m in self.modalities}

    def span_logits(
        self, query: Mapping[str, torch.Tensor], h3: Mapping[str, torch.Tensor], ctx_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and end logits of each query in its own video, `MASKED` on clips that do not exist.

        {modality: (N, D)}, {modality: (N, L, D)} and (N, L) -> st_logits and ed_logits, (N, L).
        """
        projected = self.span_queries(query)
        similarity = mean_of([own_products(projected[m], h3[m]) for m in self.modalities])  # (N, L)
        kernels = torch.cat(self.span_kernels)  # (2, 1, kernel)
        logits = F.conv1d(similarity.unsqueeze(1), kernels, padding=kernels.shape[2] // 2)  # (N, 2, L)
        # masked after the convolution, as in the reference: boundary clips see their padded neighbours
        st_logits, ed_logits = logits.masked_fill(ctx_mask.unsqueeze(1) == 0, MASKED).unbind(dim=1)
        return st_logits, ed_logits

    # ---------------------------------------------------------------- training objective

    def forward(
        self,
        batch: Mapping[str, torch.Tensor],
        settings: LossSettings | None = None,
        generator: torch.Generator | None = None,
        trim_padding: bool = False,
        amp_dtype: torch.dtype | None = None,
        ranks: Ranks = ALONE,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a batch of queries, each with its own video.

        Args:
            batch: `query_feat`, `query_mask`, `{modality}_feat`, `ctx_mask`, `ctx_lengths`, `st_ed_indices` (N, 2),
                `match_labels` (N, L), of pairs `item_weights` and `query_ids` (N, 1), as `StartEndDataset` makes them.
            settings: loss weights in force, by default those of the config.
            generator: what negatives are drawn with, on the CPU or on the model's device.
            trim_padding: see `encode_videos`.
            amp_dtype: run the encoders in this dtype (bfloat16); scores and losses stay in float32.
            ranks: processes that each have a share of the batch in `batch`. All return the loss of the whole batch, and
                the sum of their gradients is its gradient.

        Returns:
            The total loss, and its terms by the names they are logged under (weights applied, detached).
        """
        settings = settings or self.config
        share = ranks.share(batch)
        own = share.batch
        with computing_in(self, amp_dtype):
            query = self.encode_query(own["query_feat"], own["query_mask"])
            groups = self.encode_videos(own, trim_padding)
        query = {m: q.float() for m, q in query.items()}
        own_scores = self._batch_scores(query, share.gather_queries(query), groups, own["ctx_mask"].shape[1], settings)
        scores = share.gather_scores(own_scores)
        labels = share.gather_labels({name: own[name] for name in LABELS if name in own})
        item_weights, same_query = of_pairs(labels, settings)

        losses = {}
        if settings.lw_st_ed:
            loss = span_loss(scores["st_logits"], scores["ed_logits"], labels["st_ed_indices"], item_weights)
            losses["loss_st_ed"] = settings.lw_st_ed * loss
        if settings.lw_fcl:
            clips = torch.stack([scores[f"{m}_clips"] for m in self.modalities])  # (M, N, L)
            loss = frame_cl(clips, labels["match_labels"], labels["ctx_mask"], item_weights=item_weights)
            losses["loss_fcl"] = settings.lw_fcl * loss
        if settings.lw_vcl:
            losses["loss_vcl"] = settings.lw_vcl * video_cl(scores["video_cl"].t(), item_weights, same_query)
        if "video" in scores:
            generator = generator or torch.default_generator
            losses.update(ranking_losses(scores["video"].t(), settings, generator, same_query))

        total = torch.stack(list(losses.values())).sum() if losses else labels["ctx_mask"].new_zeros(())
        return total, {name: loss.detach() for name, loss in {**losses, "loss_overall": total}.items()}

    def _batch_scores(
        self,
        query: Mapping[str, torch.Tensor],
        queries: Mapping[str, torch.Tensor],
        groups: Sequence[EncodedVideos],
        n_clips: int,
        settings: LossSettings,
    ) -> dict[str, torch.Tensor]:
        """What the losses that are on compare, n videos one a row.

        Args:
            query: {modality: (n, D)}, the queries of these videos.
            queries: {modality: (N, D)}, all queries of the batch.
            n_clips: L of the batch.

        Returns:
            Of each query with its own video (n, L): `st_logits`, `ed_logits`, `{modality}_clips` (dot products with
            h2). Of each video with each query (n, N): `video_cl`, `video`.
        """
        n, n_queries = (len(of_all[self.modalities[0]]) for of_all in (query, queries))
        in_order = len(groups) == 1 and isinstance(groups[0].rows, slice)  # all of the batch, as on a GPU
        parts: dict[str, list[torch.Tensor]] = defaultdict(list)
        for rows, mask, for_videos, for_spans, h2 in groups:
            own = query if in_order else {m: q[rows] for m, q in query.items()}
            beyond = n_clips - mask.shape[1]
            if settings.lw_st_ed:
                logits_of = self.span_logits(own, for_spans, mask)
                for name, logits in zip(("st_logits", "ed_logits"), logits_of, strict=True):
                    parts[name].append(lengthened(logits, beyond, MASKED))
            if settings.lw_fcl:
                for m in self.modalities:
                    parts[f"{m}_clips"].append(lengthened(own_products(own[m], h2[m]), beyond, 0.0))
            if settings.lw_vcl:
                parts["video_cl"].append(self.video_cl_scores(queries, h2, mask).t())
            if (settings.lw_neg_ctx or settings.lw_neg_q) and n_queries > 1:  # a batch of one has no negatives
                parts["video"].append(self.video_scores(queries, for_videos, mask).t())
        if in_order:
            return {name: tensors[0] for name, tensors in parts.items()}
        back = torch.cat([torch.arange(n)[group.rows] for group in groups]).argsort()
        return {name: torch.cat(tensors)[back] for name, tensors in parts.items()}
