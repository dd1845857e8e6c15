"""A trained model, asked in words from Python.

    from method_tvr.ask.searcher import MomentSearcher
    searcher = MomentSearcher.open("method_tvr/results/tvr-video_sub_tef-reloclnet-2026_01_31_12_00_00")
    for moment in searcher.search("Phoebe puts one of her ponytails in her mouth.", top_k=5):
        print(moment.vid_name, moment.start, moment.end, moment.score)

The videos of a split are encoded once, on first use, and kept in the model's folder.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from easydict import EasyDict

from method_tvr.ask.asking import Asker, FoundMoment, QuestionError
from method_tvr.ask.encode_corpus import run_encoding
from method_tvr.ask.text_models import open_text_model
from method_tvr.config import search_options
from method_tvr.dataset.annotations import Video
from method_tvr.dataset.splits import ensure_dataset, listed_videos, load_eval_split
from method_tvr.inference import check_positions, load_model_of, open_query_features, open_store
from method_tvr.search.answering import Answerer, SpanCurves, open_answerer
from method_tvr.search.corpus import Corpus
from method_tvr.search.corpus_store import CorpusStore, recipe_seal
from method_tvr.search.index.candidates import CandidateIndex, CandidateSettings
from method_tvr.search.index.indexed_search import IndexedSearcher
from method_tvr.search.index.recall import IndexRecall, index_recall
from method_tvr.search.retrieval import EncodedQueries
from utils.basic_utils import InputError, first_few
from utils.model_utils import choose_device


@dataclass(frozen=True)
class ScoredMoment(FoundMoment):
    """A moment, and what its score is made of: exp(q2c_alpha * mean of `match`) * `p_start` * `p_end`.

    Attributes:
        match: {modality: cosine of the sentence and the clip of the video that is most like it}.
        p_start, p_end: probability that a moment for the sentence starts and ends there, if it is in this video.
    """

    match: dict[str, float]
    p_start: float
    p_end: float


class MomentSearcher:
    """Finds moments for sentences. Threads may share it: their searches take turns, each with all cores.

    Args:
        asker: encodes sentences and finds moments.
        answerer: the same that the asker asks.
        videos: what is searched.
        modalities: of the model, in its order.
    """

    def __init__(self, asker: Asker, answerer: Answerer, videos: Sequence[Video], modalities: Sequence[str]) -> None:
        self.asker, self.answerer, self.videos = asker, answerer, list(videos)
        self._modalities = list(modalities)
        self._names = [video.vid_name for video in videos]
        self._lock = threading.Lock()

    @classmethod
    def open(cls, model_dir: str | Path, split: str = "val", **options: object) -> MomentSearcher:
        """Load a model and its encoded videos, which are encoded first where they are not.

        Args:
            model_dir: results folder: a path, a name under `method_tvr/results`, or a pattern of either.
            split: whose videos are searched.
            **options: of `search.sh`, such as `index="faiss"`, `text_model="roberta-base"` or `device=-1`; True for
                those that take no value.

        Raises:
            InputError: something is missing or does not fit.
        """
        return open_searcher(search_options(model_dir, **{"eval_split_name": split, **options}))

    @overload
    def search(
        self, sentences: str, top_k: int = 10, video: str | None = None, show: str | None = None
    ) -> list[ScoredMoment]: ...

    @overload
    def search(
        self, sentences: list[str], top_k: int = 10, video: str | None = None, show: str | None = None
    ) -> list[list[ScoredMoment]]: ...

    def search(
        self, sentences: str | list[str], top_k: int = 10, video: str | None = None, show: str | None = None
    ) -> list[ScoredMoment] | list[list[ScoredMoment]]:
        """The best moments for a sentence, or for each of several, best first.

        Args:
            sentences: one, or several, which are searched for together.
            top_k: moments of each at most.
            video: look in this one alone.
            show: look in the videos whose names begin with it and `_`.

        Raises:
            QuestionError: a sentence is blank, or there is no such video or show.
        """
        asked = [sentences] if isinstance(sentences, str) else sentences
        check_asked(asked, top_k)
        allowed = self._allowed(video, show)
        if not asked:
            return []
        with self._lock:
            queries = self.asker.encode(asked)
            found = self.asker.find(queries, top_k, allowed)
            scored = [self._with_parts(moments, queries[number : number + 1]) for number, moments in enumerate(found)]
        return scored[0] if isinstance(sentences, str) else scored

    def curves(self, sentence: str, vid_names: Sequence[str]) -> list[SpanCurves]:
        """Start and end probabilities of a sentence over each of some videos.

        Raises:
            QuestionError: the sentence is blank, or there is no such video.
        """
        check_asked([sentence])
        for name in vid_names:
            self._allowed(name, None)
        with self._lock:
            query = self.asker.encode([sentence])
            return self.answerer.curves_of(query, vid_names)

    def _allowed(self, video: str | None, show: str | None) -> np.ndarray | None:
        if video is None and show is None:
            return None
        allowed = self.answerer.entries_of(
            lambda name: video in (None, name) and (show is None or name.startswith(f"{show}_"))
        )
        if not allowed.any():
            what = f"video {video}" if video is not None else f"show {show}"
            raise QuestionError(f"there is no {what} among the {len(self._names)} videos: {first_few(self._names)}")
        return allowed

    def _with_parts(self, moments: Sequence[FoundMoment], query: EncodedQueries) -> list[ScoredMoment]:
        spans = np.array([(moment.start, moment.end) for moment in moments])
        parts = self.answerer.parts_of(query, [moment.vid_name for moment in moments], spans)
        return [
            ScoredMoment(
                moment.vid_name,
                moment.start,
                moment.end,
                moment.score,
                dict(zip(self._modalities, part.match, strict=True)),
                part.p_start,
                part.p_end,
            )
            for moment, part in zip(moments, parts, strict=True)
        ]


def check_asked(sentences: Sequence[str], top_k: int = 1) -> None:
    """Refuse what no search can answer, before anything is computed.

    Raises:
        QuestionError: a sentence is blank, or no moment is asked for.
    """
    if top_k < 1:
        raise QuestionError(f"top_k {top_k} must be above 0")
    if any(not sentence.strip() for sentence in sentences):
        raise QuestionError("a sentence is blank: write what to look for")


def open_searcher(opt: EasyDict) -> MomentSearcher:
    """The searcher that options describe.

    Args:
        opt: from `parse_search_options` or `parse_serve_options`.

    Raises:
        InputError: something is missing or does not fit.
    """
    ensure_dataset(opt)
    checkpoint = load_model_of(opt)
    check_positions(checkpoint.config, opt.max_ctx_l, opt.max_desc_l, opt.model_dir)
    device = choose_device(opt.device, opt.tf32)
    text_model = open_text_model(opt, checkpoint, device)
    if opt.encoded_corpus is None:
        opt.encoded_corpus = str(Path(opt.model_dir) / f"encoded_{opt.eval_split_name}")
        run_encoding(opt, opt.encoded_corpus)
    store = open_store(opt, checkpoint)
    videos = listed_videos(opt)
    store.require(videos)
    model = checkpoint.build_model(device)
    index_of = None if opt.index == "exact" else lambda corpus: open_index(opt, store, videos, corpus)
    opt.max_before_nms = max(opt.max_before_nms, opt.top_k)
    answerer = open_answerer(model, videos, None, opt, device, store, store.recipe.windows, index_of=index_of)
    asker = Asker(model, answerer, videos, text_model, opt)
    return MomentSearcher(asker, answerer, videos, model.modalities)


def corpus_seal(store: CorpusStore, videos: Sequence[Video]) -> str:
    """What tells a list of encoded videos from any other: a digest of rows, names and order."""
    digest = hashlib.sha256(recipe_seal(store.recipe).encode())
    for part in store.parts:
        digest.update("".join(said["sha256"] for said in part.files.values()).encode())
    for video in videos:
        digest.update(video.vid_name.encode() + b"\0")
    return digest.hexdigest()


def open_index(opt: EasyDict, store: CorpusStore, videos: Sequence[Video], corpus: Corpus) -> CandidateIndex:
    """The index that options name, over the videos of a corpus; built first where it is not there.

    Raises:
        InputError: a package is missing, or the index cannot be built, read or reached.
    """
    settings = CandidateSettings(opt.candidate_clips, opt.candidate_videos, opt.probes)
    seal, n_modalities = corpus_seal(store, videos), len(store.recipe.modalities)
    if opt.index == "faiss":
        from method_tvr.search.index.faiss_index import FaissRecipe, open_faiss_index  # here, because few need it

        recipe = FaissRecipe(opt.index_kind, seal, opt.pq_bytes)
        folder = store.folder.with_name(f"{store.folder.name}_{opt.index_kind}_index")
        return open_faiss_index(folder, recipe, corpus, n_modalities, settings)
    from method_tvr.search.index.milvus_index import open_milvus_index

    uri = opt.index_uri or str(store.folder.with_name(f"{store.folder.name}_milvus.db"))
    return open_milvus_index(uri, opt.index_token, seal, corpus, n_modalities, settings)


def measure_index(searcher: MomentSearcher, opt: EasyDict) -> IndexRecall:
    """What the index finds of what an exact search finds, for the first `measure_index` queries of the split.

    Raises:
        InputError: there is no index, or the queries or their features are missing.
    """
    indexed = searcher.answerer.searcher
    if not isinstance(indexed, IndexedSearcher):
        raise InputError("--measure_index: --index exact looks at everything: name another index")
    with open_query_features(opt) as features:
        queries = load_eval_split(opt, features).queries[: opt.measure_index]
        prepared = [features.query(query.desc_id) for query in queries]
    return index_recall(indexed, searcher.asker.encode_features(prepared))
