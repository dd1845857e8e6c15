"""Files in Moment-DETR's form, which QVHighlights, Lighthouse and others share, as this evaluator's own, and back.

    annotations   {"qid", "query", "duration", "vid", "relevant_windows": [[st, ed], …]}
    predictions   {"qid", "query", "vid", "pred_relevant_windows": [[st, ed, score], …]}, best first; one SVMR answer

J. Lei, T. L. Berg and M. Bansal, Detecting Moments and Highlights in Videos via Natural Language Queries, NeurIPS 2021.
They are converted right after reading, so that nothing else knows of this form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ..findings import Findings, shorten
from ..ground_truth import MAX_MOMENTS, annotated_moments
from .reading import Lines

_WINDOW_LENGTH = 3  # [st, ed, score]


def own_annotations(lines: Lines, findings: Findings) -> list[dict[str, Any]]:
    """Rows with desc_id, desc, vid_name, duration, ts and qid; none after noting what is malformed.

    desc_id is the qid where all of these are integers, otherwise the row's number from 1. Where no row says its
    windows, as those of a test split, there is no ts.
    """
    _qids(lines, "ground truth", findings)
    answered = any("relevant_windows" in row for row in lines.rows)
    for place, row in _places(lines):
        if not isinstance(row.get("vid"), str):
            findings.error("ground truth: vid is missing or not text", [f"{place}: {shorten(row.get('vid'))}"])
        windows = row.get("relevant_windows")
        if answered and not _are_windows(windows):
            kind = f"relevant_windows is not a list of 1 to {MAX_MOMENTS} windows [st, ed] with st <= ed"
            findings.error(f"ground truth: {kind}", [f"{place}: {shorten(windows)}"])
    if findings.errors:
        return []
    are_numbers = all(type(row["qid"]) is int for row in lines.rows)
    kept = {"query": "desc", "vid": "vid_name", "duration": "duration", "relevant_windows": "ts", "qid": "qid"}
    return [
        {"desc_id": row["qid"] if are_numbers else number}
        | {ours: row[key] for key, ours in kept.items() if key in row}
        for number, row in enumerate(lines.rows, start=1)
    ]


def own_submission(lines: Lines, rows: Sequence[Mapping[str, Any]], findings: Findings) -> dict[str, Any]:
    """{"video2idx", "SVMR"} with an entry for each of the annotations' rows; incomplete after noting an error.

    A line answers the row whose `qid` it has, or whose desc_id where the row has none. `vid` may be left out.
    """
    video2idx: dict[str, int] = {}
    entries = []
    answered = _answered(lines, {qid_of(row): row for row in rows}, findings)
    for (place, line), row in zip(_places(lines), answered, strict=True):
        windows = _windows(line, place, findings)
        vid = "" if row is None else _vid(line, row, place, findings)
        if row is not None and not findings.errors:
            idx = video2idx.setdefault(vid, len(video2idx))
            predictions = [[idx, *window] for window in windows]
            entry = {"desc_id": row["desc_id"], "qid": line["qid"], "predictions": predictions}
            entries.append(entry | ({"desc": line["query"]} if "query" in line else {}))
    return {"video2idx": video2idx, "SVMR": entries}


def moment_detr_predictions(
    submission: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], max_pred: int
) -> list[dict[str, Any]]:
    """A checked submission's SVMR task in Moment-DETR's form, in the order of `rows`, which have desc_id and vid_name.

    Of each query the first `max_pred` predictions in its own video, with the numbers that they have in the file.
    """
    predictions = {entry["desc_id"]: entry["predictions"] for entry in submission["SVMR"]}
    out = []
    for row in rows:
        video_idx = submission["video2idx"][row["vid_name"]]
        windows = [window for idx, *window in predictions[row["desc_id"]] if idx == video_idx][:max_pred]
        line = {"qid": qid_of(row), "query": row.get("desc", ""), "vid": row["vid_name"]}
        out.append(line | {"pred_relevant_windows": windows})
    return out


def qid_of(row: Mapping[str, Any]) -> int | str:
    """What a query is called in Moment-DETR's form: the `qid` that its row has beside desc_id, or the latter."""
    qid = row.get("qid")
    return qid if _is_qid(qid) else int(row["desc_id"])


def _is_qid(value: Any) -> TypeGuard[int | str]:
    return type(value) in (int, str)


def _places(lines: Lines) -> list[tuple[str, dict[str, Any]]]:
    """Each row, and where it stands for messages."""
    return [
        (f"{place}, qid {shorten(row.get('qid'))}", row) for place, row in zip(lines.places, lines.rows, strict=True)
    ]


def _qids(lines: Lines, what: str, findings: Findings) -> list[int | str | None]:
    """The lines' qids, None where one is missing, malformed or that of an earlier line, which is noted."""
    seen: dict[int | str, None] = {}
    qids: list[int | str | None] = []
    for place, row in _places(lines):
        qid = row.get("qid")
        if not _is_qid(qid):
            findings.error(f"{what}: qid is missing, or neither an integer nor text", [place])
        elif qid in seen:
            findings.error(f"{what}: qid appears more than once", [place])
        else:
            seen[qid] = None
            qids.append(qid)
            continue
        qids.append(None)
    return qids


def _answered(
    lines: Lines, row_of: Mapping[int | str, Mapping[str, Any]], findings: Findings
) -> list[Mapping[str, Any] | None]:
    """The row of the annotations that each line answers; None where it answers none of them, which is noted."""
    qids = _qids(lines, "SVMR", findings)
    found = set(qids)
    if None not in found:  # else the line may be there
        missing = [shorten(qid) for qid in row_of if qid not in found]
        findings.error("SVMR: qid of the annotations has no line", missing)
    rows = [None if qid is None else row_of.get(qid) for qid in qids]
    surplus = [shorten(qid) for qid, row in zip(qids, rows, strict=True) if qid is not None and row is None]
    findings.error("SVMR: qid is not in the annotations (of another split?)", surplus)
    return rows


def _are_windows(value: Any) -> bool:
    is_list_of_them = isinstance(value, list) and all(isinstance(window, list) for window in value)
    return is_list_of_them and annotated_moments(value) is not None


def _vid(line: Mapping[str, Any], row: Mapping[str, Any], place: str, findings: Findings) -> str:
    """The video of a line and of the annotations' row, which are the same; "" after noting that they are not."""
    asked = row.get("vid_name")
    vid = line.get("vid", asked)
    if not isinstance(vid, str):
        findings.error("SVMR: vid is missing or not text", [f"{place}: {shorten(vid)}"])
    elif asked not in (None, vid):
        kind = "SVMR: vid is not the video of the annotations (of another dataset?)"
        findings.error(kind, [f"{place}: {shorten(vid)}, expected {shorten(asked)}"])
    else:
        return vid
    return ""


def _windows(line: Mapping[str, Any], place: str, findings: Findings) -> list[list[float]]:
    """The windows of a line; none after noting that one is not three numbers."""
    windows = line.get("pred_relevant_windows")
    if not isinstance(windows, list):
        findings.error("SVMR: pred_relevant_windows is missing or not a list", [f"{place}: {shorten(windows)}"])
        return []
    bad = [f"{place}, window {i}: {shorten(window)}" for i, window in enumerate(windows, 1) if not _is_window(window)]
    findings.error("SVMR: window in pred_relevant_windows is not [st, ed, score], three numbers", bad)
    return [] if bad else windows


def _is_window(value: Any) -> bool:
    return isinstance(value, list) and len(value) == _WINDOW_LENGTH and all(type(x) in (int, float) for x in value)
