"""Vectors of whole queries, and of what is said in each clip: what a search needs that goes by no trained model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from utils.basic_utils import StrPath, progress
from utils.feature_files.provenance import made_with
from utils.feature_files.resumable_features import Extraction
from utils.text_feature.joint.text_tower import JointTextEncoder
from utils.text_feature.text_rows import Rows, query_texts, subtitle_lines, texts_digest

SCRIPT = "utils/text_feature/joint/sentence_files.py"
PACKAGES = ("torch", "transformers", "tokenizers")
AT_A_TIME = 512  # queries
VIDEOS_AT_A_TIME = 16
AGAINST_TEXT = 1  # row of `JointTextEncoder.sentences`


def extract_query_sentences(queries: Rows, encoder: JointTextEncoder, out_h5: StrPath) -> list[str]:
    """Write `{desc_id: (2, D)}` float32, what `encoder.sentences` gives; whole or not at all, and resumable.

    Returns the desc_ids of queries that were cut.

    `InputError` when a row lacks something, or two queries have one desc_id.
    """
    texts = query_texts(queries)
    with _extraction(out_h5, "query", encoder) as features:
        todo = [name for name, text in texts.items() if not features.done(name, texts_digest(text))]
        for start in progress(range(0, len(todo), AT_A_TIME), "query sentences"):
            group = todo[start : start + AT_A_TIME]
            given = [texts[name] for name in group]
            for name, vectors, cut in zip(group, encoder.sentences(given), encoder.longer(given), strict=True):
                features.put(name, {name: vectors}, texts_digest(texts[name]), {"cut": int(cut)})
        return [name for name in texts if features.about(name)["cut"]]


def extract_clip_sentences(
    subs: Rows, n_clips: Mapping[str, int], clip_length: float, encoder: JointTextEncoder, out_h5: StrPath
) -> list[str]:
    """Write `{vid_name: (n_clips, D)}` float32, of each clip the vector that compares with other text.

    Whole or not at all, and resumable. Returns the videos that have clips whose lines were cut.

    Args:
        subs: see `subtitle_lines`; a video that is not in it is silent.
        n_clips: of each video.
        clip_length: seconds.

    Raises:
        InputError: a row lacks something, or a video is there twice.
    """
    lines_of = subtitle_lines(subs)
    said = {name: clip_texts(lines_of.get(name, []), n, clip_length) for name, n in n_clips.items()}
    with _extraction(out_h5, "sub", encoder, clip_length=float(clip_length)) as features:
        todo = [name for name, texts in said.items() if not features.done(name, texts_digest(*texts))]
        for start in progress(range(0, len(todo), VIDEOS_AT_A_TIME), "sentences of clips"):
            group = todo[start : start + VIDEOS_AT_A_TIME]
            different = list(dict.fromkeys(text for name in group for text in said[name]))
            row_of = {text: row for row, text in enumerate(different)}
            vectors, longer = encoder.sentences(different)[:, AGAINST_TEXT], encoder.longer(different)
            for name in group:
                rows = [row_of[text] for text in said[name]]
                about = {"cut": sum(longer[row] for row in rows)}
                features.put(name, {name: vectors[rows]}, texts_digest(*said[name]), about)
        return [name for name in said if features.about(name)["cut"]]


def clip_texts(lines: Sequence[Mapping[str, Any]], n_clips: int, clip_length: float) -> list[str]:
    """What is said in each clip: the lines that overlap it, joined by a space, "" where there is none.

    A line with `start` and `end` in seconds is in clips floor(start / clip_length) to ceil(end / clip_length) - 1.
    """
    said: list[list[str]] = [[] for _ in range(n_clips)]
    for line in lines:
        first, behind = math.floor(line["start"] / clip_length), math.ceil(line["end"] / clip_length)
        for clip in range(max(0, first), min(n_clips, behind)):
            said[clip].append(line["text"].strip())
    return [" ".join(filter(None, texts)) for texts in said]


def _extraction(out_h5: StrPath, kind: str, encoder: JointTextEncoder, **more: float) -> Extraction:
    properties = {**encoder.sentence_properties(), **more}
    recipe = {"script": SCRIPT, "kind": kind, **properties}
    return Extraction(out_h5, recipe, made_with(SCRIPT, kind, PACKAGES, **properties))
