"""Subtitle lines as queries, where nobody has written sentences to search: what is said, and when.

A line of a video of d seconds, from s to e, is a query for the moment [s, min(e, d)] if

    4 <= words <= 20   and   min(e, d) - s >= a clip's length   and   no other line of its video has the same words

and it is more than a sound, "[door slams]", or a song, "♪". Words are what stands between spaces and has a letter or
a number; an ideograph or a kana is a word each. Of lines that a video has twice no moment alone is right, so that none
of them is taken. Nothing here depends on other videos: lines and their numbers stay when videos are added.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.dataset_files import MADE_FROM, SUBTITLES
from utils.own_corpus.files import has_types
from utils.own_corpus.layout import TRAIN, VAL
from utils.own_corpus.queries import Query, as_query
from utils.own_corpus.splits import divide

LEAST_WORDS, MOST_WORDS = 4, 20  # the latter are some 26 tokens, of the 30 of a query that training takes
ROUNDING = 1e-6  # seconds
NOT_WRITTEN = "queries are subtitle lines, not sentences that people wrote to search"
_SIGN = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")  # of kana and ideographs, between which no spaces are
_SOUND = re.compile(r"\[[^\]]*\]|.*[♪♫].*", re.DOTALL)


@dataclass
class Chosen:
    """Lines that are queries, and how many lines are not, by the reason."""

    queries: list[Query] = field(default_factory=list)
    not_taken: Counter[str] = field(default_factory=Counter)

    def record(self) -> dict[str, Any]:
        """How many, to be put on record."""
        return {"subtitle_lines": len(self.queries), "lines_not_taken": dict(self.not_taken)}

    def notes(self) -> list[str]:
        """What is to be said of them."""
        reasons = "; ".join(f"{n} {reason}" for reason, n in sorted(self.not_taken.items()))
        not_taken = f": {self.not_taken.total()} other lines are not taken ({reasons})" if reasons else ""
        return [f"{len(self.queries)} {NOT_WRITTEN}{not_taken}"]


def choose_lines(
    lines: Mapping[str, Sequence[Mapping[str, Any]]],
    durations: Mapping[str, float],
    clip_length: float,
    written: Sequence[Query] = (),
    val_share: float = 0.0,
) -> Chosen:
    """Make queries of subtitle lines.

    Where queries that people wrote are evaluated on, lines are for training alone, and of other videos.

    Args:
        lines: `{"text", "start", "end"}` by vid_name, cleaned.
        durations: seconds by vid_name, of the videos in the corpus.
        clip_length: seconds.
        written: queries of people, which fit the videos.
        val_share: of their videos, for evaluation, where they do not say it.
    """
    splits = divide([query for query in written if query.ts is not None], durations, val_share)
    held = {query.vid_name for name, split in splits.items() if name != TRAIN for query in split.queries}
    more = {"split": TRAIN} if VAL in splits else {}
    more |= {"type": "t"} if has_types(written) else {}  # all queries have one, or none
    chosen, taken = Chosen(), {query.desc_id for query in written}
    for name in sorted(durations):
        times_said = Counter(_words(line["text"]) for line in lines.get(name, ()))
        for line in lines.get(name, ()):
            start, end = max(line["start"], 0), min(line["end"], durations[name])
            reason = _hindrance(line["text"], end - start, clip_length, times_said)
            if reason is None and name in held:
                reason = "of videos whose written queries are not for training"
            content = {"desc": line["text"].strip(), "vid_name": name, "ts": [start, end], MADE_FROM: SUBTITLES, **more}
            query = None if reason else as_query(content, f"subtitles of {name} at {start:g} s", {TRAIN: TRAIN})
            if query is None or query.desc_id in taken:
                chosen.not_taken[reason or "that are among the written queries"] += 1
            else:
                taken.add(query.desc_id)
                chosen.queries.append(query)
    return chosen


def _hindrance(text: str, seconds: float, clip_length: float, times_said: Counter[str]) -> str | None:
    """Why a line is no query; None where it is one."""
    if _SOUND.fullmatch(text.strip()):
        return "of sounds or songs"
    if not LEAST_WORDS <= len(_words(text).split()) <= MOST_WORDS:
        return f"of fewer than {LEAST_WORDS} words or more than {MOST_WORDS}"
    if times_said[_words(text)] > 1:
        return "said more than once in their video"
    if seconds < clip_length - ROUNDING:
        return f"shorter than a clip of {clip_length:g} s, or past the end"
    return None


def _words(text: str) -> str:
    """The words of a line, by which it is compared with others."""
    parts = _SIGN.sub(r" \g<0> ", text.casefold()).split()
    bare = ("".join(filter(str.isalnum, part)) for part in parts)
    return " ".join(filter(None, bare))
