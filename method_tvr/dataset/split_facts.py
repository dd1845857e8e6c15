"""What is wrong with a split before anything is computed: moments, videos and times that no prediction can get right.

Facts follow from annotations, durations, numbers of rows and options alone; each is one line. Nothing is said of a
split that has nothing wrong with it.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from method_tvr.dataset.annotations import Query, Video
from method_tvr.dataset.clip_times import BEST_IOU, CUT, ClipTimes
from standalone_eval.metrics import moment_iou
from utils.basic_utils import InputError, first_few
from utils.own_corpus.subtitle_queries import NOT_WRITTEN

# Shares of moments out of reach, at the lowest IoU of recalls and at the highest, up to which nothing is said: those of
# TVR's own with TVR's options are below (val: 7 % at IoU 0.5, 20 % at 0.7; many are shorter than any span).
REACH_FLOOR = (0.1, 0.25)
GAIN = 0.01  # of moments: what an option has to bring within reach to be named, and the longest it may leave out
# Rows of features apart from what a duration asks for. Up to so many nothing is said: a last clip that is cut short or
# left out, a video that ends before its sound. Beyond the share of what is expected, features and durations are not of
# the same videos or not of this clip length, and all times would be wrong.
REPEATED_SHARE = 0.05  # of queries that R@1 cannot reach for their sentences, to be said
ROWS_APART = 2
ROWS_APART_SHARE = 0.1


class Fact(NamedTuple):
    """Something wrong, and what to do about it."""

    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"


def tell(facts: Iterable[Fact]) -> None:
    """Say facts on stderr."""
    for fact in facts:
        print(f"note: {fact}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Reach:
    """Which spans can be predicted: the options of these names."""

    clip_length: float | str
    label_rule: str
    min_pred_l: int
    max_pred_l: int
    max_ctx_l: int
    iou_thds: Sequence[float]
    windows: bool = False  # longer videos than max_ctx_l are cut into windows, rather than averaged down
    cut: bool = False  # or cut off

    @classmethod
    def of(cls, options: Mapping[str, Any], windows: bool = False) -> Reach:
        """As options say, of which the others are not looked at."""
        names = ("clip_length", "label_rule", "min_pred_l", "max_pred_l", "max_ctx_l", "iou_thds")
        return cls(**{name: options[name] for name in names}, windows=windows, cut=options.get("long_videos") == CUT)

    @property
    def times(self) -> ClipTimes:
        """The clips of videos, in seconds."""
        return ClipTimes(self.clip_length, self.label_rule)

    @property
    def band(self) -> tuple[int, int]:
        """Limits on (last clip - first clip) of a span: low <= n < high."""
        return self.times.band(self.min_pred_l, self.max_pred_l)

    def seen(self, n_clips: int) -> int:
        """Clips of a video that spans are looked for in, where its times are right.

        Averaged clips of one length each have wrong times, which is a fact of its own: here they count as not averaged.
        """
        return min(n_clips, self.max_ctx_l) if self.cut or (self.times.is_auto and not self.windows) else n_clips

    def before_averaging(self, n_clips: int, duration: float) -> int:
        """How many clips a video of some seconds had that has `n_clips` in an encoded corpus."""
        if isinstance(self.clip_length, str) or self.windows or n_clips < self.max_ctx_l:
            return n_clips
        lasted = duration / self.clip_length
        return math.ceil(lasted) if math.floor(lasted) > n_clips else n_clips  # a part of one may have been none


@dataclass(frozen=True)
class Split:
    """What of a split is read."""

    name: str  # that messages call it by
    queries: Sequence[Query]  # none where sentences are asked
    durations: Mapping[str, float]  # {vid_name: seconds}
    n_clips: Mapping[str, int]  # {vid_name: rows of its features}
    judged: bool = True  # whether answers to its queries are; not those that are trained on

    @classmethod
    def of(cls, name: str, videos: Sequence[Video], n_clips: Sequence[int], queries: Sequence[Query] = ()) -> Split:
        """Of videos with their numbers of rows, and of queries about them."""
        durations = {video.vid_name: video.duration for video in videos}
        return cls(name, queries, durations, dict(zip(durations, n_clips, strict=True)))

    @classmethod
    def asked(cls, name: str, queries: Sequence[Query], clip_counts: Callable[[Sequence[str]], Sequence[int]]) -> Split:
        """Of queries with moments, and of their videos alone; `clip_counts` are those of videos by their names."""
        durations = {query.vid_name: query.duration for query in queries if query.vid_name and query.duration}
        counts = dict(zip(durations, clip_counts(list(durations)), strict=True))
        return cls(name, queries, durations, counts, judged=False)

    def moments(self, reach: Reach) -> Moments:
        """The annotated moments, with the clips that spans for them are made of."""
        of_each = [(str(query.vid_name), span) for query in self.queries for span in query.annotated]
        known = [(name, span) for name, span in of_each if name in self.n_clips]  # in `check`, features may be missing
        n_clips = [reach.seen(self.n_clips[name]) for name, _ in known]
        lengths = [
            reach.times.seconds_per_clip(self.durations[name], n) for (name, _), n in zip(known, n_clips, strict=True)
        ]
        spans = np.array([span for _, span in known], dtype=np.float64).reshape(-1, 2)
        return Moments(spans, np.array(lengths, dtype=np.float64), np.array(n_clips, dtype=np.int64))


class Moments(NamedTuple):
    """Q annotated moments."""

    spans: np.ndarray  # (Q, 2) seconds
    seconds: np.ndarray  # (Q,) of a clip of its video
    n_clips: np.ndarray  # (Q,) of its video

    @classmethod
    def joined(cls, parts: Sequence[Moments]) -> Moments:
        """Those of several splits."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def facts(splits: Sequence[Split], reach: Reach) -> list[Fact]:
    """What is wrong with splits that are read together: moments out of reach, videos too long, videos too short."""
    found = [spans_out_of_reach(splits, reach), videos_averaged(splits, reach), videos_too_short(splits, reach)]
    return [fact for fact in [not_written(splits), *found, *map(repeated_sentences, splits)] if fact is not None]


# ------------------------------------------------------------------------------------------------- spans out of reach


def best_ious(moments: Moments, low: int, high: int, end_offset: int) -> np.ndarray:
    """(Q,) float32: the best IoU with each moment of any span (i, j), low <= j - i < high, within its video.

    The IoU of spans of one length falls with their distance from the moment, and that of the best of each length with
    how far the length is from the moment's own: of both, the whole numbers next to the best are enough.
    """
    start, end = (moments.spans / moments.seconds[:, None]).T
    limit = moments.n_clips - 1 + end_offset  # clips from the start of the video to the last end of a span
    shortest, longest = low + end_offset, np.minimum(high - 1 + end_offset, limit)
    possible = longest >= shortest
    fitting = np.floor(np.minimum(end, limit)) - np.ceil(start)
    longest = np.maximum(longest, shortest)[:, None]
    lengths = np.clip(fitting[:, None] + np.arange(3), shortest, longest)[:, :, None]  # (Q, 3, 1)
    from_start = np.stack([np.floor(start), np.ceil(start)], axis=1)[:, None]  # (Q, 1, 2)
    from_end = np.stack([np.floor(end), np.ceil(end)], axis=1)[:, None] - lengths  # (Q, 3, 2)
    starts = np.concatenate([np.broadcast_to(from_start, from_end.shape), from_end], axis=2)  # (Q, 3, 4)
    starts = np.clip(starts, 0, np.maximum(limit[:, None, None] - lengths, 0))
    spans = np.stack([starts, starts + lengths], axis=-1) * moments.seconds[:, None, None, None]
    best = moment_iou(spans, moments.spans[:, None, None]).max(axis=(1, 2), initial=0)
    return np.where(possible, best, np.float32(0))


def shares_out_of_reach(moments: Moments, reach: Reach) -> np.ndarray:
    """(T,) share of the moments that no span can be right for at each of the IoUs of recalls."""
    best = best_ious(moments, *reach.band, reach.times.end_offset)
    return np.array([(best < np.float32(thd)).mean() for thd in reach.iou_thds])


def spans_out_of_reach(splits: Sequence[Split], reach: Reach) -> Fact | None:
    """The share of annotated moments that no span can be right for, and the options that mend it."""
    of_splits = [(split.name, moments) for split in splits if len((moments := split.moments(reach)).spans)]
    reach = replace(reach, iou_thds=sorted(reach.iou_thds))
    shares = [(name, shares_out_of_reach(moments, reach)) for name, moments in of_splits]
    if all(_few(of_split) for _, of_split in shares):
        return None
    told = "; ".join(f"{_shown(of_split, reach)} ({name})" for name, of_split in shares)
    low, high = (n + reach.times.end_offset for n in reach.band)
    clips = "clips" if isinstance(reach.clip_length, str) else f"clips of {reach.clip_length:g} s"
    lengths = f"predicted spans have {low} to {high - 1} {clips}" + (
        "" if reach.times.end_offset else ", and none reaches its video's end"
    )
    everything = Moments.joined([moments for _, moments in of_splits])
    return Fact(f"annotated moments that no prediction can be right for: {told}: {lengths}", _mended(everything, reach))


def _few(shares: np.ndarray) -> bool:
    return bool(shares[0] <= REACH_FLOOR[0] and shares[-1] <= REACH_FLOOR[1])


def _shown(shares: np.ndarray, reach: Reach) -> str:
    listed = (f"{100 * share:.1f} % at IoU {thd:g}" for share, thd in zip(shares, reach.iou_thds, strict=True))
    return ", ".join(listed)


def _mended(moments: Moments, reach: Reach) -> str:
    """The options that bring moments within reach, one after another, and what they leave out of it."""
    left, words = shares_out_of_reach(moments, reach), []
    remedies: dict[str, Any] = {
        "max_pred_l": _longest_needed(moments, reach),
        "min_pred_l": min(1, reach.min_pred_l),
        "label_rule": BEST_IOU,
    }
    for name, value in remedies.items():
        changed = replace(reach, **{name: value})
        shares = shares_out_of_reach(moments, changed)
        if (left - shares).max() > GAIN:
            reach, left = changed, shares
            words.append(f"--{name} {value}")
    shorter = "features of shorter clips (--clip_length) bring them within reach"
    if not words:
        return shorter
    told = f"{' '.join(words)} leave{'s' if len(words) == 1 else ''} {_shown(left, reach)}"
    return told if _few(left) else f"{told}; {shorter}"


def _longest_needed(moments: Moments, reach: Reach) -> int:
    """The --max_pred_l by which spans are as long as the moments, but for the few longest."""
    start, end = (moments.spans / moments.seconds[:, None]).T
    lengths = np.minimum(np.ceil(end) - np.floor(start), moments.n_clips)
    return max(reach.max_pred_l, int(np.quantile(lengths, 1 - GAIN, method="higher")) + 1)


# ------------------------------------------------------------------------------------------------- lengths of videos


def videos_averaged(splits: Sequence[Split], reach: Reach) -> Fact | None:
    """Videos of more clips than the model takes, whose times come out wrong."""
    if isinstance(reach.clip_length, str) or reach.windows:
        return None
    counts = {name: n for split in splits for name, n in split.n_clips.items()}
    long = [name for name, n in counts.items() if n > reach.max_ctx_l]
    if not long:
        return None
    last = (reach.max_ctx_l - 1 + reach.times.end_offset) * reach.clip_length
    annotated = [(query.vid_name, span) for split in splits for query in split.queries for span in query.annotated]
    too_late, averaged = 0, set(long)
    for name, (start, _) in annotated:
        too_late += name in averaged and start >= last
    late = f"{too_late} of {len(annotated)} moments begin after {last:g} s, the last that can be predicted"
    what = "are cut off after these" if reach.cut else "are averaged down to so many, so that their times are wrong"
    return Fact(
        f"{len(long)} of {len(counts)} videos have more than --max_ctx_l {reach.max_ctx_l} clips and "
        f"{what}{'; ' + late if too_late else ''}: {first_few(long)}",
        "predict, encode and search with --long_videos windows (method_tvr/search/README.md#long-videos), or train "
        f"with --max_ctx_l {max(counts.values())} or, where rows are spread evenly over each video, --clip_length auto",
    )


def videos_too_short(splits: Sequence[Split], reach: Reach) -> Fact | None:
    """Videos that have not the clips of any span, and are never found."""
    low, _ = reach.band
    counts = {name: min(n, reach.max_ctx_l) for split in splits for name, n in split.n_clips.items()}
    short = [name for name, n in counts.items() if n <= low]
    if not short:
        return None
    seconds = "" if isinstance(reach.clip_length, str) else f", more than {low * reach.clip_length:g} s"
    remedies = []
    with_one, _ = replace(reach, min_pred_l=1).band
    if any(counts[name] > with_one for name in short):
        remedies.append("give --min_pred_l 1")
    if any(counts[name] <= with_one for name in short):
        remedies.append(f"train with --label_rule {BEST_IOU} --min_pred_l 1, by which a single clip is enough")
    return Fact(
        f"{len(short)} of {len(counts)} videos are too short to be found: a span takes {low + 1} clips{seconds}: "
        f"{first_few(short)}",
        ", or ".join(remedies),
    )


# ------------------------------------------------------------------------------------------------- sentences


def not_written(splits: Sequence[Split]) -> Fact | None:
    """Queries that are subtitle lines."""
    counts = {split.name: sum(query.from_subtitles for query in split.queries) for split in splits}
    told = [f"{counts[split.name]} of {len(split.queries)} of {split.name}" for split in splits if counts[split.name]]
    if not told:
        return None
    return Fact(
        f"{NOT_WRITTEN} ({', '.join(told)})",
        "recalls on lines say how well what is said is found; add sentences of people to know how well they find",
    )


def repeated_sentences(split: Split) -> Fact | None:
    """Queries in the same words about several videos, of which each has but one right one, if they are many."""
    videos_of: dict[str, Counter[str]] = {}
    for query in split.queries if split.judged else ():
        if query.vid_name:
            videos_of.setdefault(" ".join(query.desc.lower().split()), Counter())[query.vid_name] += 1
    n = sum(counts.total() for counts in videos_of.values())
    reachable = sum(max(counts.values()) for counts in videos_of.values())
    if not n or reachable >= (1 - REPEATED_SHARE) * n:
        return None
    several = [sentence for sentence, counts in videos_of.items() if len(counts) > 1]
    return Fact(
        f"{len(several)} of {len(videos_of)} sentences of {split.name} are asked about several videos, each time with "
        f"another one as the right one, so that R@1 of VCMR and VR is at most {100 * reachable / n:.2f}: "
        f"{first_few(several, 2)}",
        "take SVMR or R@10 for a measure, or sentences that tell their video from others",
    )


# ------------------------------------------------------------------------------------------------- rows and durations


def rows_apart(n_rows: int, expected: int, spread: bool) -> int:
    """Rows too many or too few; where rows are spread evenly over each video, whatever their number, only too many."""
    return max(n_rows - expected, 0) if spread else abs(n_rows - expected)


def far_apart(apart: int, expected: int) -> bool:
    """Whether so many rows too many or too few are not of the video that has the duration."""
    return apart > max(ROWS_APART, ROWS_APART_SHARE * expected)


def check_durations(split: Split, seconds: float | None, spread: bool, path: str) -> Fact | None:
    """Compare rows with durations: refuse what cannot be, return what is odd.

    Args:
        seconds: of a row; None where it is not known, and nothing can be compared.
        spread: rows are spread evenly over each video, as for `AUTO`.
        path: of the features.

    Raises:
        InputError: rows and durations of a video are far apart.
    """
    if seconds is None:
        return None
    expected = {name: math.ceil(split.durations[name] / seconds) for name in split.n_clips}
    apart = {name: rows_apart(n, expected[name], spread) for name, n in split.n_clips.items()}
    odd = [name for name, rows in apart.items() if rows > ROWS_APART]
    far = [name for name in odd if far_apart(apart[name], expected[name])]
    shown = first_few(
        [
            f"{name} ({split.n_clips[name]} rows of {seconds:g} s, but lasts {split.durations[name]:g} s)"
            for name in far or odd
        ]
    )
    if far:
        raise InputError(
            f"{path}: does not fit the durations of {len(far)} of {len(expected)} videos ({split.name}), so that times "
            f"would be wrong: {shown}: mend the durations, or give features of these videos and their --clip_length"
        )
    if not odd:
        return None
    return Fact(
        f"{path}: is {ROWS_APART + 1} rows or more off the durations of {len(odd)} of {len(expected)} videos "
        f"({split.name}): {shown}",
        "their times may be slightly off",
    )
