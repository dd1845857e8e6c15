"""A dataset in the making: what was asked for, what it is made with, and what is known of it by now."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.basic_utils import InputError
from utils.inventory.video_folder import Inventory
from utils.own_corpus.layout import Layout
from utils.own_corpus.queries import LeftOut, Query
from utils.own_corpus.splits import Split
from utils.own_corpus.steps import Steps
from utils.text_feature.text_encoder import TokenEncoder
from utils.video_feature.extract_i3d_features import I3DModel
from utils.video_feature.image_models import ImageModel

SHOWN = 5  # names of those that a note is about


@dataclass(frozen=True)
class Models:
    """What encodes frames, windows of frames, and sentences."""

    image: ImageModel
    i3d: I3DModel | None
    i3d_name: str
    text: TokenEncoder

    def record(self) -> dict[str, dict[str, Any]]:
        """What is known of those of images and of text: names, digests of weights, revisions."""
        image = {"model": self.image.name, "weights": self.image.weights, "layer": self.image.layer, **self.image.also}
        return {"image": image, "text": self.text.properties()}


@dataclass
class NewDataset:
    """A dataset in the making."""

    opt: argparse.Namespace  # options of `utils/extract_features.py`
    layout: Layout
    models: Models
    steps: Steps
    found: Inventory  # of the folder of videos
    queries: list[Query]  # those that are in it, as far as is known
    failed: dict[str, str] = field(default_factory=dict)  # reasons by vid_name, of videos that are in no file
    durations: dict[str, float] = field(default_factory=dict)  # seconds by vid_name, of videos that have features
    n_clips: dict[str, int] = field(default_factory=dict)  # by vid_name
    query_sources: dict[str, Any] = field(default_factory=dict)  # how many are written and how many subtitle lines
    left_out: list[LeftOut] = field(default_factory=list)  # queries that are in no file
    without_file: list[str] = field(default_factory=list)  # videos that have no subtitle file
    notes: list[str] = field(default_factory=list)  # sentences on what is worth knowing
    splits: dict[str, Split] = field(default_factory=dict)
    sentences: list[Path] = field(default_factory=list)  # files of their vectors, where a model makes any

    def __post_init__(self) -> None:
        self.failed.update(self.found.failed)
        for text, places in self.found.notes().items():
            self.note(text, places)

    @property
    def videos(self) -> dict[str, Path]:
        """File or folder by vid_name, of all that were found."""
        return self.found.taken

    def fail(self, failed: Mapping[str, str]) -> None:
        """Take videos out, each with its reason; `InputError` when none is left."""
        self.failed.update(failed)
        self.durations = {name: length for name, length in self.durations.items() if name not in self.failed}
        if not self.durations:
            raise InputError(f"no video could be used: {'; '.join(list(self.failed.values())[:3])}")

    def note(self, text: str, names: Sequence[str]) -> None:
        """Note something about some names, if there are any."""
        self.notes += counted(text, names)


def counted(text: str, names: Sequence[str]) -> list[str]:
    """A note about some names, "text (6): a, b, c, d, e …", or none without names."""
    return [f"{text} ({len(names)}): {', '.join(names[:SHOWN])}{' …' * (len(names) > SHOWN)}"] if names else []
