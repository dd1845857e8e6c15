"""A model without training: an encoder that puts pictures and sentences into one space has compared them already.

A clip's vector is its own feature, a query's that of its sentence, and a video scores the best cosine of its clips, a
mean over what is seen and said, as with the other models. The query's vector for what is said is shortened to `w`
(`--sub_weight`): its score is w times the cosine of text with text.

A moment is where the similarity s_t of the query with clip t stands out. With mean m and deviation d of s over the
clips of the video, the span of the clips i to j scores

    exp(a * sum of ((s_t - m) / d - b), over t from i to j)

and so gains by each clip that lies more than b deviations (`--span_margin`) above the video's mean, and loses by each
that does not; a (`--span_sharpness`) says how much. That is the likelihood ratio of "about the query" against "not" for
normal similarities of equal deviation, 2 b deviations apart. It is a product of something of i and something of j, the
sums before i and up to j, so that all spans are searched. The best span of each video counts as 1: videos then come in
the order of their scores, each with its best moment first.

Vectors have `SPARE` numbers besides the encoder's: where a query keeps the rest of its length, and where clips in which
nobody speaks have theirs, so that all vectors have length 1 and those clips a cosine of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from method_tvr.dataset.video_groups import ByModality, EncodedVideos
from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.model_components import SpanPredictor

SPARE = 8  # numbers, which keeps rows as wide as matrix products like them
SILENT = 1  # of these, that of clips; that of queries is the first
LEAST_DEVIATION = 1e-4  # of similarities, below which clips do not differ


@dataclass(frozen=True)
class ZeroShotConfig(ModelConfig):
    """The `model_cfg` of a results folder; its input sizes are all the encoder's."""

    ctx_mode: str = "video_sub"
    conv_kernel_size: int = 1  # no clip's logit needs those beside it
    sub_weight: float = 0.5
    span_margin: float = 1.0
    span_sharpness: float = 1.0

    compares_sentences: ClassVar[bool] = True

    @classmethod
    def from_dict(cls, model_cfg: Mapping[str, Any]) -> ZeroShotConfig:
        """As of other models; a `ValueError` where the sizes are not those of one space."""
        config = super().from_dict(model_cfg)
        assert isinstance(config, ZeroShotConfig)
        sizes = {"queries": config.query_input_size, **config.input_sizes}
        if "tef" in config.ctx_mode.split("_"):
            raise ValueError("where in its video a clip lies (tef) cannot be compared with a sentence: leave tef out")
        if len(set(sizes.values())) > 1:
            of_each = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ValueError(f"vectors of one space have one size, but features have {of_each}")
        return replace(config, hidden_size=config.query_input_size + SPARE, conv_kernel_size=1)

    def build(self, generator: torch.Generator | None = None) -> ZeroShot:
        return ZeroShot(self, generator)


class ZeroShot(ReLoCLNet):
    """Compares what an encoder gives; it has no weights."""

    config: ZeroShotConfig

    def add_layers(self, config: ModelConfig) -> None:
        """There are none."""

    def encode_query(self, query_feat: torch.Tensor, query_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """{modality: (N, D)} of length 1.

        Args:
            query_feat: (N, Lq, D): the first row of each is compared with pictures, the last with text.
            query_mask: (N, Lq), 1 on rows that exist.
        """
        last = query_mask.sum(dim=1).long() - 1
        of_text = query_feat[torch.arange(len(query_feat), device=query_feat.device), last]
        weights = {"video": 1.0, "sub": self.config.sub_weight}
        vectors = {"video": query_feat[:, 0], "sub": of_text}
        return {m: _of_query(vectors[m], weights[m]) for m in self.modalities}

    def span_queries(self, query: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(query)

    def encode_videos(self, batch: Mapping[str, torch.Tensor], trim_padding: bool = False) -> list[EncodedVideos]:
        """Clip vectors of length 1; those of padding are not used."""
        clips: ByModality = {m: _unit(batch[f"{m}_feat"]) for m in self.modalities}
        return [self.as_used(slice(0, len(batch["ctx_mask"])), batch["ctx_mask"], clips, clips)]

    @property
    def span_predictors(self) -> list[SpanPredictor]:
        return [StandingOut(self.config.span_margin, self.config.span_sharpness)]


class StandingOut(SpanPredictor):
    """The rule above as start and end logits: a times what comes before a clip, negative, and up to it."""

    scores_spans = True

    def __init__(self, margin: float, sharpness: float) -> None:
        self._margin, self._sharpness = margin, sharpness

    def __call__(self, similarity: torch.Tensor, n_clips: torch.Tensor) -> torch.Tensor:
        n = n_clips.unsqueeze(1)  # (n, 1)
        there = torch.arange(similarity.shape[1], device=similarity.device) < n
        mean = (similarity * there).sum(dim=1, keepdim=True) / n
        apart = (similarity - mean) * there
        deviation = (apart.square().sum(dim=1, keepdim=True) / n).sqrt() + LEAST_DEVIATION
        gain = self._sharpness * (apart / deviation - self._margin)
        up_to = gain.cumsum(dim=1)
        return torch.stack([gain - up_to, up_to], dim=1)


def _of_query(vectors: torch.Tensor, weight: float) -> torch.Tensor:
    """(N, D) -> (N, D + SPARE) of length 1; the encoder's numbers have the length `weight`, or none of zeros."""
    own = weight * F.normalize(vectors.float(), dim=-1)
    rest = (1 - own.square().sum(dim=-1, keepdim=True)).clamp(min=0).sqrt()
    return torch.cat([own, rest, own.new_zeros((len(own), SPARE - 1))], dim=-1)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Clips (…, D) -> (…, D + SPARE) of length 1; that of zeros is the one of silence."""
    lengths = torch.linalg.vector_norm(vectors.float(), dim=-1, keepdim=True)
    unit = F.pad(vectors.float() / lengths.clamp(min=1e-12), (0, SPARE))
    unit[..., SILENT - SPARE] = lengths[..., 0] == 0
    return unit
