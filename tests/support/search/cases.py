"""Corpora and queries of any shape, with everything scored densely in float64 to compare with."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from method_tvr.model_components import conv_predictors
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import EncodedQueries, SearchSettings
from method_tvr.search.retrieval import Searcher

D = 4


@dataclass
class Case:
    """A corpus as the model leaves it: every video padded to the most clips, with encodings of padding."""

    padded: torch.Tensor  # (Nv, max_ctx_l, M, D)
    n_clips: list[int]
    query: torch.Tensor  # (Nq, M, D)
    span: torch.Tensor  # (Nq, M, D)
    kernels: torch.Tensor  # (2, kernel)
    search: SearchSettings

    def corpus(self) -> EncodedCorpus:
        reach = self.kernels.shape[1] // 2
        rows = [video[: n + reach] for video, n in zip(self.padded, self.n_clips, strict=True)]
        return EncodedCorpus(rows, self.n_clips)

    def queries(self) -> EncodedQueries:
        modalities = [str(m) for m in range(self.query.shape[1])]
        by_modality = ({m: x[:, i] for i, m in enumerate(modalities)} for x in (self.query, self.span))
        return EncodedQueries.build(*by_modality, modalities)

    def searcher(self) -> Searcher:
        return Searcher(self.corpus(), conv_predictors(*self.kernels), self.search)

    # ------------------------------------------------------------ the same, dense and in float64

    def video_scores(self) -> np.ndarray:
        """(Nq, Nv)."""
        scores = np.zeros((len(self.query), len(self.n_clips)))
        for v, n in enumerate(self.n_clips):
            cosine = torch.cosine_similarity(
                self.query[:, None].double(), self.padded[None, v, :n].double(), dim=-1
            )  # (Nq, n, M)
            scores[:, v] = cosine.amax(dim=1).mean(dim=1).numpy()
        return scores

    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """(Nq, Nv, max_ctx_l) of starts and ends, 0 past a video's clips."""
        similarity = torch.einsum("qmd,vlmd->qvl", self.span.double(), self.padded.double()) / self.span.shape[1]
        kernel = self.kernels.shape[1]
        flat = similarity.flatten(0, 1).unsqueeze(1)
        logits = F.conv1d(flat, self.kernels.double().unsqueeze(1), padding=kernel // 2)
        logits = logits.view(*similarity.shape[:2], 2, -1)
        missing = torch.arange(logits.shape[-1]) >= torch.tensor(self.n_clips).view(-1, 1, 1)
        both = logits.masked_fill(missing, -1e10).softmax(dim=-1).numpy()
        return both[:, :, 0], both[:, :, 1]

    def all_moments(self, weights: np.ndarray, videos: list[list[int]]) -> list[dict[tuple[int, int, int], float]]:
        """Per query {(video, st, ed): score} of every possible span."""
        p_st, p_ed = self.probabilities()
        band = range(self.search.min_pred_l, self.search.max_pred_l)
        return [
            {
                (v, i, i + n): p_st[q, v, i] * p_ed[q, v, i + n] * weights[q, v]
                for v in of_query
                for n in band
                for i in range(self.n_clips[v] - n)
            }
            for q, of_query in enumerate(videos)
        ]


@st.composite
def cases(draw) -> Case:
    kernel = draw(st.sampled_from([1, 3, 5, 7]))
    max_ctx_l = draw(st.integers(1, 14))
    # few different lengths, the most among them, so that blocks hold several videos and rows meet the cap
    lengths = st.sampled_from(sorted({1, min(2, max_ctx_l), min(3, max_ctx_l), max(1, max_ctx_l - 1), max_ctx_l}))
    n_clips = draw(st.lists(lengths, min_size=1, max_size=9))
    n_queries, n_modalities = draw(st.integers(1, 5)), draw(st.integers(1, 2))
    min_pred_l = draw(st.integers(0, 4))
    search = SearchSettings(
        q2c_alpha=draw(st.sampled_from([0.0, 1.0, 30.0])),
        max_vcmr_video=draw(st.integers(1, 12)),
        max_moments=draw(st.integers(1, 200)),
        min_pred_l=min_pred_l,
        max_pred_l=draw(st.sampled_from([min_pred_l + 1, min_pred_l + 3, 16])),
        query_block=draw(st.integers(1, 6)),
        clip_block=draw(st.integers(1, 60)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Case(
        normal(len(n_clips), max_ctx_l, n_modalities, D),
        n_clips,
        normal(n_queries, n_modalities, D),
        normal(n_queries, n_modalities, D),
        normal(2, kernel),
        search,
    )


def a_case(n_clips: list[int], max_ctx_l: int = 12, n_queries: int = 2, **search: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    shapes = (len(n_clips), max_ctx_l, 2, D), (n_queries, 2, D), (n_queries, 2, D), (2, 5)
    padded, query, span, kernels = (torch.randn(*shape, generator=generator) for shape in shapes)
    return Case(padded, n_clips, query, span, kernels, SearchSettings(**search))
