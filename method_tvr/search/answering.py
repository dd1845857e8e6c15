"""Encoded queries -> rows in seconds: a corpus of videos, encoded or read from disk, opened to be asked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from method_tvr.dataset.annotations import Entry, Video
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.model import ReLoCLNet
from method_tvr.search.candidates import SearchIndex
from method_tvr.search.corpus import Corpus
from method_tvr.search.predictions import CorpusTimes, RankedRows
from method_tvr.search.records import EncodedQueries, SearchSettings, Shortlist
from method_tvr.search.retrieval import Searcher
from method_tvr.search.sharding import Shard
from method_tvr.search.windows import Windows, most_sharing
from utils.basic_utils import progress
from utils.ranks import ALONE, Ranks
from utils.tensor_utils import to_device, to_host


@dataclass(frozen=True)
class VideoSource:
    """Where the encoded videos of a search come from."""

    max_ctx_l: int  # most clips of an entry
    windows: Windows | None  # how longer videos are cut; None: they are averaged down
    clip_counts: Callable[[Sequence[str]], Sequence[int]]  # of videos by their names, before any are averaged or cut
    corpus_of: Callable[[Sequence[Entry]], Corpus]  # encodes entries, or has them read from disk


@dataclass(frozen=True)
class SpanCurves:
    """Where in a video a moment for a query may start and end, if it is in this video."""

    p_start: np.ndarray  # (L,) for each clip, the probability that the moment starts with it
    p_end: np.ndarray  # (L,) and that it ends there
    clip_length: float  # seconds
    end_offset: int  # clips from the start of a moment's last clip to its end


class Answerer:
    """Answers encoded queries over videos.

    Args:
        searcher: over a corpus with an entry for each of `entries`, which keeps moments enough for repeated ones.
        entries: videos, or all windows of a video one after another.
        times: of their clips, in the order of the entries.
        max_moments: rows of a query at most.
    """

    def __init__(self, searcher: Searcher, entries: Sequence[Entry], times: CorpusTimes, max_moments: int) -> None:
        self.searcher, self._times, self.max_moments = searcher, times, max_moments
        self._entries_of: dict[str, list[int]] = {}
        for number, entry in enumerate(entries):
            self._entries_of.setdefault(entry.vid_name, []).append(number)

    def search(
        self,
        queries: EncodedQueries,
        allowed: np.ndarray | None = None,
        with_parts: bool = False,
        given: Shortlist | None = None,
    ) -> Iterator[tuple[RankedRows, RankedRows]]:
        """Moments in all videos (VCMR), and videos (VR), for a block of queries at a time.

        Args:
            allowed: (Nv,) bool, entries to look at, see `entries_of`; None: all.
            with_parts: also say what the moments' scores are made of.
            given: see `Searcher.search`.
        """
        answers = self.searcher.search(queries, allowed, given)
        n_blocks = len(list(self.searcher.query_blocks(len(queries))))
        for moments, videos in progress(answers, "answering queries", total=n_blocks):
            yield self._times.moment_rows(moments, self.max_moments, with_parts), self._times.video_rows(videos)

    def keeping(self, max_moments: int) -> Answerer:
        """The same with so many rows of a query at most."""
        searcher, other = copy.copy(self.searcher), copy.copy(self)
        kept = searcher.settings.max_moments // self.max_moments * max_moments
        searcher.settings = replace(searcher.settings, max_moments=kept)
        other.searcher, other.max_moments = searcher, max_moments
        return other

    def entries_of(self, wanted: Callable[[str], bool]) -> np.ndarray:
        """(Nv,) bool: the entries of videos whose name is wanted."""
        found = np.zeros(sum(map(len, self._entries_of.values())), dtype=bool)
        for name, entries in self._entries_of.items():
            found[entries] = wanted(name)
        return found

    def curves_of(self, queries: EncodedQueries, vid_names: Sequence[str]) -> list[SpanCurves]:
        """Start and end probabilities of one query over each of some videos; where windows overlap, the highest."""
        if not vid_names:
            return []
        entries_of = [self._entries_of[name] for name in vid_names]
        flat = np.array([[entry for entries in entries_of for entry in entries]])
        there = to_device(flat, queries.for_videos.device)
        found = [of_query[0] for of_query in to_host(*self.searcher.span_probabilities(queries, there))]
        ends = np.cumsum([len(entries) for entries in entries_of])[:-1]
        by_video = zip(entries_of, *(np.split(part, ends) for part in found), strict=True)
        return [self._joined(*of_video) for of_video in by_video]

    def _joined(self, entries: Sequence[int], p_st: np.ndarray, p_ed: np.ndarray, n_clips: np.ndarray) -> SpanCurves:
        """The curves of a video from those of its entries, (V, L) each, which have `n_clips` (V,)."""
        first = np.zeros(len(entries), np.int64) if self._times.first_clip is None else self._times.first_clip[entries]
        curves = np.zeros((2, int((first + n_clips).max())), dtype=np.float32)
        for place, (begin, n) in enumerate(zip(first, n_clips, strict=True)):
            part = curves[:, begin : begin + n]
            np.maximum(part, (p_st[place, :n], p_ed[place, :n]), out=part)
        p_start, p_end = curves
        return SpanCurves(p_start, p_end, float(self._times.clip_length[entries[0]]), self._times.end_offset)

    def search_in(self, queries: EncodedQueries, vid_names: Sequence[str]) -> RankedRows:
        """Moments (SVMR) of each of Nq queries in the video that `vid_names` (Nq,) has for it."""
        first, n_entries = np.array([(own[0], len(own)) for own in map(self._entries_of.__getitem__, vid_names)]).T
        order, parts = np.lexsort((first, n_entries)), []  # queries about one video are multiplied with it together
        for block in progress(list(self._blocks(n_entries[order])), "answering queries in their own videos"):
            numbers, several = order[block], n_entries[order[block.start]] > 1
            own = np.array([self._entries_of[vid_names[number]] for number in numbers])
            there = to_device(own, queries.for_videos.device)
            moments = self.searcher.search_moments(queries.of(numbers), there, one_video=bool(several))
            parts.append(self._times.moment_rows(moments, self.max_moments))
        return RankedRows.concatenate(parts).of_queries(np.argsort(order))

    def _blocks(self, n_entries: np.ndarray) -> Iterator[slice]:
        """Slices of queries whose videos have equally many entries, the fewer queries the more entries these are."""
        edges = [0, *(np.flatnonzero(np.diff(n_entries)) + 1).tolist(), len(n_entries)]
        for first, last in pairwise(edges):
            size = max(1, self.searcher.settings.query_block // int(n_entries[first]))
            yield from (slice(at, min(at + size, last)) for at in range(first, last, size))


def open_answerer(
    model: ReLoCLNet,
    videos: Sequence[Video],
    source: VideoSource,
    times: ClipTimes,
    settings: SearchSettings,
    ranks: Ranks = ALONE,
    index_of: Callable[[Corpus], SearchIndex] | None = None,
) -> Answerer:
    """Encode videos, each process its share, or find them encoded, to be asked by all processes together.

    Args:
        model: whose encodings are compared.
        videos, source: what is searched, and where its encodings come from.
        ranks: the processes that search together.
        index_of: opens an index over the encoded videos, by way of which they are searched; not of windows, nor by
            several processes.
    """
    counts: Sequence[int] = ()
    if source.windows is not None or times.is_auto:
        counts = source.clip_counts([video.vid_name for video in videos])
    entries = list(map(Entry, videos)) if source.windows is None else source.windows.cut(videos, counts)
    shard = _shard(entries, ranks)
    own = entries[shard.start : shard.stop]
    if not own:  # a process without a share takes part like any, with a video that it has no say about
        own = [entry for entry in entries if entry.video == entries[0].video]
    corpus = source.corpus_of(own)
    searcher = Searcher(
        corpus,
        model.span_predictors,
        replace(settings, max_moments=settings.max_moments * most_sharing(entries)),  # of as many, so many may be one
        video_of_entry=np.array([entry.video.idx for entry in own]) if any(entry.clips for entry in entries) else None,
        index=None if index_of is None else index_of(corpus),
        shard=Shard(shard, ranks) if ranks.size > 1 else None,
    )
    clip_length = _clip_lengths(times, videos, counts, entries, None if source.windows else source.max_ctx_l)
    entry_times = CorpusTimes.of_entries(entries, clip_length, times.end_offset)
    return Answerer(searcher, entries, entry_times, settings.max_moments)


def _clip_lengths(
    times: ClipTimes, videos: Sequence[Video], counts: Sequence[int], entries: Sequence[Entry], most: int | None
) -> np.ndarray:
    """(Nv,) seconds of a clip of each entry; `counts` are the clips of each video, averaged down to `most`."""
    if not isinstance(times.clip_length, str):
        return np.full(len(entries), times.clip_length)
    seconds = {
        video.vid_name: times.seconds_per_clip(video.duration, n if most is None else min(n, most))
        for video, n in zip(videos, counts, strict=True)
    }
    return np.array([seconds[entry.vid_name] for entry in entries])


def _shard(entries: Sequence[Entry], ranks: Ranks) -> range:
    """This process's share of a corpus: all entries of a video or none."""
    starts = [number for number, entry in enumerate(entries) if entry.clips is None or entry.clips.start == 0]
    share = ranks.slice_of(len(entries))
    first, last = (int(np.searchsorted(starts, number)) for number in (share.start, share.stop))
    bounds = [*starts, len(entries)]
    return range(bounds[first], bounds[last])
