"""Annotations of ActivityNet Captions' size and shape, in its public form: train.json, val_1.json and val_2.json.

Counts of videos and queries are the published ones. All else approximates what is published of the dataset: videos of
118 s on average, nearly all below 240 s and none above 755 s; moments of 36 s on average, which are of every length up
to the whole video, and about the whole of it in one of eight; sentences of 13.5 words. What is said means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.basic_utils import write_json

LEAST_PER_VIDEO = 2  # sentences
# seconds at these shares of the videos: even up to about 240 s, few above
_SHARES = (0.0, 0.01, 0.05, 0.25, 0.50, 0.75, 0.90, 0.97, 0.995, 1.0)
_SECONDS = (2.0, 8.0, 18.0, 61.0, 109.0, 169.0, 213.0, 233.0, 250.0, 755.0)
WHOLE_SHARE, WHOLE_SLACK = 0.12, 0.05  # moments of nearly the whole video, and what they leave out at each end at most
LENGTH_BETA = (1.2, 4.4)  # of the others' lengths in videos: mean 0.21, so that all moments are 0.31 or 36 s on average
LEAST_SECONDS = 0.2  # of a moment
MEAN_WORDS, WORD_DEVIATION, LEAST_WORDS, MOST_WORDS = 13.5, 5.5, 3, 60
WORDS = np.array(
    ("a", "the", "man", "woman", "people", "camera", "ball", "is", "seen", "throws", "then", "while", "on")
)


@dataclass(frozen=True)
class Counts:
    """Videos and queries of one annotation file."""

    videos: int
    queries: int

    def share(self, share: float) -> Counts:
        """A fraction of them, at least one video with its queries."""
        videos = max(1, round(self.videos * share))
        return Counts(videos, max(LEAST_PER_VIDEO * videos, round(self.queries * share)))


TRAIN, VAL_1, VAL_2 = Counts(10_009, 37_421), Counts(4_917, 17_505), Counts(4_885, 17_031)


def write_captions(folder: Path, share: float, seed: int) -> dict[str, Counts]:
    """Draw and write the three files.

    Args:
        folder: where they go.
        share: fraction of the dataset's videos and queries.
        seed: the same one gives the same files.

    Returns:
        {file name: what it holds}.
    """
    rng = np.random.default_rng(seed)
    train, val_1, val_2 = (counts.share(share) for counts in (TRAIN, VAL_1, VAL_2))
    durations = np.interp(rng.random(train.videos + val_1.videos), _SHARES, _SECONDS).round(2)
    names = [f"v_{number:011d}" for number in range(len(durations))]  # as long as the dataset's
    first_of_val = train.videos
    # val_2 is of the videos of val_1 but for a few: another person's sentences
    videos = {
        "train.json": (train, slice(0, first_of_val)),
        "val_1.json": (val_1, slice(first_of_val, None)),
        "val_2.json": (val_2, slice(first_of_val, first_of_val + val_2.videos)),
    }
    for file, (counts, which) in videos.items():
        write_json(_drawn(names[which], durations[which], counts.queries, rng), folder / file)
    return {file: counts for file, (counts, _) in videos.items()}


def _drawn(names: list[str], durations: np.ndarray, n_queries: int, rng: np.random.Generator) -> dict[str, Any]:
    """The content of a file: {video: {"duration", "timestamps", "sentences"}}."""
    n_more = rng.multinomial(n_queries - LEAST_PER_VIDEO * len(names), np.full(len(names), 1 / len(names)))
    ends = np.cumsum(LEAST_PER_VIDEO + n_more)
    video = np.repeat(np.arange(len(names)), LEAST_PER_VIDEO + n_more)
    spans = _moments(durations[video], rng)
    spans = spans[np.lexsort((spans[:, 0], video))].tolist()  # annotators go through a video in time order
    sentences = _sentences(n_queries, rng)
    return {
        name: {"duration": duration, "timestamps": spans[first:end], "sentences": sentences[first:end]}
        for name, duration, first, end in zip(names, durations.tolist(), [0, *ends[:-1]], ends, strict=True)
    }


def _moments(durations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, 2) start and end in seconds, to 1/100 s, of a moment in each of N videos."""
    n = len(durations)
    whole = rng.random(n) < WHOLE_SHARE
    margins = rng.uniform(0, WHOLE_SLACK, (2, n))
    share = np.where(whole, 1 - margins.sum(axis=0), rng.beta(*LENGTH_BETA, n))
    lengths = np.maximum(share * durations, LEAST_SECONDS)
    starts = np.where(whole, margins[0] * durations, rng.random(n) * (durations - lengths))
    spans = np.stack([starts, starts + lengths], axis=1).clip(0, durations[:, None])
    return spans.round(2)


def _sentences(n: int, rng: np.random.Generator) -> list[str]:
    n_words = rng.normal(MEAN_WORDS, WORD_DEVIATION, n).round().astype(np.int64).clip(LEAST_WORDS, MOST_WORDS)
    words = WORDS[rng.integers(len(WORDS), size=int(n_words.sum()))]
    return [" ".join(of_one) + "." for of_one in np.split(words, np.cumsum(n_words)[:-1])]
