"""What models of `transformers` are called, without loading any."""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "hf/"  # of names that can mean nothing but a model of images and text, on the hub or in a folder
PROJECTED = "projected"  # layer of their vectors that compare, those of pictures with those of sentences


def place_of(name: str) -> str:
    """The folder, or the name on the hub, that a name means."""
    return name.removeprefix(PREFIX)


def short_name(place: str) -> str:
    """What the record of features calls a model: its name on the hub, or its folder's own."""
    return Path(place).resolve().name if os.path.isdir(place) else place
