"""XML (Lei et al., ECCV 2020), which ReLoCLNet grew from: videos by the first encoder, spans by the last.

Beside ReLoCLNet it has one query encoder, and no third encoder after the cross attention, no FrameCL and no VideoCL.
f1 is what the first encoder of a modality says of clips, before the modalities meet; videos are retrieved by it. f2 is
what the last one says, and moments are localised by it. So a clip has two vectors a modality, and all that lies behind
f1 learns from the span loss alone. Shapes and names are those of `model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from method_tvr.dataset.video_groups import ByModality, EncodedVideos
from method_tvr.layers.attention import hide
from method_tvr.layers.seen import Seen, padded_again
from method_tvr.model import MASKED, ModelConfig, ReLoCLNet
from method_tvr.model_components import (
    BertAttention,
    LinearLayer,
    TrainablePositionalEncoding,
    first_clips,
    mean_of,
    own_products,
)

HIDDEN = -10_000.0  # added to scores of the cross attention with or of a padded clip


@dataclass(frozen=True)
class XMLConfig(ModelConfig):
    """The `model_cfg` of a checkpoint; for what else the published code can be asked, see `unsupported`."""

    hidden_size: int = 256
    n_heads: int = 4
    max_ctx_l: int = 100
    ctx_mode: str = "video_sub"
    lw_fcl: float = 0.0
    lw_vcl: float = 0.0
    merge_two_stream: bool = True
    cross_att: bool = True
    no_modular: bool = False

    vectors_for: ClassVar[tuple[str, ...]] = ("videos", "spans")
    pads_to_batch: ClassVar[bool] = True

    def build(self, generator: torch.Generator | None = None) -> XML:
        return XML(self, generator)

    def __post_init__(self) -> None:
        if len(self.modalities) < 2:  # there is nothing to merge, and nothing to attend to
            for name in ("merge_two_stream", "cross_att"):
                object.__setattr__(self, name, False)


def unsupported(model_cfg: Mapping[str, Any]) -> str | None:
    """Why a model that the published code could make is none here; None where it is one."""
    if model_cfg.get("encoder_type", "transformer") != "transformer":
        return f"encoder_type {model_cfg['encoder_type']}: encoders are transformers here"
    if model_cfg.get("span_predictor_type", "conv") != "conv":
        return (
            "span_predictor_type cat_linear: its spans do not depend on the query, whose term is the same for all clips"
        )
    if model_cfg.get("stack_conv_predictor_conv_kernel_sizes", -1) not in (-1, [-1]):
        return "stack_conv_predictor_conv_kernel_sizes: the published code cannot load such a checkpoint itself"
    return None


class XMLEncoding(NamedTuple):
    """One modality of some videos."""

    f1: torch.Tensor  # (n, L, D), for retrieval
    f2: torch.Tensor  # (n, L, D), for localisation


class XML(ReLoCLNet):
    """Query, video and subtitle encoders; the initial weights are drawn with `generator`."""

    config: XMLConfig

    def add_layers(self, config: ModelConfig) -> None:
        assert isinstance(config, XMLConfig)
        hidden, heads, drop = config.hidden_size, config.n_heads, config.drop
        self.query_pos_embed = TrainablePositionalEncoding(config.max_desc_l, hidden, config.input_drop)
        self.ctx_pos_embed = TrainablePositionalEncoding(config.max_ctx_l, hidden, config.input_drop)
        self.query_input_proj = LinearLayer(config.query_input_size, hidden, config.input_drop)
        self.query_encoder = BertAttention(hidden, heads, drop)
        for m in self.modalities:
            self.add_modality(m, n_encoders=2 if config.cross_att else 3, cross=config.cross_att)
        self.modular_vector_mapping = nn.Linear(hidden, len(self.modalities), bias=False)
        for name in self._streams:
            self.add_predictors(name)

    @property
    def _streams(self) -> tuple[str, ...]:
        """What has a pair of predictors of its own: the mean of the modalities, or each of them."""
        return ("merged",) if self.config.merge_two_stream else self.modalities

    @property
    def span_kernels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(P, 1, kernel) weights of the start and end predictors, of the mean over modalities or of each of them."""
        return self.predictors(*self._streams)

    # ---------------------------------------------------------------- encoders

    def encode_tokens(self, query_feat: torch.Tensor, query_mask: torch.Tensor) -> torch.Tensor:
        tokens = self.query_pos_embed(self.query_input_proj(query_feat.to(self.dtype)))
        encoded: torch.Tensor = self.query_encoder(tokens, hide(query_mask, self.dtype).unsqueeze(1))
        return encoded

    def encode_query(self, query_feat: torch.Tensor, query_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Modular queries as in ReLoCLNet, or with `no_modular` the same maximum over tokens for each modality."""
        if not self.config.no_modular:
            return super().encode_query(query_feat, query_mask)
        tokens = self.encode_tokens(query_feat, query_mask).masked_fill(query_mask.unsqueeze(2) == 0, MASKED)
        return dict.fromkeys(self.modalities, tokens.amax(dim=1))

    def encode_context(  # type: ignore[override]
        self, ctx_feats: Mapping[str, torch.Tensor], ctx_mask: torch.Tensor, seen: Seen | None = None
    ) -> dict[str, XMLEncoding]:
        """Encode the clips of videos; with `cross_att` each modality attends to the other between f1 and f2."""
        own = ctx_mask[:, : ctx_feats[self.modalities[0]].shape[1]]  # (N, n), see `ReLoCLNet.encode_context`
        keys = ctx_mask if self.config.cross_att else own
        hidden = hide(keys, self.dtype).unsqueeze(1)
        first = None if self.config.cross_att else seen  # the other modality looks at all of f1
        f1 = {m: self._encode_input(m, ctx_feats[m].to(self.dtype), hidden, first) for m in self.modalities}
        if not self.config.cross_att:
            of_both = {m: (f1[m], self._through(f1[m], m, hidden, seen, 2, 3)) for m in self.modalities}
            return {m: XMLEncoding(*(padded_again(f, seen) for f in fs)) for m, fs in of_both.items()}
        # a padded clip is hidden from, and hides, all others alike, so that it attends to all, with rounded scores
        both = own.unsqueeze(2) * keys.unsqueeze(1)  # (N, n queries, L keys)
        crossing = hide(both, self.dtype, HIDDEN)
        n_clips, encoded = own.shape[1], {}
        for m in self.modalities:
            f2 = self._through(self._cross(m, f1, crossing, seen), m, hidden[..., :n_clips], seen, 2)
            encoded[m] = XMLEncoding(first_clips(f1[m], n_clips), padded_again(f2, seen))
        return encoded

    def _through(
        self, clips: torch.Tensor, modality: str, hidden: torch.Tensor, seen: Seen | None, *numbers: int
    ) -> torch.Tensor:
        """Clips (N, L, D), or those that are seen, through the encoders of a modality with these numbers."""
        for number in numbers:
            clips = self.part(modality, f"encoder{number}")(clips, hidden, seen)
        return clips

    def as_used(self, rows: slice | torch.Tensor, mask: torch.Tensor, f1: ByModality, f2: ByModality) -> EncodedVideos:
        return EncodedVideos(rows, mask, for_videos=f1, for_spans=f2, h2={})

    # ---------------------------------------------------------------- scores

    def span_logits(
        self, query: Mapping[str, torch.Tensor], clips: Mapping[str, torch.Tensor], ctx_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As in ReLoCLNet, or without `merge_two_stream` the mean over modalities of the logits of each.

        {modality: (N, D)}, {modality: (N, L, D)} and (N, L) -> st_logits and ed_logits, (N, L).
        """
        if self.config.merge_two_stream:
            return super().span_logits(query, clips, ctx_mask)
        projected, of_each = self.span_queries(query), []
        for m in self.modalities:
            kernels = torch.cat(self.predictors(m))  # (2, 1, kernel)
            similarity = own_products(projected[m], clips[m]).unsqueeze(1)  # (N, 1, L)
            logits = F.conv1d(similarity, kernels, padding=kernels.shape[2] // 2)  # (N, 2, L)
            of_each.append(logits.masked_fill(ctx_mask.unsqueeze(1) == 0, MASKED))
        st_logits, ed_logits = mean_of(of_each).unbind(dim=1)
        return st_logits, ed_logits
