"""Corpus retrieval written straightforwardly: what the fast one is compared with, in answers and time.

Videos are padded to one length, start and end probabilities are computed in all of them, the (L, L) scores of all
spans of the videos kept are built per query, and sorted whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from method_tvr.search.records import SearchSettings
from tests.benchmarks.synthetic import EncodedData

MASKED = -1e10


@dataclass
class DenseMoments:
    """Ranked moments (Nq, K), best first; entry -1 past a query's last possible one."""

    entry: torch.Tensor
    st: torch.Tensor
    ed: torch.Tensor
    score: torch.Tensor


class DenseSearch:
    """Answers queries over all videos, padded.

    Args:
        data: encoded videos and queries.
        max_ctx_l: clips that videos are padded to.
        settings: what is searched for.
        device: where.
    """

    def __init__(self, data: EncodedData, max_ctx_l: int, settings: SearchSettings, device: torch.device) -> None:
        self.settings = settings
        # (Nv, L, M, D)
        self.videos = torch.stack([F.pad(rows, (0, 0, 0, 0, 0, max_ctx_l - len(rows))) for rows in data.rows])
        self.videos = self.videos.to(device)
        self.mask = (torch.arange(max_ctx_l) < torch.from_numpy(data.n_clips).unsqueeze(1)).float().to(device)
        self.kernels = [kernel.view(1, 1, -1).to(device) for kernel in (data.st_kernel, data.ed_kernel)]
        self.normalized = F.normalize(self.videos, dim=-1)

    @torch.inference_mode()
    def search(
        self, query: torch.Tensor, span_query: torch.Tensor, own: torch.Tensor
    ) -> tuple[DenseMoments, DenseMoments, tuple[torch.Tensor, torch.Tensor]]:
        """VCMR, SVMR and VR of a block of queries.

        Args:
            query, span_query: (Nq, M, D).
            own: (Nq,) int64, the video each query is about.

        Returns:
            VCMR, SVMR, and the (Nq, V) entries and scores of VR.
        """
        similarity = torch.einsum("qmd,vlmd->mqvl", F.normalize(query, dim=-1), self.normalized)
        scores = self._masked(similarity).max(dim=3).values.mean(dim=0)  # (Nq, Nv)
        weights = torch.exp(self.settings.q2c_alpha * scores)
        kept = weights.sort(dim=1, descending=True)
        n_kept = min(self.settings.max_vcmr_video, len(self.videos))
        entries, kept_weights = kept.indices[:, :n_kept], kept.values[:, :n_kept]

        p_st, p_ed = self._probabilities(span_query)  # (Nq, Nv, L) each
        index = entries.unsqueeze(2).expand(-1, -1, p_st.shape[2])
        vcmr = self._best_spans(p_st.gather(1, index), p_ed.gather(1, index), entries, kept_weights)
        index = own.view(-1, 1, 1).expand(-1, 1, p_st.shape[2])
        svmr = self._best_spans(p_st.gather(1, index), p_ed.gather(1, index), own.unsqueeze(1))
        return vcmr, svmr, (entries, kept_weights)

    def _probabilities(self, span_query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        similarity = torch.einsum("qmd,vlmd->mqvl", span_query, self.videos).mean(dim=0)  # (Nq, Nv, L)
        flat = similarity.flatten(0, 1).unsqueeze(1)
        logits = [F.conv1d(flat, kernel, padding=kernel.shape[-1] // 2) for kernel in self.kernels]
        p_st, p_ed = (self._masked(x.view(similarity.shape)).softmax(dim=-1) for x in logits)
        return p_st, p_ed

    def _masked(self, scores: torch.Tensor) -> torch.Tensor:
        return scores * self.mask + (1 - self.mask) * MASKED

    def _best_spans(
        self, p_st: torch.Tensor, p_ed: torch.Tensor, entries: torch.Tensor, weights: torch.Tensor | None = None
    ) -> DenseMoments:
        """The best of all (start, end) pairs of the videos in `entries` (Nq, V)."""
        spans = torch.einsum("qvi,qvj->qvij", p_st, p_ed)
        if weights is not None:
            spans = spans * weights[:, :, None, None]
        length = p_st.shape[2]
        clip = torch.arange(length, device=p_st.device)
        n_clips = clip.unsqueeze(0) - clip.unsqueeze(1)  # [i, j] = j - i
        allowed = (n_clips >= self.settings.min_pred_l) & (n_clips < self.settings.max_pred_l)
        exists = self.mask[entries].bool()
        spans = spans.masked_fill(~(allowed & exists.unsqueeze(2)), -1.0)
        ranked = spans.flatten(1).sort(dim=1, descending=True)
        score, index = (x[:, : self.settings.max_moments] for x in (ranked.values, ranked.indices))
        entry = entries.gather(1, index // length**2).masked_fill(score < 0, -1)
        return DenseMoments(entry, index // length % length, index % length, score)
