"""Found moments as a table in a file, for spreadsheets: RFC 4180, in UTF-8 with the mark by which they know it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from method_tvr.ask.moments import Moment, shares_of_best
from utils.basic_utils import whole_file

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a cell begins with that spreadsheets compute


@dataclass(frozen=True)
class Row:
    """A moment of a sentence."""

    sentence: str
    rank: int  # from 1
    moment: Moment
    share: float | None  # of the best score, see `shares_of_best`
    clip: Path | None  # where it was saved


def rows_of(sentence: str, moments: Sequence[Moment], clips: Sequence[Path | None]) -> list[Row]:
    """The moments of a sentence, best first, with the files that they were saved in."""
    shares = shares_of_best([moment.score or 0.0 for moment in moments])
    found = enumerate(zip(moments, shares, clips, strict=True), start=1)
    return [Row(sentence, rank, moment, share, clip) for rank, (moment, share, clip) in found]


def write_moments(rows: Sequence[Row], path: Path) -> None:
    """Write rows, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(csv_bytes(rows))


def csv_bytes(rows: Sequence[Row]) -> bytes:
    """Rows as the content of a file. Columns of what scores are made of are there where that is known."""
    modalities = list(dict.fromkeys(modality for row in rows for modality in row.moment.match or ()))
    parts = [*(f"{modality}_match" for modality in modalities), "p_start", "p_end"] if modalities else []
    out = io.StringIO(newline="")
    table = csv.writer(out)
    table.writerow(["sentence", "rank", "video", "start", "end", "share", "score", *parts, "clip"])
    table.writerows(_cells(row, modalities) for row in rows)
    return out.getvalue().encode("utf-8-sig", "backslashreplace")


def _cells(row: Row, modalities: Sequence[str]) -> list[object]:
    moment = row.moment
    match = moment.match or {}
    parts = [*(match.get(modality) for modality in modalities), moment.p_start, moment.p_end] if modalities else []
    numbers = [moment.start, moment.end, row.share, moment.score, *parts]
    clip = "" if row.clip is None else str(row.clip)
    return [_text(row.sentence), row.rank, _text(moment.vid_name), *numbers, _text(clip)]


def _text(text: str) -> str:
    """Text of others as a cell that no spreadsheet takes for a formula: with an apostrophe before one."""
    return f"'{text}" if text.startswith(_FORMULA) else text
