"""A model applied to a corpus: what a search compares, of videos and of queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from method_tvr.dataset.loading import Batch
from method_tvr.dataset.video_groups import WHOLE
from method_tvr.model import ReLoCLNet
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import EncodedQueries
from method_tvr.start_end_dataset import prepare_batch_inputs
from utils.tensor_utils import pad_sequences


@torch.inference_mode()
def encode_videos(
    model: ReLoCLNet, batches: Iterable[Batch], device: torch.device, trim_padding: bool = False
) -> Iterator[tuple[int, torch.Tensor]]:
    """For each video, in their order, its number of clips L and its rows (R, V, D) float32.

    The first M of a row's vectors are what videos are retrieved by, the last M what moments are localised by, one of
    each modality; where a model does both by the same ones, V is M, and otherwise 2 M.
    The model is in evaluation mode on the device, where encodings stay. Padded rows that boundary scores need are among
    them, but with `trim_padding`, see `ReLoCLNet.encode_videos`, there are none.
    """
    reach = 0 if trim_padding else model.config.conv_kernel_size // 2
    for _, batch in batches:
        inputs, lengths = prepare_batch_inputs(batch, device), batch["ctx_lengths"].tolist()
        encoded: dict[int, torch.Tensor] = {}
        for videos in model.encode_videos(inputs, trim_padding):
            used = (videos.for_videos, videos.for_spans)[-len(model.config.vectors_for) :]
            rows = torch.stack([encodings[m] for encodings in used for m in model.modalities], dim=2)  # (n, L, V, D)
            numbers = torch.arange(len(lengths))[videos.rows].tolist()
            encoded |= {i: entry[: lengths[i] + reach].clone() for i, entry in zip(numbers, rows, strict=True)}
        for i, length in enumerate(lengths):
            yield length, encoded[i]


@torch.inference_mode()
def encode_corpus(
    model: ReLoCLNet,
    batches: Iterable[Batch],
    device: torch.device,
    trim_padding: bool = False,
    dtype: torch.dtype = torch.float32,
) -> EncodedCorpus:
    """Encode videos once, see `encode_videos`, and keep them in memory as `dtype`."""
    rows, n_clips = [], []
    for length, encoded in encode_videos(model, batches, device, trim_padding):
        rows.append(encoded.to(dtype))
        n_clips.append(length)
    return EncodedCorpus(rows, n_clips, dtype)


@torch.inference_mode()
def encode_queries(model: ReLoCLNet, batch: dict[str, torch.Tensor]) -> EncodedQueries:
    """Encode a batch of queries as a corpus is searched with them.

    On a CPU padding costs what tokens cost, so those of like length are encoded together, with as little of it as
    `WHOLE` asks for.
    """
    feat, mask = batch["query_feat"], batch["query_mask"]
    if mask.device.type != "cpu":
        return _encoded(model, feat, mask)
    lengths = mask.sum(dim=1).long()
    whole = (lengths + -lengths % WHOLE).clamp(min=1, max=mask.shape[1])
    n_tokens, counts = whole.unique(return_counts=True)
    order = whole.argsort(stable=True)
    groups = zip(order.split(counts.tolist()), n_tokens.tolist(), strict=True)
    parts = [_encoded(model, feat[rows, :n], mask[rows, :n]) for rows, n in groups]
    return EncodedQueries.concatenate(parts)[order.argsort()]


def _encoded(model: ReLoCLNet, feat: torch.Tensor, mask: torch.Tensor) -> EncodedQueries:
    query = model.encode_query(feat, mask)
    return EncodedQueries.build(query, model.span_queries(query), model.modalities)


@torch.inference_mode()
def encode_token_features(model: ReLoCLNet, queries: Sequence[np.ndarray], device: torch.device) -> EncodedQueries:
    """Encode a batch of queries of (Lq, D) prepared token features each."""
    query_feat, query_mask = pad_sequences(queries)
    return encode_queries(model, prepare_batch_inputs({"query_feat": query_feat, "query_mask": query_mask}, device))
