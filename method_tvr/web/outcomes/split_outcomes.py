"""The queries of a split and what a prediction file makes of them, to learn from mistakes, as the page shows it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from standalone_eval.ground_truth import Span

ANY = "any"


@dataclass(frozen=True)
class Wanted:
    """Which queries are looked for; `ANY`, None and "" leave a property open.

    Attributes:
        iou_thd: the IoU from which a moment is right.
        hit: whether the first prediction is right, or is not.
        ranks: lowest and highest rank of the first right prediction, both included; 0 is the rank of none.
        words: have to be in the sentence or in a video's name, all of them.
    """

    query_type: str = ANY
    iou_thd: float = 0.5
    hit: bool | None = None
    ranks: tuple[int, int] | None = None
    words: str = ""


@dataclass(frozen=True)
class Cell:
    """What is said of a query in one column; `look` is a class of the style sheet."""

    text: str
    look: str = ""
    title: str = ""

    @classmethod
    def of_rank(cls, rank: int, look: str = "") -> Cell:
        """A rank from 1; 0 is the rank of none."""
        return cls(str(rank), look) if rank else cls("–", look, "not among the predictions")


@dataclass(frozen=True)
class NamedMoment:
    """A moment of a video, in seconds: annotated, or predicted with a score; `name` is its rank, or what it is.

    Of a prediction that names a video alone, `span` is None.
    """

    name: str
    vid_name: str
    span: Span | None
    score: float | None = None


@dataclass(frozen=True)
class Summary:
    """How good all predictions together are: a table of numbers, `rows` with their names."""

    title: str
    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float]]]


class SplitOutcomes(ABC):
    """Nq queries with their predictions and their outcomes, in the order of the annotations.

    Attributes:
        desc_ids, sentences: of each query.
        kinds, types: each query's type, "" where there are none; and the types that there are.
        iou_thds: thresholds that a moment's IoU may have to reach.
        has_moments: whether predictions have any, rather than videos alone.
        columns: what is said of each query; see `cells`.
    """

    desc_ids: Sequence[int]
    iou_thds: Sequence[float]
    columns: Sequence[str]
    has_moments = True

    def __init__(self, sentences: Sequence[str], vid_names: Sequence[str], kinds: Sequence[str] = ()) -> None:
        """`vid_names` are the names of the videos that each query is about, as one text."""
        self.sentences = list(sentences)
        self.kinds = list(kinds) or [""] * len(self)
        self.types = sorted({*self.kinds} - {""})
        self._text = [f"{desc} {name}".lower() for desc, name in zip(self.sentences, vid_names, strict=True)]
        self._numbers_of: dict[str, list[int]] = {}
        for number, sentence in enumerate(self.sentences):
            self._numbers_of.setdefault(sentence.strip(), []).append(number)

    def __len__(self) -> int:
        return len(self.sentences)

    @abstractmethod
    def ranks(self, iou_thd: float) -> np.ndarray:
        """(Nq,) int64: rank of the first right prediction, 0 where there is none."""

    @abstractmethod
    def quality(self, iou_thd: float) -> np.ndarray:
        """(Nq,) float64: how well each query fared, the more the better."""

    @abstractmethod
    def cells(self, number: int) -> list[Cell]:
        """What is said of a query, in each of the columns."""

    @abstractmethod
    def annotated(self, number: int) -> dict[str, list[Span]]:
        """{vid_name: annotated moments} of a query."""

    @abstractmethod
    def truth(self, number: int) -> list[NamedMoment]:
        """The annotated moments of a query that are shown, best first."""

    @abstractmethod
    def predicted(self, number: int, n: int) -> list[NamedMoment]:
        """The first `n` predictions of a query that have a rank."""

    @abstractmethod
    def summary(self) -> Summary:
        """How good all predictions together are."""

    def select(self, wanted: Wanted) -> np.ndarray:
        """Numbers of the queries that are looked for, in the order of the annotations."""
        rank = self.ranks(wanted.iou_thd)
        chosen = np.ones(len(self), dtype=bool)
        if wanted.query_type != ANY:
            chosen &= np.array([kind == wanted.query_type for kind in self.kinds])
        if wanted.hit is not None:
            chosen &= (rank == 1) == wanted.hit
        if wanted.ranks is not None:
            chosen &= (rank >= wanted.ranks[0]) & (rank <= wanted.ranks[1])
        words = set(wanted.words.lower().split())
        if words:
            chosen &= np.array([all(word in text for word in words) for text in self._text])
        return np.flatnonzero(chosen)

    def annotated_for(self, sentence: str) -> dict[str, list[Span]]:
        """{vid_name: annotated moments} of all queries that say exactly this."""
        found: dict[str, list[Span]] = {}
        for number in self._numbers_of.get(sentence.strip(), ()):
            for name, spans in self.annotated(number).items():
                found.setdefault(name, []).extend(spans)
        return found
