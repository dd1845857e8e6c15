"""What all forms of subtitles come down to: cues, and what is wrong with a file."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MAX_PROBLEMS = 20  # told of one file; a file that has more is something else altogether


@dataclass
class Cue:
    """Rows of text that are shown together.

    Attributes:
        rows: without markup, the topmost first; a blank row holds spaces at most.
        start, end: seconds.
        first_timed: index of the first row whose words have times of their own, which are those said just now.
    """

    rows: list[str]
    start: float
    end: float
    first_timed: int | None = None

    def line(self) -> dict[str, Any]:
        """`{"text", "start", "end"}`; "" when nothing is left to read."""
        text = clean_text("\n".join(row.rstrip() for row in self.rows if row.strip()))
        return {"text": text if text.strip() else "", "start": self.start, "end": self.end}


def clean_text(text: str) -> str:
    """TVRetrieval's cleaning: newlines and parentheses become spaces, ":" gets spaces around it, runs of spaces one.

    Tabs and other white space count as spaces. Spaces at the ends stay: "(Lanie:)Hi" becomes " Lanie : Hi".
    """
    text = re.sub(r"[\n()]", " ", text).replace(":", " : ")
    return re.sub(r"\s+", " ", text)


@dataclass
class Problems:
    """What is wrong with one file, in words."""

    path: str
    told: list[str] = field(default_factory=list)  # the first `MAX_PROBLEMS` sentences
    first: dict[str, str] = field(default_factory=dict)  # the first sentence by cause: without place and example
    count: Counter[str] = field(default_factory=Counter)  # by cause

    def add(self, cause: str, line: int | None = None, example: str | None = None) -> None:
        where = self.path if line is None else f"{self.path}, line {line}"
        sentence = f"{where}: {cause}" + ("" if example is None else f": {_quoted(example)}")
        self.count[cause] += 1
        self.first.setdefault(cause, sentence)
        if len(self.told) < MAX_PROBLEMS:
            self.told.append(sentence)

    def all(self) -> list[str]:
        """The sentences, and how many there are besides."""
        n_more = self.count.total() - len(self.told)
        return self.told + ([f"{self.path}: {n_more} more problems"] if n_more else [])


def _quoted(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= 60 else line[:60] + "…")
