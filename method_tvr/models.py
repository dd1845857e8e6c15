"""The models by their names. Adding one is one more entry, see CONTRIBUTING.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from method_tvr import xml_model
from method_tvr.model import ModelConfig
from method_tvr.options.models import RELOCLNET, XML, ZERO_SHOT
from method_tvr.xml_model import XMLConfig
from method_tvr.zero_shot_model import ZeroShotConfig
from utils.basic_utils import recorded

CONFIGS: dict[str, type[ModelConfig]] = {RELOCLNET: ModelConfig, XML: XMLConfig, ZERO_SHOT: ZeroShotConfig}
LATER = {"all_negatives": False}  # left out of files where it is so, which are what they were before there was one
NAME = "name"  # of the model, in a `model_cfg` of ours; published checkpoints have none


def config_of(model_cfg: Mapping[str, Any]) -> ModelConfig:
    """Sizes and settings of a model from a checkpoint's `model_cfg`, or from options; a `ValueError` if it is none."""
    name = model_cfg.get(NAME) or (XML if "merge_two_stream" in model_cfg else RELOCLNET)
    if name not in CONFIGS:
        raise ValueError(f"a model {name!r}, this code knows {', '.join(CONFIGS)}")
    if name == XML and (reason := xml_model.unsupported(model_cfg)):
        raise ValueError(reason)
    return CONFIGS[name].from_dict(model_cfg)


def name_of(config: ModelConfig) -> str:
    """The name of the model that a config is of."""
    return next(name for name, kind in CONFIGS.items() if type(config) is kind)


def model_cfg_of(config: ModelConfig) -> dict[str, Any]:
    """The `model_cfg` of a config, without its name."""
    return recorded(config, LATER)
