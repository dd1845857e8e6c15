"""What encodes pictures that are asked with: the model of images and text that made the vectors of the videos.

Only a model without training over such vectors compares pictures. Others have learnt from sentences alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch

from method_tvr.trained.trained_model import TrainedModel
from utils.basic_utils import InputError, StrPath
from utils.feature_files.provenance import contradictions
from utils.pretrained.names import PREFIX, PROJECTED, place_of
from utils.video_feature.image_models import ImageModel, load_image_model
from utils.video_feature.joint.asked_pictures import frames_to_ask

AT_ONCE = 16  # frames
NOT_COMPARED = (
    "this model compares no pictures: ask with a sentence, or make one that does with train.sh … --model zero_shot "
    "over features of a CLIP, SigLIP or SigLIP 2 model (hf/NAME)"
)


class PictureModel:
    """Encodes pictures and clips as queries. Threads may share it: they take turns.

    Its weights are read when it is asked for the first time.

    Args:
        name: a folder, or a name on the hub.
        record: of the vectors that its are compared with; their weights are required.
        device: it computes there.
    """

    def __init__(self, name: str, record: Mapping[str, Any], device: torch.device) -> None:
        self._name, self._record, self._device = name, record, device
        self._model: ImageModel | None = None
        self._lock = threading.Lock()

    def __call__(self, source: StrPath | bytes) -> np.ndarray:
        """(2, D) float32: the unit vector of a picture, or the mean of those of a clip's frames, and zeros.

        The second row would be compared with text: a picture says nothing.

        Raises:
            PictureError: see `frames_to_ask`.
        InputError: the model cannot be loaded, or is another.
        """
        with self._lock:
            self._model = self._model or self._open()
            preparation, vectors = self._model.preparation, []
            frames = (preparation.cut(frame) for frame in frames_to_ask(source, preparation.resize))
            for batch in _batches(frames):
                vectors.append(_unit(self._model(np.stack(batch))))
        vector = _unit(np.concatenate(vectors).mean(axis=0))
        return np.stack([vector, np.zeros_like(vector)])

    def _open(self) -> ImageModel:
        model = load_image_model(f"{PREFIX}{place_of(self._name)}", device=self._device)
        theirs = {"weights": self._record["weights"]} if "weights" in self._record else {}
        for _, here, there in contradictions({"weights": model.weights}, theirs):
            raise InputError(
                f"{self._name}: is not the model that made the videos' vectors (weights {here}, theirs {there}): give "
                "the one that made them as --text_model"
            )
        return model


def compares_pictures(trained: TrainedModel) -> bool:
    """Whether pictures can be asked with: what is seen are vectors of a model of images and text, as they are."""
    config, record = trained.checkpoint.config, trained.checkpoint.features.get("video", {})
    return config.compares_sentences and "video" in config.modalities and record.get("layer") == PROJECTED


def require_compares_pictures(trained: TrainedModel, asked: StrPath) -> None:
    """Raise an `InputError` where a picture cannot be asked with."""
    if not compares_pictures(trained):
        raise InputError(f"--query_image {os.fspath(asked)}: {NOT_COMPARED}")


def open_picture_model(trained: TrainedModel, name: str) -> PictureModel | None:
    """The picture model that goes with the text model of this name; None where pictures cannot be asked with."""
    if not compares_pictures(trained):
        return None
    return PictureModel(name, trained.checkpoint.features["video"], trained.device)


def _batches(frames: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    while batch := list(islice(frames, AT_ONCE)):
        yield batch


def _unit(vectors: np.ndarray) -> np.ndarray:
    """(…, D) of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
