"""Questions that no search can answer, refused before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from utils.basic_utils import InputError, is_text


class QuestionError(InputError):
    """What was asked cannot be answered, whoever asked: files and options are all right."""


def check_asked(sentences: Sequence[str], top_k: int = 1) -> None:
    """Refuse what no search can answer, before anything is computed, by a `QuestionError`."""
    if top_k < 1:
        raise QuestionError(f"top_k {top_k} must be above 0")
    if any(not sentence.strip() for sentence in sentences):
        raise QuestionError("a sentence is blank: write what to look for")
    for sentence in sentences:
        if not is_text(sentence):
            raise QuestionError(f"{sentence!r} is not UTF-8 text: write it as such")
