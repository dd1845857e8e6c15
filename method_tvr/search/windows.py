"""Long videos as overlapping windows, each of them an entry of the corpus that is searched as a video of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from method_tvr.dataset.annotations import Entry, Video
from utils.basic_utils import InputError


@dataclass(frozen=True)
class Windows:
    """How videos are cut that have more clips than the model takes."""

    size: int  # clips of a window, the most that the model takes
    overlap: int  # clips that windows next to each other share, or more

    @classmethod
    def for_spans(cls, size: int, max_pred_l: int, kernel_size: int) -> Windows:
        """Windows of which one holds each allowed span, with what predictors of a kernel size see around it.

        Spans are shorter than `max_pred_l` clips from boundary to boundary; an InputError says if they do not fit.
        """
        around = kernel_size // 2 * 2
        windows = cls(size, max(1, max_pred_l - 1 + around))
        if windows.step < 1:
            raise InputError(
                f"--max_pred_l {max_pred_l}: such spans do not fit into windows of --max_ctx_l {size} clips: give at "
                f"most {size - around}, or leave --long_videos out"
            )
        return windows

    @property
    def step(self) -> int:
        """The most clips from the start of a window to that of the next."""
        return self.size - self.overlap

    def count(self, n_clips: int) -> int:
        """How many windows a video of `n_clips` has; 1 for one that needs none."""
        return 1 if n_clips <= self.size else 1 - (self.size - n_clips) // self.step

    def of(self, n_clips: int) -> list[range]:
        """The clips of each window of a video, evenly spread: all of one size, the last one ends with the video."""
        last = self.count(n_clips) - 1
        if not last:
            return [range(n_clips)]
        starts = [number * (n_clips - self.size) // last for number in range(last + 1)]
        return [range(start, start + self.size) for start in starts]

    def cut(self, videos: Sequence[Video], n_clips: Sequence[int]) -> list[Entry]:
        """The entries of a corpus: videos as they are, and in the place of each long one its windows."""
        entries = []
        for video, n in zip(videos, n_clips, strict=True):
            entries += [Entry(video)] if n <= self.size else [Entry(video, clips) for clips in self.of(n)]
        return entries


def most_sharing(entries: Sequence[Entry]) -> int:
    """The most entries that one clip is in."""
    starts: dict[str, list[int]] = {}
    size = 0
    for entry in entries:
        if entry.clips:
            starts.setdefault(entry.vid_name, []).append(entry.clips.start)
            size = len(entry.clips)
    of_each = map(np.array, starts.values())
    return max((int((np.searchsorted(of, of + size) - np.arange(len(of))).max()) for of in of_each), default=1)


def joined(
    entries: Sequence[Entry], encoded: Iterable[tuple[int, torch.Tensor]]
) -> Iterator[tuple[Video, int, torch.Tensor]]:
    """Each video, its number of clips, and the rows of its windows one after another.

    Args:
        entries: as `Windows.cut` gives them.
        encoded: of each entry, its number of clips and its rows (R, M, D).
    """
    rows: list[torch.Tensor] = []
    for number, (entry, (n_clips, of_entry)) in enumerate(zip(entries, encoded, strict=True)):
        if entry.clips is None:
            yield entry.video, n_clips, of_entry
            continue
        rows.append(of_entry)
        if number + 1 == len(entries) or entries[number + 1].vid_name != entry.vid_name:
            whole, rows = torch.cat(rows), []
            yield entry.video, entry.clips.stop, whole
