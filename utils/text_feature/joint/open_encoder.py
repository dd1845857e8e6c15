"""Whichever text model a name means: a language model, or the text tower of a model of images and text."""

from __future__ import annotations

import torch

from utils.basic_utils import InputError
from utils.pretrained.joint_model import TYPES, load_joint_model, source_of
from utils.pretrained.names import PREFIX
from utils.text_feature.joint.text_tower import JointTextEncoder
from utils.text_feature.text_encoder import DEFAULT_LAYER, TextEncoder, TokenEncoder


def open_text_encoder(
    name: str,
    layer: int | None = None,
    max_length: int = 32,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    bf16: bool = False,
) -> TokenEncoder:
    """A text encoder of `transformers`: see `TextEncoder`, and `JointTextEncoder` for models of images and text.

    Args:
        name: a folder or a name on the hub; "hf/NAME" has to be a model of images and text.
        layer: of a language model, the second to last if None. The others have one that is read.

    Raises:
        InputError: the model cannot be loaded, or an option makes no sense with it.
    """
    if not name.startswith(PREFIX) and source_of(name).model_type not in TYPES:
        return TextEncoder(name, DEFAULT_LAYER if layer is None else layer, max_length, device, batch_size, bf16)
    if layer is not None:
        raise InputError(
            f"--layer {layer}: {name} is a model of images and text, of which the last layer alone is read: leave it "
            "out, or give another text model"
        )
    return JointTextEncoder(load_joint_model(name), max_length, device, batch_size, bf16)
