"""The best entries of a corpus that goes by block after block, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class BestEntries:
    """The best entries for a block of queries, while a corpus goes by.

    Args:
        keep: how many.
        video_of_entry: (Nv,) int64; of the entries of one video only the best is kept. None keeps any.
        n_videos: how many videos the entries that will be added are of, by default as many as there are.
    """

    def __init__(self, keep: int, video_of_entry: torch.Tensor | None = None, n_videos: int | None = None) -> None:
        if video_of_entry is not None:
            keep = min(keep, len(video_of_entry.unique()) if n_videos is None else n_videos)
        self._keep = keep
        self._video_of_entry = video_of_entry
        self._entries: list[torch.Tensor] = []
        self._scores: list[torch.Tensor] = []
        self._waiting = 0

    def add(self, entries: torch.Tensor, scores: torch.Tensor) -> None:
        """More entries (n,) and their scores (n, Nq)."""
        self._entries.append(entries.expand(scores.shape[1], -1))
        self._scores.append(scores.t())
        self._waiting += len(entries)
        if self._waiting > 32 * self._keep:  # keeps memory independent of the size of the corpus
            self._drop_others()

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Entries (Nq, V) and scores (Nq, V), best first, V <= keep."""
        self._drop_others()
        return self._entries[0], self._scores[0]

    def _drop_others(self) -> None:
        entries, scores = torch.cat(self._entries, dim=1), torch.cat(self._scores, dim=1)
        keep = min(self._keep, entries.shape[1])
        if self._video_of_entry is not None:  # what is out of the running is dropped when there are enough videos
            entries, scores = _best_of_each(entries, scores, self._video_of_entry[entries])
        best_scores, best = scores.topk(keep, dim=1)
        self._entries = [entries.gather(1, best)]
        self._scores = [best_scores]
        self._waiting = keep


def _best_of_each(
    entries: torch.Tensor, scores: torch.Tensor, videos: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All but the best entry of each video put out of the running.

    Args:
        entries, scores, videos: (Nq, n), in any order.

    Returns:
        Entries and scores in another order, scores -inf where there is a better entry.
    """
    in_order = scores.argsort(dim=1, descending=True, stable=True)
    in_order = in_order.gather(1, videos.gather(1, in_order).argsort(dim=1, stable=True))
    videos = videos.gather(1, in_order)
    repeated = videos[:, 1:] == videos[:, :-1]
    scores = scores.gather(1, in_order)
    scores[:, 1:].masked_fill_(repeated, -torch.inf)
    return entries.gather(1, in_order), scores


def concatenated(found: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """What several blocks of queries found."""
    return torch.cat([entries for entries, _ in found]), torch.cat([scores for _, scores in found])
