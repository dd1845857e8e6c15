"""What the HTTP API and the page share: a searcher, the videos' files, and the limits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from easydict import EasyDict

from method_tvr.ask.moments import Answer
from method_tvr.ask.questions import QuestionError
from method_tvr.ask.searcher import MomentSearcher, open_searcher, shown_nms_thd
from method_tvr.dataset.annotations import Video
from method_tvr.dataset.split_facts import Fact
from method_tvr.options.values import SHOWN_NMS_THD
from method_tvr.web.batching import Asked, BatchedSearcher
from method_tvr.web.limits import BURST_S, Limits
from method_tvr.web.media import MediaFiles
from method_tvr.web.outcomes.split_outcomes import SplitOutcomes
from method_tvr.web.page_files import default_subtitles, default_videos, open_outcomes, open_subtitles
from method_tvr.web.pictures.asked import AskedPictures
from standalone_eval.ground_truth import Span
from utils.basic_utils import InputError, read_bytes

LOG = logging.getLogger(__name__)
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Service:
    """A model that is served.

    Attributes:
        host: the address or name that is listened at; `allowed_hosts` are other names that it goes by.
        token: what who asks has to show; None: nothing.
        nms_thd: of the moments that the page shows; see `MomentSearcher`.
        batched: the searcher, for many at once.
        subtitles: {vid_name: lines {"text", "start", "end"}}.
        outcomes: the split's queries with predictions, None where there are none.
        why_no_outcomes: what to do about that.
        facts: what is wrong with the videos.
    """

    searcher: MomentSearcher
    batched: BatchedSearcher
    media: MediaFiles
    limits: Limits
    model_dir: Path
    host: str
    subtitles: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    outcomes: SplitOutcomes | None = None
    why_no_outcomes: str = ""
    allowed_hosts: Sequence[str] = ()
    token: str | None = None
    facts: Sequence[Fact] = ()
    nms_thd: float = SHOWN_NMS_THD

    @property
    def videos(self) -> Sequence[Video]:
        """What is searched."""
        return self.searcher.videos

    @cached_property
    def durations(self) -> dict[str, float]:
        """{vid_name: seconds}."""
        return {video.vid_name: video.duration for video in self.videos}

    @cached_property
    def pictures(self) -> AskedPictures:
        """Those that visitors ask with."""
        return AskedPictures(self.searcher, self.limits)

    def what_is_asked(self, sentence: str | None, picture: str | None) -> Asked:
        """A sentence, or what the model made of a picture of this name; a `QuestionError` if it is not one of both."""
        if (sentence is None) == (picture is None):
            raise QuestionError("sentence: field required, or picture in its place, not both")
        return self.pictures.features(picture) if sentence is None and picture is not None else str(sentence)

    def search(self, asked: Asked, top_k: int, video: str | None, show: str | None) -> Answer:
        """The best moments to show for what is asked, within the limits.

        Raises `Busy`, or a `QuestionError` if the sentence has a fault.
        """
        if isinstance(asked, str) and len(asked) > self.limits.max_sentence:
            raise QuestionError(f"the sentence has {len(asked)} characters: {self.limits.max_sentence} are allowed")
        n = min(top_k, self.limits.max_top_k)
        return self.batched.search(asked, n, video, show, self.limits.timeout, self.nms_thd)

    def annotated(self, sentence: str) -> dict[str, list[Span]]:
        """{vid_name: annotated moments} of the split's queries that say exactly this."""
        return {} if self.outcomes is None else self.outcomes.annotated_for(sentence)

    def example_sentences(self, n: int) -> list[str]:
        """Some of the split's queries, spread evenly."""
        sentences = [] if self.outcomes is None else list(filter(str.strip, self.outcomes.sentences))
        return sentences[:: max(1, len(sentences) // n)][:n]

    def close(self) -> None:
        """End the threads."""
        self.batched.close()


def open_service(opt: EasyDict) -> Service:
    """The service that options of `parse_inference_options` for `SERVE` describe, or an `InputError`."""
    limits = Limits(rate=opt.max_rate, burst=max(1.0, BURST_S * opt.max_rate), max_queue=opt.max_queue)
    opt.max_before_nms = max(opt.max_before_nms, limits.max_top_k)
    searcher = open_searcher(opt)
    searcher.note = LOG.warning
    if opt.videos is None:
        opt.videos = default_videos(opt)
    if opt.subtitles is None:
        opt.subtitles = default_subtitles(opt)
    names = [video.vid_name for video in searcher.videos]
    media = MediaFiles.in_folder(opt.videos, names) if opt.videos is not None else MediaFiles({})
    subtitles, (outcomes, why_not) = open_subtitles(opt.subtitles), open_outcomes(opt)
    batched = BatchedSearcher(searcher, limits.max_queue)
    folder, token = Path(opt.model_dir), None if opt.token_file is None else read_token(opt.token_file)
    known, shown = (subtitles, outcomes, why_not), (searcher.facts, shown_nms_thd(opt))
    return Service(searcher, batched, media, limits, folder, opt.host, *known, opt.allow_host or (), token, *shown)


def read_token(path: str) -> str:
    """The token in a file, its only line; an `InputError` if that is missing, short, or not what a header can hold."""
    lines = read_bytes(path, "write a token of your own into it").decode("latin-1").strip().splitlines()
    if len(lines) != 1 or len(lines[0]) < SHORTEST_TOKEN or not (lines[0].isascii() and lines[0].isprintable()):
        raise InputError(
            f"--token_file {path}: must hold one line of {SHORTEST_TOKEN} ASCII letters or more, such as `openssl rand "
            "-hex 16` prints"
        )
    return lines[0]
