"""Captions that roll: each row comes twice, at the bottom when it is said and then above the next one.

So are the automatic captions that `yt-dlp --write-auto-subs` saves, with a cue of 10 ms between, and live captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from utils.text_feature.subtitles.cue import Cue

MOST_ROWS = 4  # that stand while others come
GAP_S = 0.25  # between cues of which one goes on with the other
FLASH_S = 0.05  # nothing is said in so short a cue


def without_rolled(cues: Sequence[Cue]) -> list[Cue]:
    """Cues whose rows are each there once, in the cue in which they came; of cues by start.

    Only where most cues go on with the rows of the cue before. Elsewhere somebody says the same thing twice.
    """
    carried = [0, *(_carried(before, cue) for before, cue in pairwise(cues))]
    if not _rolls(cues, carried):
        return list(cues)
    said = [
        replace(cue, rows=cue.rows[n:], first_timed=None) if n else cue for cue, n in zip(cues, carried, strict=True)
    ]
    return [cue for cue, n in zip(said, carried, strict=True) if not n or any(map(_words, cue.rows))]


def _rolls(cues: Sequence[Cue], carried: Sequence[int]) -> bool:
    going_on = others = 0
    for cue, n in zip(cues[1:], carried[1:], strict=True):
        if not n:
            others += any(map(_words, cue.rows))
        elif any(map(_words, cue.rows[n:])):
            going_on += 1 if cue.first_timed is None else 2
        elif cue.end - cue.start <= FLASH_S:
            going_on += 2
        else:  # the same again, long enough to be said
            others += 2
    return going_on >= 2 and going_on > others


def _carried(before: Cue, cue: Cue) -> int:
    """How many rows of `cue` stood at the bottom of the cue before.

    After a pause the same words are said anew, unless they stand above a row whose words have times, as they have not.
    """
    if cue.first_timed is None and cue.start > before.end + GAP_S:
        return 0
    shown = [words for row in before.rows if (words := _words(row))]
    new_from = len(cue.rows) if cue.first_timed is None else cue.first_timed
    rows = [_words(row) for row in cue.rows[: min(MOST_ROWS, new_from)]]
    for n in range(min(len(shown), len(rows)), 0, -1):
        if rows[:n] == shown[-n:]:
            return n
    return 0


def _words(row: str) -> str:
    return " ".join(row.split())
