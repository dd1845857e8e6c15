"""A small prediction file with its annotations, whose sentences and names mean harm, for tests of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

HOSTILE_SENTENCE = "<script>document.title = 'broken into'</script> & \"Nora\" 'opens' {{ 7 * 7 }} \u202e\x07"
HOSTILE_VIDEO = '"><img src="//evil.example/x" onerror="alert(1)">'
HOSTILE_TYPE = "<b>$v_1$</b>"
N_VIDEOS, N_QUERIES, DURATION = 6, 40, 60.0
TASKS = ("VCMR", "SVMR", "VR")


@dataclass(frozen=True)
class ReportFiles:
    """What a report is made from, as objects and as files."""

    folder: Path
    submission: dict[str, Any]
    ground_truth: list[dict[str, Any]]

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.json"

    @property
    def gt(self) -> Path:
        return self.folder / "gt.jsonl"

    def write(self) -> ReportFiles:
        """Write both files, as they are now."""
        write_json(self.predictions, self.submission)
        self.gt.write_text("\n".join(map(json.dumps, self.ground_truth)))
        return self

    def write_other(self, name: str, seed: int = 1, tasks: Sequence[str] = TASKS) -> Path:
        """Write predictions of another model, and return their path."""
        rng = np.random.default_rng(seed)
        submission = make_submission(self.ground_truth, self.submission["video2idx"], rng, tasks)
        return write_json(self.folder / name, submission)

    def write_perfect(self, name: str) -> Path:
        """Write predictions that are annotated moments, one a query, and return their path."""
        submission: dict[str, Any] = {"video2idx": self.submission["video2idx"]}
        for task in TASKS:
            submission[task] = [
                {
                    "desc_id": query["desc_id"],
                    "predictions": [[submission["video2idx"][query["vid_name"]], *spans_of(query)[0], 1.0]],
                }
                for query in self.ground_truth
            ]
        return write_json(self.folder / name, submission)


def spans_of(query: dict[str, Any]) -> list[list[float]]:
    """All moments of a line of annotations."""
    return query["ts"] if isinstance(query["ts"][0], list) else [query["ts"]]


def write_json(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def make_ground_truth(rng: np.random.Generator, names: Sequence[str], typed: bool) -> list[dict[str, Any]]:
    """Queries with one to five moments each."""
    rows = []
    for number in range(N_QUERIES):
        st = rng.integers(0, 30, size=number % 5 + 1) * 1.5
        spans = [[float(s), float(s) + 1.5 * int(rng.integers(1, 9))] for s in st]
        row = {
            "desc_id": 100 + number,
            "desc": HOSTILE_SENTENCE if number % 2 else f"Sentence {number}. " + "long " * (number == 8) * 500,
            "vid_name": names[number % len(names)],
            "duration": DURATION,
            "ts": spans if number % 5 else spans[0],
        }
        rows.append({**row, "type": ("v", "t", HOSTILE_TYPE)[number % 3]} if typed else row)
    return rows


def make_submission(
    ground_truth: Sequence[dict[str, Any]], video2idx: dict[str, int], rng: np.random.Generator, tasks: Sequence[str]
) -> dict[str, Any]:
    """Predictions of which some are right, some almost; of a few queries there are none."""
    submission: dict[str, Any] = {"video2idx": video2idx}
    for task in tasks:
        submission[task] = []
        for number, query in enumerate(ground_truth):
            own = video2idx[query["vid_name"]]
            rows = []
            for rank in range(0 if number % 11 == 7 else 14):
                st, ed = (float(second + rng.choice([0, 0, 0, 1.5, 9])) for second in spans_of(query)[0])
                video = own if task == "SVMR" or rng.random() < 0.3 else int(rng.choice(list(video2idx.values())))
                rows.append([video, *((0, 0) if task == "VR" else sorted((st, ed))), 1000 / (rank + 1)])
            submission[task].append({"desc_id": query["desc_id"], "desc": query["desc"], "predictions": rows})
    return submission


def make_report_files(folder: Path, tasks: Sequence[str] = TASKS, typed: bool = True) -> ReportFiles:
    """Make and write them."""
    rng = np.random.default_rng(0)
    names = [HOSTILE_VIDEO, *(f"show_{number}" for number in range(1, N_VIDEOS))]
    video2idx = {name: 900 + number for number, name in enumerate(names)}
    ground_truth = make_ground_truth(rng, names, typed)
    return ReportFiles(folder, make_submission(ground_truth, video2idx, rng, tasks), ground_truth).write()


class Page(HTMLParser):
    """What is in a page.

    Attributes:
        elements: (tag, attributes) of all, in order.
        tables: {id of the section that it is in: its tables, rows of cells}.
        texts: {tag: texts directly in elements of it}.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.texts: dict[str, list[str]] = {}
        self._sections: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        self._open.append(tag)
        if tag == "section":
            self._sections.append(attributes["id"])
        tables = self.tables.setdefault(self._sections[-1] if self._sections else "", [])
        if tag == "table":
            tables.append([])
        elif tag == "tr":
            tables[-1].append([])
        elif tag in ("td", "th"):
            tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass  # what needs no end, such as meta
        if tag == "section":
            self._sections.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)
        if {"td", "th"} & set(self._open):
            self.tables[self._sections[-1] if self._sections else ""][-1][-1][-1] += data
