"""What the HTTP API and the page share: a searcher, the videos' files, and the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from easydict import EasyDict

from method_tvr.annotations import Video
from method_tvr.searcher import MomentSearcher, open_searcher
from method_tvr.web.batching import BatchedSearcher
from method_tvr.web.limits import BURST_S, Limits
from method_tvr.web.media import MediaFiles


@dataclass(frozen=True)
class Service:
    """A model that is served.

    Attributes:
        searcher: finds moments, and says how it came to them.
        batched: the same, for many at once.
        media: files of the videos.
        limits: of requests.
        model_dir: the model's results folder.
        opt: all options.
    """

    searcher: MomentSearcher
    batched: BatchedSearcher
    media: MediaFiles
    limits: Limits
    model_dir: Path
    opt: EasyDict

    @property
    def videos(self) -> Sequence[Video]:
        """What is searched."""
        return self.searcher.videos

    def close(self) -> None:
        """End the threads."""
        self.batched.close()


def open_service(opt: EasyDict) -> Service:
    """The service that options describe.

    Args:
        opt: from `parse_serve_options`.

    Raises:
        InputError: something is missing or does not fit.
    """
    limits = Limits(rate=opt.max_rate, burst=max(1.0, BURST_S * opt.max_rate), max_queue=opt.max_queue)
    opt.max_before_nms = max(opt.max_before_nms, limits.max_top_k)
    searcher = open_searcher(opt)
    names = [video.vid_name for video in searcher.videos]
    media = MediaFiles.in_folder(opt.videos, names) if opt.videos is not None else MediaFiles({})
    batched = BatchedSearcher(searcher, limits.max_queue)
    return Service(searcher, batched, media, limits, Path(opt.model_dir), opt)
