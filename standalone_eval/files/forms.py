"""The forms that annotations and predictions are known to come in, and which of them a file is of."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import islice
from typing import Any


@dataclass(frozen=True)
class Form:
    """A form that annotations or predictions are known to come in, and what to do with such a file here."""

    name: str
    remedy: str

    def __str__(self) -> str:
        return f"holds {self.name}: {self.remedy}"


ANNOTATIONS = Form("annotations (desc_id, desc, vid_name, ts)", "were two paths swapped?")
ENTRIES = Form(
    "the entries of one task (desc_id, predictions)",
    'put them into {"video2idx": {vid_name: video_idx}, "VCMR": [entries]}, and so for SVMR and VR',
)
PREDICTIONS = Form("a prediction file (video2idx, VCMR, SVMR, VR)", "were two paths swapped?")
DURATIONS = Form("durations ({split: {vid_name: [seconds, video_idx]}})", "were two paths swapped?")
MOMENT_DETR = Form(
    "annotations in Moment-DETR's form (qid, query, vid, relevant_windows)",
    "standalone_eval/eval.py takes them as they are; for anything else, beside each other in a folder and called by "
    "their splits, utils/annotations/convert.py converts them, as `convert.py qvhighlights` or `convert.py custom`",
)
VERIFIED = Form(
    "annotations in VERIFIED's form (desc_id, fig_desc, video, time)",
    "beside each other in a folder, called by their splits, they are read by utils/annotations/convert.py, as "
    "`convert.py charades_sta --durations …`",
)
MTVR = Form(
    "annotations in mTVR's form (desc_id, descs, vid_name, ts)",
    "beside each other in a folder, called by their splits, they are read by utils/annotations/convert.py, as "
    "`convert.py tvr --language zh`",
)
MOMENT_DETR_PREDICTIONS = Form(
    "predictions in Moment-DETR's form (qid, vid, pred_relevant_windows)",
    "standalone_eval/eval.py, check.py and compare.py read them, one a line; for anything else write one object "
    '{"video2idx": {vid: video_idx}, "SVMR": [{"desc_id": qid as an integer, "predictions": '
    "[[video_idx, st, ed, score]]}]}",
)
RANKED = Form(
    "graded moments in TVR-Ranking's form (query_id, relevant_moment, or a row for each of these)",
    "standalone_eval/eval.py takes those with a relevance as --gt_path, and compares VCMR rows with them by NDCG; "
    "train.sh tvr_ranking (or mini_ranking) learns from those with a similarity, as --train_path",
)
DIDEMO = Form(
    "annotations in DiDeMo's form (annotation_id, video, description, times)",
    "as train_data.json, val_data.json and test_data.json they are read by utils/annotations/convert.py didemo",
)
ACTIVITYNET = Form(
    "annotations in ActivityNet Captions' form ({video: duration, timestamps, sentences})",
    "as train.json, val_1.json and val_2.json they are read by utils/annotations/convert.py anet_cap",
)
CHARADES = Form(
    "annotations in Charades-STA's form (VIDEO start end##sentence)",
    "as charades_sta_train.txt and charades_sta_test.txt they are read by utils/annotations/convert.py charades_sta",
)
_FORM_OF_KEYS = (  # what an object with these keys is, the first that fits
    ({"video2idx"}, PREDICTIONS),
    ({"fig_desc"}, VERIFIED),
    ({"descs"}, MTVR),
    ({"desc_id", "predictions"}, ENTRIES),
    ({"query_id", "relevant_moment"}, RANKED),
    ({"query_id", "timestamp"}, RANKED),
    ({"desc_id", "ts"}, ANNOTATIONS),
    ({"relevant_windows"}, MOMENT_DETR),  # whatever else has been renamed already
    ({"pred_relevant_windows"}, MOMENT_DETR_PREDICTIONS),
    ({"desc_id"}, ANNOTATIONS),
    ({"qid", "query", "vid"}, MOMENT_DETR),
    ({"annotation_id", "description"}, DIDEMO),
    ({"annotation_id", "times"}, DIDEMO),
    ({"timestamps", "sentences"}, ACTIVITYNET),
)
_CHARADES_LINE = re.compile(r"\S+\s+[\d.]+\s+[\d.]+\s*##")
LOOKED_AT = 5  # rows, or values of an object, that say which form it is


def form_of(content: Any) -> Form | None:
    """The form of a parsed JSON document, or of a list of rows; None where it is none that is known."""
    if isinstance(content, list) and len(content) == 1:  # a document in one line, read as lines
        (content,) = content
    values = list(islice(content.values(), LOOKED_AT)) if isinstance(content, dict) else []
    rows = content[:LOOKED_AT] if isinstance(content, list) else [content, *values]
    for row in rows:
        if isinstance(row, dict):
            for keys, form in _FORM_OF_KEYS:
                if keys <= row.keys():
                    return form
    return DURATIONS if values and all(map(_are_durations, values)) else None


def _are_durations(videos: Any) -> bool:
    """Whether it is `{vid_name: [seconds, video_idx]}`, as far as is looked at."""
    entries = list(islice(videos.values(), LOOKED_AT)) if isinstance(videos, dict) else []
    return bool(entries) and all(isinstance(entry, list) and [type(x) for x in entry[1:]] == [int] for entry in entries)


def form_of_text(text: str) -> Form | None:
    """The form of a file: of all of it as JSON, or of its first line."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    if _CHARADES_LINE.match(first):
        return CHARADES
    for part in (text, first):
        try:
            return form_of(json.loads(part))
        except (ValueError, RecursionError):
            continue
    return None
