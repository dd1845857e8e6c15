"""The record of what made a feature file: attributes of the h5, carried along by tools and by checkpoints.

A property that is absent is unknown. Two records contradict each other only in what both of them say, so files without
a record, and records of older files that say less, fit everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

Plain = str | int | float | bool
Property = str | int | float
FeatureRecords = dict[str, dict[str, Property]]  # {one of KINDS: decisive properties}

KINDS = ("video", "sub", "query")
DECISIVE = {  # features that differ in one of these are not interchangeable
    "model": "the model, 'resnet152+i3d' for two halves",
    "weights": "the first 16 hex digits of the digest of its weights, '+' between two",
    "layer": "the layer that was read, such as 'pool5' or '-2'",
    "frame_rate": "frames a second that were looked at",
    "clip_length": "seconds a clip",
    "pooling": "how frames or tokens became clips: 'max', 'avg', 'max+avg'",
    "normalised": "'none', 'L2', 'L2 per half', or 'L2 of frames' before these were pooled",
    "value_range": "of the pixels that the model saw: '[0,1]', '[-1,1]', 'imagenet' or 'clip'",
    "max_length": "tokens a sentence was cut to",
}
DIGEST_DIGITS = 16
LARGEST = 1e12  # of numbers
LONGEST = 200  # characters of a property; longer ones are no names and numbers but an accident or an attack


def made_with(script: str, kind: str, packages: Sequence[str], **properties: Plain | None) -> dict[str, Plain]:
    """The record of a feature file that is about to be written: keyword arguments for `new_feature_file`.

    Args:
        script: what writes it, as a path in the repository, `utils/video_feature/extract_frame_features.py`.
        kind: one of `KINDS`, or `ValueError`.
        packages: distributions whose versions matter, such as `torch`; those that are not installed are left out.
        properties: those of `DECISIVE` that are known and whatever else should be known of the file; None for unknown.
            `TypeError` for what is not a string, number or boolean.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    versions = ", ".join(f"{name} {number}" for name in packages if (number := _version(name)))
    record: dict[str, Plain | None] = {"made_by": script, "kind": kind, "versions": versions or None, **properties}
    return {name: _plain(name, value) for name, value in record.items() if value is not None}


def made_from(
    sources: Sequence[Mapping[str, Any]], script: str, kind: str, packages: Sequence[str], **properties: Plain | None
) -> dict[str, Plain]:
    """The record, see `made_with`, of a file made out of others; it keeps the versions that their attributes name.

    Decisive properties of the sources are not taken over.
    """
    record = made_with(script, kind, packages, **properties)
    texts = [*(_readable(source.get("versions")) for source in sources), record.get("versions")]
    versions = dict.fromkeys(entry for text in texts if isinstance(text, str) for entry in text.split(", "))
    return {**record, "versions": ", ".join(versions)} if versions else record


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _plain(name: str, value: Any) -> Plain:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float | bool):
        raise TypeError(f"{name} is a {type(value).__name__}, which is not recorded")
    return value


def properties(attributes: Mapping[str, Any]) -> dict[str, Property]:
    """The decisive properties among the attributes of a feature file, as plain values, in the order of `DECISIVE`.

    Files come from anywhere: what is no short printable text and no number of any use counts as unknown.
    """
    found = {name: _readable(attributes[name]) for name in DECISIVE if name in attributes}
    return {name: value for name, value in found.items() if value is not None}


def _readable(value: Any) -> Property | None:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        return value if value.isprintable() and 0 < len(value) <= LONGEST else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if abs(value) <= LARGEST else None
    return None


def contradictions(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(property, our value, their value) of each decisive property that both records have and that differs.

    They are attributes of feature files or what `properties` gave. Numbers may differ by rounding to float32.
    """
    mine, other = properties(ours), properties(theirs)
    both = [(name, mine[name], other[name]) for name in mine if name in other]
    return [row for row in both if not _same(row[1], row[2])]


def _same(one: Property, other: Property) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other, rel_tol=1e-6)


def joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Property]:
    """The decisive properties of features that were put side by side.

    A property in which both agree is named once, others as 'first+second'; one that a half does not say is left out.
    """
    one, other = properties(first), properties(second)
    both = {name: (one[name], other[name]) for name in one if name in other}
    return {name: a if _same(a, b) else f"{_text(a)}+{_text(b)}" for name, (a, b) in both.items()}


def _text(value: Property) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def weights_digest(state_dict: Mapping[str, Any]) -> str:
    """16 hex digits that stand for the weights of a model, however and in which order a file holds them.

    The state dict is that of the model once its weights are loaded, so that the names are the model's own.
    """
    # here, because torch takes seconds to import, which tools that only convert files need not spend
    from utils.content_digest import content_digest

    return content_digest(dict(state_dict))[:DIGEST_DIGITS]
