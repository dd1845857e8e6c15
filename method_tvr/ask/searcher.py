"""A trained model, asked in words from Python.

    from method_tvr.ask.searcher import MomentSearcher
    searcher = MomentSearcher.open("method_tvr/results/tvr-video_sub_tef-reloclnet-2026_01_31_12_00_00")
    for moment in searcher.search("Phoebe puts one of her ponytails in her mouth.", top_k=5):
        print(moment.vid_name, moment.start, moment.end, moment.score)

The videos of a split are encoded once, on first use, and kept in the model's folder.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import overload

import numpy as np
import torch
from easydict import EasyDict

from method_tvr.ask.encode_corpus import add_videos
from method_tvr.ask.indexes import open_index
from method_tvr.ask.moments import Answer, Moment, shortened
from method_tvr.ask.picture_models import NOT_COMPARED, PictureModel, open_picture_model
from method_tvr.ask.questions import QuestionError, check_asked
from method_tvr.ask.text_models import TextModel, open_text_model
from method_tvr.config import SEARCH, inference_options
from method_tvr.dataset.annotations import Video
from method_tvr.dataset.feature_store import Preparation
from method_tvr.dataset.split_facts import Fact, tell
from method_tvr.inputs import Inputs
from method_tvr.model import ReLoCLNet
from method_tvr.options.saved import find_path
from method_tvr.options.values import EXACT, OFF, SHOWN_NMS_THD
from method_tvr.search.answering import Answerer, SpanCurves, open_answerer
from method_tvr.search.encoding import encode_token_features
from method_tvr.search.index.recall import IndexRecall, index_recall
from method_tvr.search.predictions import COLUMNS, PARTS, RankedRows
from method_tvr.search.records import UNPROVED, EncodedQueries, Proofs
from method_tvr.trained.trained_model import TrainedModel, encoded_before, open_model, search_settings
from utils.basic_utils import InputError, StrPath, first_few
from utils.feature_files.feature_file import FeatureFile
from utils.inventory.names import Names
from utils.ranks import ALONE, Ranks
from utils.video_feature.joint.asked_pictures import PictureError

SAMPLED_QUERIES = 2000
MORE_ROWS = 4  # times as many are looked at where too few are left after NMS
Picture = StrPath | bytes | np.ndarray  # a file of a picture or a clip, a picture's bytes, or what `of_picture` gave


class MomentSearcher:
    """Finds moments for sentences, and pictures. Threads may share it: searches take turns, each with all cores.

    Args:
        model: in evaluation mode.
        answerer: over the videos.
        videos: what is searched.
        text_model: encodes sentences; needed by the main process alone.
        inputs: how queries are read.
        nms_thd: of two moments of a video whose IoU is above it only the better is found; `OFF`; a search may ask for
            another.
        ranks: the processes that ask together; all get the answers.
        facts: what is wrong with the videos.
        picture_model: encodes pictures; None where they cannot be asked with.
    """

    def __init__(
        self,
        model: ReLoCLNet,
        answerer: Answerer,
        videos: Sequence[Video],
        text_model: TextModel | None,
        inputs: Inputs,
        nms_thd: float = OFF,
        ranks: Ranks = ALONE,
        facts: Sequence[Fact] = (),
        picture_model: PictureModel | None = None,
    ) -> None:
        self.answerer, self.videos, self.facts = answerer, list(videos), facts
        self._model, self._text_model, self._ranks = model, text_model, ranks
        self._picture_model = picture_model
        self._name_of = {video.idx: video.vid_name for video in videos}
        self._prepare = Preparation(inputs.max_desc_l, average=False, normalize=not inputs.no_norm_tfeat)
        self._block, self._nms_thd = inputs.eval_query_bsz, nms_thd
        self._lock = threading.Lock()
        self.proofs: Proofs | None = None  # of all that was asked; None: no index that proves answers
        self.note: Callable[[str], object] = lambda text: print(f"note: {text}", file=sys.stderr)  # may be another

    @classmethod
    def open(cls, model_dir: StrPath, split: str | None = None, **options: object) -> MomentSearcher:
        """Load a model and its encoded videos, which are encoded first where they are not.

        Args:
            model_dir: results folder: a path, a name under `method_tvr/results`, or a pattern of either; or a published
                model: its folder, or `org/name[@revision]` on the Hugging Face hub.
            split: whose videos are searched; by default those of val, and all of a corpus of one's own.
            **options: of `search.sh`, such as `index="faiss"`, `text_model="roberta-base"` or `device=-1`; True for
                those that take no value.

        Raises:
            InputError: something is missing or does not fit.
        """
        return open_searcher(inference_options(model_dir, SEARCH, **{"eval_split_name": split, **options}))

    @classmethod
    def from_pretrained(
        cls, name: StrPath, split: str | None = None, revision: str | None = None, **options: object
    ) -> MomentSearcher:
        """As `open`, of a model that others have published.

        Args:
            name: `org/name` on the Hugging Face hub, or the folder of a model.
            split, **options: see `open`.
            revision: of a model on the hub: a branch, a tag or a commit; by default the newest.
        """
        return cls.open(name if revision is None else f"{name}@{revision}", split, **options)

    @overload
    def search(
        self,
        sentences: str,
        top_k: int = 10,
        video: str | None = None,
        show: str | None = None,
        nms_thd: float | None = None,
    ) -> Answer: ...

    @overload
    def search(
        self,
        sentences: list[str],
        top_k: int = 10,
        video: str | None = None,
        show: str | None = None,
        nms_thd: float | None = None,
    ) -> list[Answer]: ...

    def search(
        self,
        sentences: str | list[str],
        top_k: int = 10,
        video: str | None = None,
        show: str | None = None,
        nms_thd: float | None = None,
    ) -> Answer | list[Answer]:
        """The best moments for a sentence, or for each of several, best first.

        Args:
            sentences: one, or several, which are searched for together.
            top_k: moments of each at most.
            video: look in this one alone.
            show: look in the videos whose names begin with it and `_`.
            nms_thd: for this search, see above; None: that of the searcher.

        Raises:
            QuestionError: a sentence is blank or no text, or there is no such video or show.
        """
        asked = [sentences] if isinstance(sentences, str) else sentences
        check_asked(asked, top_k)
        found = self._search(lambda: self.encode(asked), len(asked), top_k, video, show, nms_thd)
        return found[0] if isinstance(sentences, str) else found

    def search_pictures(
        self,
        pictures: Sequence[Picture],
        top_k: int = 10,
        video: str | None = None,
        show: str | None = None,
        nms_thd: float | None = None,
    ) -> list[Answer]:
        """The best moments for each of some pictures or clips: what is seen is compared with them. See `search`.

        Raises:
            QuestionError: one cannot be read, the model compares none, or there is no such video or show.
        """
        check_asked([], top_k)
        pictures = [pictures] if isinstance(pictures, str | bytes) else pictures
        features = [one if isinstance(one, np.ndarray) else self.of_picture(one) for one in pictures]
        return self._search(lambda: self.encode_features(features), len(features), top_k, video, show, nms_thd)

    @property
    def compares_pictures(self) -> bool:
        """Whether pictures can be asked with."""
        return self._picture_model is not None

    def of_picture(self, source: StrPath | bytes) -> np.ndarray:
        """(2, D) features of a picture or clip, for `search_pictures` and `curves`; errors as of `search_pictures`."""
        if self._picture_model is None:
            raise QuestionError(NOT_COMPARED)
        try:
            return self._prepare(self._picture_model(source))
        except PictureError as err:
            raise QuestionError(str(err)) from err

    def _search(
        self,
        encode: Callable[[], EncodedQueries],
        n_queries: int,
        top_k: int,
        video: str | None,
        show: str | None,
        nms_thd: float | None,
    ) -> list[Answer]:
        allowed = self._allowed(video, show)
        if not n_queries:
            return []
        with self._lock:
            return self.find(encode(), top_k, allowed, with_parts=True, nms_thd=nms_thd)

    def index_said(self) -> str:
        """See `SearchIndex.said`."""
        index = self.answerer.searcher.index
        return "" if index is None else index.said()

    def curves(self, asked: str | np.ndarray, vid_names: Sequence[str]) -> list[SpanCurves]:
        """Start and end probabilities of a sentence, or of `of_picture`, over some videos; errors as of `search`."""
        if isinstance(asked, str):
            check_asked([asked])
        for name in vid_names:
            self._allowed(name, None)
        with self._lock:
            queries = self.encode([asked]) if isinstance(asked, str) else self.encode_features([asked])
            return self.answerer.curves_of(queries, vid_names)

    def encode(self, sentences: Sequence[str]) -> EncodedQueries:
        """Sentences as the model encodes them; a `QuestionError` where one has no words."""
        features = self._token_features(sentences) if self._ranks.is_main else []
        return self.encode_features(self._ranks.broadcast(features))

    def encode_features(self, features: Sequence[np.ndarray]) -> EncodedQueries:
        """Queries of (Lq, D) prepared token features each, as the model encodes them."""
        return _encoded(self._model, features, self._block, self.answerer.searcher.corpus.device)

    def find(
        self,
        queries: EncodedQueries,
        top_k: int,
        allowed: np.ndarray | None = None,
        with_parts: bool = False,
        nms_thd: float | None = None,
    ) -> list[Answer]:
        """The best moments for each encoded query: at most `top_k`, and without NMS as many as the answerer keeps.

        For `allowed` see `Answerer.search`, for `nms_thd` `search`. Only a process that searches alone knows what
        scores are made of.
        """
        thd, searcher = self._nms_thd if nms_thd is None else nms_thd, self.answerer.searcher
        # once, however many rows it takes
        given = None if searcher.index is None else searcher.shortlist(queries, allowed)
        proved: list[bool | None] = [None if given is None else False] * len(queries)
        if given is not None and given.looks is not None:
            self.proofs = (self.proofs or Proofs()).and_those(Proofs.of(given.looks))
            proved = (given.looks != UNPROVED).tolist()

        def rows_of(answerer: Answerer) -> RankedRows:
            answers = answerer.search(queries, allowed, with_parts, given)
            return RankedRows.concatenate([moments for moments, _ in answers])

        best = rows_of(self.answerer).best(top_k) if thd == OFF else _distinct(rows_of, self.answerer, thd, top_k)
        return [Answer(self._moments(best, row, queries, with_parts), known) for row, known in enumerate(proved)]

    def _moments(self, rows: RankedRows, number: int, queries: EncodedQueries, with_parts: bool) -> list[Moment]:
        match: dict[float, dict[str, float]] = {}
        moments = []
        for idx, start, end, score, *parts in rows.of_query(number, (*COLUMNS, *PARTS) if with_parts else COLUMNS):
            moment = Moment(self._name_of[int(idx)], start, end, score)
            if parts:
                entry, p_start, p_end = parts
                if entry not in match:
                    scores = self.answerer.searcher.match_scores(queries[number : number + 1], int(entry))[0].tolist()
                    match[entry] = dict(zip(self._model.modalities, scores, strict=True))
                moment = replace(moment, match=match[entry], p_start=p_start, p_end=p_end)
            moments.append(moment)
        return moments

    def _token_features(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """Features of each sentence as the model takes them."""
        assert self._text_model is not None
        limit = min(self._text_model.max_tokens, self._prepare.max_rows)
        for sentence, n_tokens in zip(sentences, self._text_model.n_tokens(sentences), strict=True):
            if n_tokens > limit:
                self.note(f"of its {n_tokens} tokens only the first {limit} are looked at: {shortened(sentence)}")
        features = self._text_model.encode(sentences)
        blank = [sentence for sentence, rows in zip(sentences, features, strict=True) if not len(rows)]
        if blank:
            raise QuestionError(f"{shortened(blank[0])!r} has no words that can be looked for: ask something else")
        return [self._prepare(rows) for rows in features]

    def _allowed(self, video: str | None, show: str | None) -> np.ndarray | None:
        if video is None and show is None:
            return None
        allowed = self.answerer.entries_of(
            lambda name: video in (None, name) and (show is None or name.startswith(f"{show}_"))
        )
        if not allowed.any():
            names = [one.vid_name for one in self.videos]
            if video is not None and video not in names:
                there = Names(names)
                if (known := there.known(video)) is not None:
                    return self._allowed(known, show)
                names = there.nearest(video) or names
            what = f"video {shortened(video)}" if video is not None else f"show {shortened(str(show))}"
            raise QuestionError(f"there is no {what} among the {len(self.videos)} videos: {first_few(names)}")
        return allowed


def _encoded(model: ReLoCLNet, features: Sequence[np.ndarray], block: int, device: torch.device) -> EncodedQueries:
    """Queries of (Lq, D) prepared token features each, `block` of them at a time."""
    blocks = (features[first : first + block] for first in range(0, len(features), block))
    return EncodedQueries.concatenate([encode_token_features(model, some, device) for some in blocks])


def _distinct(rows_of: Callable[[Answerer], RankedRows], answerer: Answerer, nms_thd: float, n: int) -> RankedRows:
    """The best `n` rows of each query after NMS, of as many rows as that takes."""
    while True:
        rows = rows_of(answerer)
        kept = rows.after_nms(nms_thd, rows.score.shape[1], n)
        if not ((kept.count < n) & (rows.count >= answerer.max_moments)).any():  # there are enough, or no more
            return kept
        answerer = answerer.keeping(MORE_ROWS * answerer.max_moments)


def open_searcher(opt: EasyDict, trained: TrainedModel | None = None) -> MomentSearcher:
    """The searcher that options describe; videos that are not encoded yet, or not as they are, are encoded first.

    Those in `encoded_corpus` have to be there as they are.

    Args:
        opt: from `parse_inference_options` for `SEARCH` or `SERVE`.
        trained: its model, if it is open already.

    Raises:
        InputError: something is missing or does not fit.
    """
    trained = trained or open_model(opt)
    text_model, folder = open_text_model(trained, opt.text_model), opt.encoded_corpus
    if folder is None:
        folder = str(trained.model_dir / f"encoded_{opt.eval_split_name}")
        add_videos(trained, folder, renew=not os.path.islink(folder), told=True)
    store, videos = trained.open_store(folder), trained.inputs.listed_videos()
    trained.require_encoded(store, videos)
    facts = trained.facts(videos, store)
    tell(facts)
    asked_before = partial(sample_queries, trained)
    index_of = None if opt.index == EXACT else lambda corpus: open_index(opt, store, videos, corpus, asked_before)
    opt.max_before_nms = max(opt.max_before_nms, opt.top_k)
    source, settings = encoded_before(store, trained.device), search_settings(opt)
    answerer = open_answerer(trained.model, videos, source, trained.inputs.clip_times, settings, index_of=index_of)
    nms_thd = programs_nms_thd(opt)
    pictures = open_picture_model(trained, text_model.name)
    return MomentSearcher(
        trained.model, answerer, videos, text_model, trained.inputs, nms_thd, facts=facts, picture_model=pictures
    )


def sample_queries(trained: TrainedModel) -> np.ndarray:
    """(n, M, D) some of the queries whose features the model has, as it encodes them; n is 0 where it has none."""
    path, keys = find_path(trained.inputs.desc_bert_path), list[str]()
    if path.is_file():
        with FeatureFile(path) as file:
            keys = [key for key in list(file.keys()) if key.isascii() and key.isdigit() and str(int(key)) == key]
    if not keys:  # of desc_ids
        return np.empty((0, len(trained.checkpoint.config.modalities), trained.checkpoint.config.hidden_size))
    with trained.open_features(with_context=False) as features:
        prepared = [features.query(int(key)) for key in keys[:: max(1, len(keys) // SAMPLED_QUERIES)]]
    return _encoded(trained.model, prepared, trained.inputs.eval_query_bsz, trained.device).for_videos.cpu().numpy()


def programs_nms_thd(opt: EasyDict) -> float:
    """The NMS of what programs are given: only that which was typed."""
    return OFF if opt.nms_thd is None else opt.nms_thd


def shown_nms_thd(opt: EasyDict) -> float:
    """The NMS of what people are shown."""
    return SHOWN_NMS_THD if opt.nms_thd is None else opt.nms_thd


def measure_index(opt: EasyDict) -> IndexRecall:
    """What the index finds of what an exact search finds, for the first `measure_index` queries of the split.

    An `InputError` if there is no index, or the queries or their features are missing.
    """
    if opt.index == EXACT:
        raise InputError("--measure_index: --index exact looks at everything: name another index")
    trained = open_model(opt)
    searcher = open_searcher(opt, trained)
    with trained.open_features(with_context=False) as features:
        queries = trained.inputs.eval_split(features).queries[: opt.measure_index]
        prepared = [features.query(query.desc_id) for query in queries]
    return index_recall(searcher.answerer.searcher, searcher.encode_features(prepared))
