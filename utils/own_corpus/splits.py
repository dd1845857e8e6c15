"""Which videos and queries of a new dataset are for training, which for evaluation, and which are only searched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from utils.own_corpus.layout import ALL, LEARNT, TEST, TRAIN, VAL
from utils.own_corpus.queries import Query


@dataclass(frozen=True)
class Split:
    """Videos to search in, by name and sorted, and queries, in the order they were given in."""

    videos: list[str]
    queries: list[Query]


def divide(queries: Sequence[Query], videos: Iterable[str], val_share: float) -> dict[str, Split]:
    """Put queries and videos into splits.

    A query is in the split that it names. Others with times go where their video goes, to train or val, by the video's
    name alone: in all but the smallest datasets it stays where it is when others are added. About `val_share` of those
    videos go to val. Others without times are all in test_public, and look in all videos. The last split, `all`, has
    every video and no query.
    """
    names = sorted(videos)
    undecided = sorted({q.vid_name for q in queries if q.split is None and q.ts is not None and q.vid_name})
    val = val_videos(undecided, val_share)
    of_split: dict[str, list[Query]] = {}
    for query in queries:
        automatic = TEST if query.ts is None else VAL if query.vid_name in val else TRAIN
        of_split.setdefault(query.split or automatic, []).append(query)
    order = [split for split in LEARNT if split in of_split]
    order += sorted(of_split.keys() - set(order))
    return {split: Split(_videos_of(of_split[split], names), of_split[split]) for split in order} | {
        ALL: Split(names, [])
    }


def val_videos(names: Sequence[str], share: float) -> set[str]:
    """About `share` of the names, chosen by each name alone, but at least one and not all where there are two."""
    if len(names) < 2 or share == 0:
        return set()
    place = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names}
    ordered = sorted(names, key=place.__getitem__)
    chosen = [name for name in ordered if place[name] < share]
    return set((chosen or ordered)[: max(1, min(len(chosen), len(names) - 1))])


def _videos_of(queries: Sequence[Query], names: list[str]) -> list[str]:
    """The videos that a split's queries name; all where one names none, or nobody has said what the split is."""
    if any(query.vid_name is None or (query.split is None and query.ts is None) for query in queries):
        return names
    return sorted({query.vid_name for query in queries if query.vid_name})


def in_both(splits: dict[str, Split]) -> list[str]:
    """Videos both trained on and evaluated on, which makes the evaluation look better than it is."""
    return sorted(set.intersection(*(set(splits[name].videos if name in splits else ()) for name in LEARNT)))
