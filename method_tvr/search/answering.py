"""Encoded queries -> rows in seconds: a corpus of videos, encoded or read from disk, opened to be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from easydict import EasyDict

from method_tvr.dataset.annotations import Video
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.dataset.loading import BatchLoader
from method_tvr.model import ReLoCLNet
from method_tvr.search.corpus import Corpus
from method_tvr.search.corpus_store import CorpusStore
from method_tvr.search.encoding import encode_corpus
from method_tvr.search.index.candidates import CandidateIndex
from method_tvr.search.index.indexed_search import IndexedSearcher
from method_tvr.search.predictions import CorpusTimes, RankedRows
from method_tvr.search.retrieval import CorpusSearch, EncodedQueries, Moments, Searcher, SearchSettings
from method_tvr.search.sharding import ShardedSearcher
from method_tvr.search.stored_corpus import open_corpus
from method_tvr.search.windows import Windows, most_sharing
from method_tvr.start_end_dataset import StartEndEvalDataset
from utils.basic_utils import progress
from utils.ranks import ALONE, Ranks
from utils.tensor_utils import to_device, to_host

RETRIEVAL_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ScoreParts:
    """What the score of a moment is made of: exp(q2c_alpha * mean of `match`) * `p_start` * `p_end`.

    Attributes:
        match: for each modality, the cosine of the query and the clip of the video that is most like it.
        p_start, p_end: probability that a moment for this query starts and ends there, if it is in this video.
    """

    match: list[float]
    p_start: float
    p_end: float


@dataclass(frozen=True)
class SpanCurves:
    """Where in a video a moment for a query may start and end, if it is in this video.

    Attributes:
        p_start, p_end: (L,) for each clip, the probability that the moment starts with it, and that it ends there.
        clip_length: seconds.
        end_offset: clips from the start of a moment's last clip to its end.
    """

    p_start: np.ndarray
    p_end: np.ndarray
    clip_length: float
    end_offset: int


class Answerer:
    """Answers encoded queries over videos.

    Args:
        searcher: over a corpus with an entry for each of `entries`, which keeps moments enough for repeated ones.
        entries: videos, or all windows of a video one after another.
        times: of their clips, in the order of the entries.
        max_moments: rows of a query at most.
    """

    def __init__(self, searcher: CorpusSearch, entries: Sequence[Video], times: CorpusTimes, max_moments: int) -> None:
        self.searcher, self._max_moments = searcher, max_moments
        self._times = times
        self._entries_of: dict[str, list[int]] = {}
        for number, entry in enumerate(entries):
            self._entries_of.setdefault(entry.vid_name, []).append(number)

    def search(
        self, queries: EncodedQueries, allowed: np.ndarray | None = None
    ) -> Iterator[tuple[RankedRows, RankedRows]]:
        """Moments in all videos (VCMR), and videos (VR), for a block of queries at a time.

        Args:
            queries: Nq queries.
            allowed: (Nv,) bool, entries to look at, see `entries_of`; None: all.
        """
        blocks = list(self.searcher.query_blocks(len(queries)))
        answers = self.searcher.search_all(queries, allowed)
        for moments, videos in progress(answers, "answering queries", total=len(blocks)):
            yield self._rows(moments), self._times.video_rows(videos)

    def entries_of(self, wanted: Callable[[str], bool]) -> np.ndarray:
        """(Nv,) bool: the entries of videos whose name is wanted."""
        found = np.zeros(sum(map(len, self._entries_of.values())), dtype=bool)
        for name, entries in self._entries_of.items():
            found[entries] = wanted(name)
        return found

    def parts_of(self, queries: EncodedQueries, vid_names: Sequence[str], spans: np.ndarray) -> list[ScoreParts]:
        """What the scores of moments of one query are made of.

        Args:
            queries: the query.
            vid_names: (n,) the video of each moment.
            spans: (n, 2) their starts and ends in seconds, as the search found them.
        """
        assert isinstance(self.searcher, Searcher)
        of_video = self._span_probabilities(queries, vid_names)
        parts, match = [], {}
        for name, span in zip(vid_names, spans, strict=True):
            entries, (p_st, p_ed, n_clips) = self._entries_of[name], of_video[name]
            of_entries = []
            for place, entry in enumerate(entries):
                st, ed = self._times.clips_of(entry, span)
                if st >= 0 and ed < n_clips[place]:
                    of_entries.append((entry, float(p_st[place, st]), float(p_ed[place, ed])))
            entry, start, end = max(of_entries, key=lambda found: found[1] * found[2])
            if entry not in match:
                match[entry] = self.searcher.match_scores(queries, entry)[0].tolist()
            parts.append(ScoreParts(match[entry], start, end))
        return parts

    def curves_of(self, queries: EncodedQueries, vid_names: Sequence[str]) -> list[SpanCurves]:
        """Start and end probabilities of one query over each of some videos; where windows overlap, the highest."""
        of_video = self._span_probabilities(queries, vid_names)
        return [self._joined(self._entries_of[name], *of_video[name]) for name in vid_names]

    def _joined(self, entries: Sequence[int], p_st: np.ndarray, p_ed: np.ndarray, n_clips: np.ndarray) -> SpanCurves:
        first = np.zeros(len(entries), np.int64) if self._times.first_clip is None else self._times.first_clip[entries]
        curves = np.zeros((2, int((first + n_clips).max())), dtype=np.float32)
        for place, (begin, n) in enumerate(zip(first, n_clips, strict=True)):
            part = curves[:, begin : begin + n]
            np.maximum(part, (p_st[place, :n], p_ed[place, :n]), out=part)
        p_start, p_end = curves
        return SpanCurves(p_start, p_end, float(self._times.clip_length[entries[0]]), self._times.end_offset)

    def _span_probabilities(
        self, queries: EncodedQueries, vid_names: Sequence[str]
    ) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """{vid_name: P_st and P_ed (V, L) of one query over the video's entries, and their numbers of clips (V,)}."""
        assert isinstance(self.searcher, Searcher)
        names = list(dict.fromkeys(vid_names))
        if not names:
            return {}
        ends = np.cumsum([len(self._entries_of[name]) for name in names])[:-1]
        entries = np.array([[entry for name in names for entry in self._entries_of[name]]])
        own = to_device(entries, queries.video.device)
        found = [of_query[0] for of_query in to_host(*self.searcher.span_probabilities(queries, own))]
        by_name = zip(*(np.split(part, ends) for part in found), strict=True)
        return dict(zip(names, by_name, strict=True))

    def search_in(self, queries: EncodedQueries, vid_names: Sequence[str]) -> RankedRows:
        """Moments in one video for each query (SVMR).

        Args:
            queries: Nq queries.
            vid_names: (Nq,) the video of each.
        """
        n_entries = np.array([len(self._entries_of[name]) for name in vid_names])
        order, parts = np.argsort(n_entries, kind="stable"), []
        for block in progress(list(self._blocks(n_entries[order])), "answering queries in their own videos"):
            numbers, several = order[block], n_entries[order[block.start]] > 1
            own = np.array([self._entries_of[vid_names[number]] for number in numbers])
            there = to_device(own, queries.video.device)
            parts.append(self._rows(self.searcher.search_moments(queries.of(numbers), there, one_video=bool(several))))
        return RankedRows.concatenate(parts).of_queries(np.argsort(order))

    def _rows(self, moments: Moments) -> RankedRows:
        return self._times.moment_rows(moments, self._max_moments)

    def _blocks(self, n_entries: np.ndarray) -> Iterator[slice]:
        """Slices of queries whose videos have equally many entries, the fewer queries the more entries these are."""
        edges = [0, *(np.flatnonzero(np.diff(n_entries)) + 1).tolist(), len(n_entries)]
        for first, last in pairwise(edges):
            size = max(1, self.searcher.settings.query_block // int(n_entries[first]))
            yield from (slice(at, min(at + size, last)) for at in range(first, last, size))


def search_settings(opt: EasyDict) -> SearchSettings:
    """What the options say about the search."""
    min_pred_l, max_pred_l = ClipTimes.of(opt).band(opt.min_pred_l, opt.max_pred_l)
    return SearchSettings(
        q2c_alpha=opt.q2c_alpha,
        max_vcmr_video=opt.max_vcmr_video,
        max_moments=opt.max_before_nms,
        min_pred_l=min_pred_l,
        max_pred_l=max_pred_l,
        query_block=opt.retrieval_bsz,
    )


def open_answerer(
    model: ReLoCLNet,
    videos: Sequence[Video],
    features: FeatureStore | None,
    opt: EasyDict,
    device: torch.device,
    store: CorpusStore | None = None,
    windows: Windows | None = None,
    ranks: Ranks = ALONE,
    index_of: Callable[[Corpus], CandidateIndex] | None = None,
) -> Answerer:
    """Encode videos, each process its share, or find them encoded, to be asked by all processes together.

    Args:
        model: in evaluation mode, on `device`.
        videos: what is searched.
        features: of the videos; may be None with a `store`.
        opt: search and loading options.
        device: where encodings are compared.
        store: has the videos encoded already; their features are not looked at then.
        windows: how long videos are cut; None averages them down.
        ranks: the processes that search together.
        index_of: opens an index over the encoded videos, by way of which they are searched; not of windows, nor by
            several processes.
    """
    source = features if store is None else store
    assert source is not None
    times = ClipTimes.of(opt)
    counts: Sequence[int] = ()
    if windows is not None or times.is_auto:
        counts = source.clip_counts([video.vid_name for video in videos])
    entries = list(videos) if windows is None else windows.cut(videos, counts)
    shard = _shard(entries, ranks)
    own = entries[shard.start : shard.stop]
    if not own:  # a process without a share takes part like any, with a video that it has no say about
        own = [entry for entry in entries if entry.idx == entries[0].idx]
    corpus: Corpus
    if store is not None:
        corpus = open_corpus(store, list(dict.fromkeys(entry.vid_name for entry in own)), device)
    else:
        assert features is not None
        dataset = StartEndEvalDataset([], own, features, "context")
        batches = progress(BatchLoader(dataset, opt.eval_context_bsz, opt.trim_padding), "encoding videos")
        corpus = encode_corpus(model, batches, device, opt.trim_padding, RETRIEVAL_DTYPES[opt.retrieval_dtype])
    repeated = most_sharing(entries)  # of as many moments, so many may be one
    settings = replace(search_settings(opt), max_moments=opt.max_before_nms * repeated)
    kernels = model.merged_st_predictor.weight, model.merged_ed_predictor.weight
    video_of_entry = np.array([entry.idx for entry in own]) if any(entry.clips for entry in entries) else None
    searcher: CorpusSearch
    if index_of is None:
        searcher = Searcher(corpus, *kernels, settings, video_of_entry)
    else:
        searcher = IndexedSearcher(corpus, *kernels, settings, index_of(corpus))
    if ranks.size > 1:
        searcher = ShardedSearcher(searcher, shard, ranks)
    clip_length = _clip_lengths(times, videos, counts, entries, None if windows else opt.max_ctx_l)
    return Answerer(
        searcher, entries, CorpusTimes.of_entries(entries, clip_length, times.end_offset), opt.max_before_nms
    )


def _clip_lengths(
    times: ClipTimes, videos: Sequence[Video], counts: Sequence[int], entries: Sequence[Video], most: int | None
) -> np.ndarray:
    """(Nv,) seconds of a clip of each entry; `counts` are the clips of each video, averaged down to `most`."""
    if not isinstance(times.clip_length, str):
        return np.full(len(entries), times.clip_length)
    seconds = {
        video.vid_name: times.seconds_per_clip(video.duration, n if most is None else min(n, most))
        for video, n in zip(videos, counts, strict=True)
    }
    return np.array([seconds[entry.vid_name] for entry in entries])


def _shard(entries: Sequence[Video], ranks: Ranks) -> range:
    """This process's share of a corpus: all entries of a video or none."""
    starts = [number for number, entry in enumerate(entries) if entry.clips is None or entry.clips.start == 0]
    share = ranks.slice_of(len(entries))
    first, last = (int(np.searchsorted(starts, number)) for number in (share.start, share.stop))
    bounds = [*starts, len(entries)]
    return range(bounds[first], bounds[last])
