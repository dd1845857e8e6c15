"""Search by way of an index: it names candidates, and the model's own scores decide among them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from method_tvr.model_components import pool_clips
from method_tvr.search.corpus import Corpus
from method_tvr.search.index.candidates import CandidateIndex
from method_tvr.search.retrieval import EncodedQueries, Found, Searcher, SearchSettings
from utils.tensor_utils import to_device

ENTRIES_AT_A_TIME = 40  # their clips stay in the caches


class IndexedSearcher(Searcher):
    """Answers queries over the entries that an index names: scores, times and order are those of an exact search.

    Args:
        corpus, st_kernel, ed_kernel, settings: see `Searcher`. No video may have several entries.
        index: over the same corpus.

    Attributes:
        exact: looks at all of the corpus, for comparison.
    """

    def __init__(
        self,
        corpus: Corpus,
        st_kernel: torch.Tensor,
        ed_kernel: torch.Tensor,
        settings: SearchSettings,
        index: CandidateIndex,
    ) -> None:
        super().__init__(corpus, st_kernel, ed_kernel, settings)
        self.index = index
        self.exact = Searcher(corpus, st_kernel, ed_kernel, settings)

    @torch.inference_mode()
    def find(self, queries: EncodedQueries, allowed: np.ndarray | None = None) -> Found:
        usable = np.arange(len(self.corpus)) if allowed is None else np.flatnonzero(allowed)
        keep = min(self.settings.max_vcmr_video, len(usable))
        on_host = queries.video.float().cpu().numpy()
        named = [_filled(entries, usable, keep) for entries in self.index.candidates(on_host, allowed)]
        entries, scores = [], []
        for video_queries, candidates in zip(queries.video, named, strict=True):
            best_scores, best = self._scores_of(video_queries, candidates).topk(keep)
            entries.append(to_device(candidates, best.device)[best])
            scores.append(best_scores)
        found = torch.stack(entries), torch.stack(scores)
        return Found(*found, *found)

    def _scores_of(self, video_queries: torch.Tensor, entries: np.ndarray) -> torch.Tensor:
        """(C,) scores of a query (M, D) with entries (C,)."""
        self.corpus.expect(entries)
        by_modality = torch.block_diag(*video_queries.to(self.corpus.dtype).unsqueeze(1))  # (M, M * D)
        n_clips = self.corpus.n_clips[entries]
        order = np.argsort(n_clips, kind="stable")  # those of one length are pooled together
        pooled = []
        for first in range(0, len(order), ENTRIES_AT_A_TIME):
            some = order[first : first + ENTRIES_AT_A_TIME]
            rows, norms = self.corpus.clips_of(entries[some])
            cosine = F.linear(rows.flatten(1), by_modality).float().t() / norms  # (M, R)
            lengths, counts = np.unique(n_clips[some], return_counts=True)
            runs = zip(cosine.split((lengths * counts).tolist(), dim=1), lengths.tolist(), strict=True)
            pooled += [pool_clips(run.unflatten(1, (-1, n))) for run, n in runs]
        scores = torch.empty(len(entries), device=pooled[0].device)
        scores[to_device(order, scores.device)] = torch.cat(pooled, dim=1).mean(dim=0)
        return scores


def _filled(entries: np.ndarray, usable: np.ndarray, keep: int) -> np.ndarray:
    """Candidates, and others where there are fewer than are kept: these are scored like any."""
    if len(entries) >= keep:
        return entries
    others = np.setdiff1d(usable[: keep + len(entries)], entries, assume_unique=True)
    return np.concatenate([entries, others[: keep - len(entries)]])
