"""Sentences in, moments out: new sentences asked over videos, as a table for people and as JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from easydict import EasyDict

from method_tvr.ask.text_models import TextModel
from method_tvr.dataset.annotations import Video
from method_tvr.dataset.feature_store import Preparation
from method_tvr.model import ReLoCLNet
from method_tvr.options.values import OFF
from method_tvr.search.answering import Answerer
from method_tvr.search.encoding import encode_token_features
from method_tvr.search.predictions import RankedRows
from method_tvr.search.retrieval import EncodedQueries
from utils.basic_utils import InputError, read_bytes, write_json
from utils.ranks import ALONE, Ranks
from utils.tables import aligned

MAX_SHOWN = 100  # characters of a sentence or of a video's name


class QuestionError(InputError):
    """What was asked cannot be answered, whoever asked: files and options are all right."""


@dataclass(frozen=True)
class FoundMoment:
    """A moment: its video, start and end in seconds, and score."""

    vid_name: str
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Answer:
    """What was found for a sentence, best first."""

    query: str
    moments: list[FoundMoment]


class Asker:
    """Asks a corpus in words.

    Args:
        model: in evaluation mode.
        answerer: over the videos.
        videos: what is searched.
        text_model: encodes sentences; needed by the main process alone.
        opt: how queries are prepared, and NMS.
        ranks: the processes that ask together; all get the answers.
    """

    def __init__(
        self,
        model: ReLoCLNet,
        answerer: Answerer,
        videos: Sequence[Video],
        text_model: TextModel | None,
        opt: EasyDict,
        ranks: Ranks = ALONE,
    ) -> None:
        self._model, self._answerer, self._text_model, self._ranks = model, answerer, text_model, ranks
        self._name_of = {video.idx: video.vid_name for video in videos}
        self._prepare = Preparation(opt.max_desc_l, average=False, normalize=not opt.no_norm_tfeat)
        self._block, self._nms_thd = opt.eval_query_bsz, opt.nms_thd

    def ask(self, sentences: Sequence[str], top_k: int = 10) -> list[Answer]:
        """The best moments for each sentence: at most `top_k`, as many as the answerer keeps, and with NMS 100.

        Raises:
            QuestionError: a sentence has no words.
        """
        found = self.find(self.encode(sentences), top_k)
        return [Answer(sentence, moments) for sentence, moments in zip(sentences, found, strict=True)]

    def encode(self, sentences: Sequence[str]) -> EncodedQueries:
        """Sentences as the model encodes them.

        Raises:
            QuestionError: a sentence has no words.
        """
        return self.encode_features(
            self._ranks.broadcast(self._token_features(sentences) if self._ranks.is_main else [])
        )

    def encode_features(self, features: Sequence[np.ndarray]) -> EncodedQueries:
        """Queries of (Lq, D) prepared token features each, as the model encodes them."""
        blocks = (features[first : first + self._block] for first in range(0, len(features), self._block))
        device = next(self._model.parameters()).device
        return EncodedQueries.concatenate([encode_token_features(self._model, block, device) for block in blocks])

    def find(self, queries: EncodedQueries, top_k: int, allowed: np.ndarray | None = None) -> list[list[FoundMoment]]:
        """The best moments for each encoded query; `allowed`: see `Answerer.search`."""
        rows = RankedRows.concatenate([moments for moments, _ in self._answerer.search(queries, allowed)])
        if self._nms_thd != OFF:
            rows = rows.after_nms(self._nms_thd, rows.score.shape[1])
        best = rows.best(top_k)
        return [self._moments(best, number) for number in range(len(queries))]

    def _token_features(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """Features of each sentence as the model takes them."""
        assert self._text_model is not None
        limit = min(self._text_model.max_tokens, self._prepare.max_rows)
        for sentence, n_tokens in zip(sentences, self._text_model.n_tokens(sentences), strict=True):
            if n_tokens > limit:
                print(
                    f"note: of its {n_tokens} tokens only the first {limit} are looked at: {shortened(sentence)}",
                    file=sys.stderr,
                )
        features = self._text_model.encode(sentences)
        blank = [sentence for sentence, rows in zip(sentences, features, strict=True) if not len(rows)]
        if blank:
            raise QuestionError(f"{blank[0]!r} has no words that can be looked for: ask something else")
        return [self._prepare(rows) for rows in features]

    def _moments(self, rows: RankedRows, number: int) -> list[FoundMoment]:
        found = rows.of_query(number)
        return [FoundMoment(self._name_of[int(idx)], start, end, score) for idx, start, end, score in found]


def read_sentences(typed: Sequence[str] | None, path: str | None) -> list[str]:
    """The sentences of the command line, then those of a file, whose blank lines are passed over.

    Raises:
        InputError: there is none, one is blank or no text, or the file cannot be read.
    """
    sentences = list(typed or ())
    for sentence in sentences:
        if not sentence.strip():
            raise InputError("--query: is blank: write a sentence")
        if not sentence.isascii() and any("\ud800" <= character <= "\udfff" for character in sentence):
            raise InputError(f"--query {sentence!r}: is not UTF-8 text: write it as such")
    if path is not None:
        try:
            text = read_bytes(path, "name a text file, one sentence a line").decode("utf-8-sig")
        except UnicodeDecodeError as err:
            raise InputError(f"{path}: is not UTF-8 text ({err.reason} at byte {err.start}): save it as such") from err
        sentences += [line for line in text.splitlines() if line.strip()]
    if not sentences:
        raise InputError(f"{path}: has no sentences: write one a line")
    return sentences


def write_answers(path: Path, answers: Sequence[Answer], split_name: str, text_model: TextModel | None) -> None:
    """Write answers as JSON, whole or not at all: {"split", "text_model", "answers": [{"query", "moments": […]}, …]}.

    Moments are {"vid_name", "start", "end", "score"} in seconds, best first.
    """
    name = text_model.name if text_model else None
    content = {"split": split_name, "text_model": name, "answers": [asdict(answer) for answer in answers]}
    write_json(content, path, indent=True)


def show_any_language() -> None:
    """Have letters that a terminal cannot show printed by their numbers."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_answers(answers: Sequence[Answer]) -> None:
    """Print a table for each sentence."""
    show_any_language()
    for answer in answers:
        rows = [["rank", "video", "start", "end", "score"]]
        for rank, moment in enumerate(answer.moments, start=1):
            times = clock(moment.start), clock(moment.end)
            rows.append([str(rank), shortened(moment.vid_name), *times, f"{moment.score:.4g}"])
        found = aligned(rows) if answer.moments else "  no video is long enough for a moment"
        print(f"\n{shortened(answer.query)}\n{found}")
    print()


def shortened(text: str) -> str:
    """Text in one line, without characters that a terminal would obey."""
    shown = "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 1]}…"


def clock(seconds: float) -> str:
    """`mm:ss`, and `hh:mm:ss` from an hour on; the second that a time lies in."""
    minutes, second = divmod(int(seconds + 1e-6), 60)  # 1e-6: seconds are products of clips, which may be rounded
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"
