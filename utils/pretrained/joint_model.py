"""Models of images and text in one space: CLIP, SigLIP and SigLIP 2 of `transformers`.

joint = load_joint_model("hf/google/siglip-base-patch16-224")

Weights are loaded as tensors from safetensors, never unpickled, and all parts of a model from one revision of the hub.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from transformers import AutoModel, PretrainedConfig
from transformers.utils import cached_file

from utils.basic_utils import InputError, first_few
from utils.feature_files.provenance import weights_digest
from utils.pretrained.loading import loaded
from utils.pretrained.names import place_of, short_name

CLIP, SIGLIP, SIGLIP2 = TYPES = ("clip", "siglip", "siglip2")  # `model_type` in config.json
_COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})/")  # in the hub's cache


@dataclass(frozen=True)
class Source:
    """A folder, or a name on the hub with the revision that is read, which is "" where nothing says it."""

    place: str
    revision: str
    model_type: str  # "" where config.json does not say it

    @property
    def options(self) -> dict[str, str]:
        """For what loads parts of the model."""
        return {"revision": self.revision} if self.revision else {}


@dataclass(frozen=True)
class JointModel:
    """Both towers, in float32 and evaluation mode."""

    model: Any
    source: Source
    digest: str  # of the weights of both towers: vectors of one digest can be compared

    @property
    def name(self) -> str:
        """What the record of features calls it."""
        return short_name(self.source.place)

    def record(self, bf16: bool) -> dict[str, str]:
        """What decides its features, see `provenance`."""
        said = {"model": self.name, "weights": self.digest, "precision": "bfloat16" if bf16 else "float32"}
        return said | self.source.options


def source_of(name: str) -> Source:
    """Where a model lies: `name` is a folder, or NAME or NAME@REVISION on the hub, each perhaps after "hf/".

    `InputError` when nothing is there, or it cannot be reached.
    """
    place, revision = place_of(name), ""
    if not os.path.isdir(place):
        place, _, revision = place.partition("@")
    asked = {"revision": revision} if revision else {}
    config, _ = loaded(PretrainedConfig.get_config_dict, place, "configuration", **asked)
    if not isinstance(config, dict):
        raise InputError(f"{name}: its config.json holds a {type(config).__name__}, not an object: is it a model's?")
    if not os.path.isdir(place) and (path := loaded(_config_path, place, "configuration", **asked)):
        commit = _COMMIT.search(path)
        revision = commit[1] if commit else revision
    return Source(place, revision, str(config.get("model_type", "")))


def _config_path(place: str, trust_remote_code: bool, **options: str) -> str | None:
    """Where the hub's cache has a model's config.json."""
    return cached_file(place, "config.json", **options)


def load_joint_model(name: str) -> JointModel:
    """The model that `source_of` finds.

    Raises:
        InputError: there is none, it is of another kind, or its weights are damaged or not in safetensors.
    """
    source = source_of(name)
    if source.model_type not in TYPES:
        found = source.model_type or "model of no known type"
        raise InputError(f"{name}: is a {found}, not a model of images and text: give a CLIP, SigLIP or SigLIP 2 model")
    options: dict[str, Any] = {"output_loading_info": True, "use_safetensors": True, **source.options}
    model, info = loaded(AutoModel.from_pretrained, source.place, "model", **options)
    if lacking := sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]])):
        raise InputError(f"{name}: has no weights that fit for {first_few(lacking)}: is it whole?")
    model = model.float().eval()  # files may hold half precision
    return JointModel(model, source, weights_digest(dict(model.named_parameters())))
