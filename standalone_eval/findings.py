"""What a check finds: errors and warnings by kind, each with its count and its first examples."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any


@dataclass
class Finding:
    """One kind of defect: how often it was found and where, first cases only."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """Defects by kind, as first met. Every one is counted; at most `max_lines` of a kind are written out (0: all)."""

    def __init__(self, max_lines: int = 10) -> None:
        self.max_lines = max_lines
        self.errors: dict[str, Finding] = {}
        self.warnings: dict[str, Finding] = {}

    def error(self, kind: str, examples: Iterable[str] | None = None, count: int | None = None) -> None:
        """Note errors: `count` of them, by default as many as there are `examples`, or one where these are None."""
        self._note(self.errors, kind, examples, count)

    def warn(self, kind: str, examples: Iterable[str] | None = None, count: int | None = None) -> None:
        """Note warnings, in the same way as errors."""
        self._note(self.warnings, kind, examples, count)

    def _note(self, where: dict[str, Finding], kind: str, examples: Iterable[str] | None, count: int | None) -> None:
        if count is None:
            examples = None if examples is None else list(examples)
            count = 1 if examples is None else len(examples)
        if count:
            finding = where.setdefault(kind, Finding())
            finding.count += count
            room = self.max_lines - len(finding.examples) if self.max_lines > 0 else None
            finding.examples.extend(islice(examples or (), room))

    def add(self, others: Findings) -> None:
        """Take in findings about something else, which are of other kinds."""
        self.errors |= others.errors
        self.warnings |= others.warnings

    def put_last(self, kinds: Iterable[str]) -> None:
        """Of the kinds that were found, put these behind the others, in this order."""
        for kind in kinds:
            for where in (self.errors, self.warnings):
                if kind in where:
                    where[kind] = where.pop(kind)

    def lines(self, brief_warnings: bool = False) -> list[str]:
        """The report: a line for each kind, its examples indented below (`brief_warnings`: those of errors alone)."""
        lines = []
        for label, kinds in (("error", self.errors), ("warning", self.warnings)):
            for kind, finding in kinds.items():
                lines.append(f"{label}: {kind} ({finding.count})")
                if not finding.examples or (label == "warning" and brief_warnings):
                    continue
                lines += [f"    {example}" for example in finding.examples]
                if len(finding.examples) < finding.count:
                    lines.append(f"    … and {finding.count - len(finding.examples)} more")
        return lines

    def summary(self) -> str:
        """'3 errors of 2 kinds, 5 warnings of 1 kind'."""
        parts = []
        for label, kinds in (("error", self.errors), ("warning", self.warnings)):
            total = sum(finding.count for finding in kinds.values())
            if total:
                parts.append(f"{_plural(total, label)} of {_plural(len(kinds), 'kind')}")
        return ", ".join(parts) or "no defects"


def shorten(value: Any) -> str:
    """A value as Python writes it, cut to a readable length and depth."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer too long to be written
        return f"a very large {type(value).__name__}"


def query_name(query: Mapping[str, Any]) -> str:
    """What messages call a query: by the `qid` of the file that it came from, if it has one, or by its desc_id."""
    qid = query.get("qid")
    return f"desc_id {query['desc_id']}" if qid is None else f"qid {shorten(qid)}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
