"""The image towers of CLIP, SigLIP and SigLIP 2, and how pictures are prepared for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from transformers.image_processing_base import ImageProcessingMixin

from utils.basic_utils import InputError
from utils.pretrained.joint_model import CLIP, SIGLIP2, JointModel
from utils.pretrained.loading import loaded
from utils.video_feature import sampling
from utils.video_feature.sampling import Interpolation, PatchResize, Preparation, Resize

_INTERPOLATIONS: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}  # as PIL numbers them
_NOT_OFFERED = "is not offered: give a model that resizes, rescales and, if at all, cuts out a square"


class ImageTower(nn.Module):
    """Pictures (B, 3, H, W) float32, prepared, to what transformers' `get_image_features` gives, (B, D).

    The text tower is let go.
    """

    def __init__(self, joint: JointModel, preparation: Preparation, bf16: bool) -> None:
        super().__init__()
        self.joint, self._bf16 = joint.model, bf16
        self.joint.text_model = None
        self._patches = preparation.resize if isinstance(preparation.resize, PatchResize) else None

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        given = {"pixel_values": pixels} if self._patches is None else patches_of(pixels, self._patches)
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            found = self.joint.get_image_features(**given)
        return getattr(found, "pooler_output", found)  # transformers 4 gives the tensor itself


def patches_of(pixels: torch.Tensor, form: PatchResize) -> dict[str, torch.Tensor]:
    """What SigLIP 2 takes for pictures (B, 3, H, W): their patches, row by row, filled up to `form.most`.

    `pixel_values` (B, most, patch * patch * 3), `pixel_attention_mask` (B, most) int, 1 = patch, `spatial_shapes`
    (B, 2) patches from top to bottom and from left to right.
    """
    n, channels, height, width = pixels.shape
    down, across, side = height // form.patch, width // form.patch, form.patch
    cut = pixels.reshape(n, channels, down, side, across, side).permute(0, 2, 4, 3, 5, 1)
    patches = cut.reshape(n, down * across, side * side * channels)
    mask = torch.ones(n, down * across, dtype=torch.int32, device=pixels.device)
    empty = form.most - down * across
    return {
        "pixel_values": pad(patches, (0, 0, 0, empty)),
        "pixel_attention_mask": pad(mask, (0, empty)),
        "spatial_shapes": torch.tensor([[down, across]] * n, device=pixels.device),
    }


def preparation_of(joint: JointModel) -> Preparation:
    """How pictures are prepared, as the model's `preprocessor_config.json` says.

    `InputError` when it has none, or asks for what is not offered.
    """
    where = f"{joint.source.place}, preprocessor_config.json"
    said = loaded(_processor_dict, joint.source.place, "preparation of pictures", **joint.source.options)
    try:
        return _preparation(said, joint)
    except (TypeError, ValueError, KeyError, AttributeError) as err:
        raise InputError(f"{where}: cannot be understood ({type(err).__name__}: {err}): mend or download it") from err
    except InputError as err:
        raise InputError(f"{where}: {err}") from err


def _processor_dict(place: str, trust_remote_code: bool, **options: str) -> dict[str, Any]:
    return ImageProcessingMixin.get_image_processor_dict(place, **options)[0]


def _preparation(said: dict[str, Any], joint: JointModel) -> Preparation:
    kind, config = joint.source.model_type, joint.model.config.vision_config
    if not said.get("do_resize", True) or not said.get("do_rescale", True):
        raise InputError(f"do_resize or do_rescale false {_NOT_OFFERED}")
    if not math.isclose(factor := float(said.get("rescale_factor", 1 / 255)), 1 / 255, rel_tol=1e-6):
        raise InputError(f"rescale_factor {factor} {_NOT_OFFERED}")
    mean, std = sampling.CLIP if kind == CLIP else sampling.HALF
    mean, std = _triple(said.get("image_mean", mean)), _triple(said.get("image_std", std))
    if not said.get("do_normalize", True):
        mean, std = _triple([0, 0, 0]), _triple([1, 1, 1])
    if min(std) <= 0:
        raise ValueError(f"image_std {std} is not above 0")
    interpolation = _INTERPOLATIONS.get(said.get("resample", 2 if kind == SIGLIP2 else 3), "bicubic")
    if kind == SIGLIP2:
        patch, most = said.get("patch_size", config.patch_size), int(said.get("max_num_patches", 256))
        if patch != config.patch_size or most < 1:
            raise InputError(f"{most} patches of {patch} pixels: the model takes patches of {config.patch_size}")
        return Preparation(PatchResize(patch, most, interpolation), None, mean, std)
    shorter, square = _size(said.get("size", config.image_size), kind == CLIP)
    crops = said.get("do_center_crop", kind == CLIP)
    crop = _size(said.get("crop_size", shorter), False)[0] if crops else shorter
    if crop > shorter or not (square or crops):
        raise InputError(f"a square of {crop} out of {said.get('size')} {_NOT_OFFERED}")
    if crop != config.image_size:
        raise InputError(
            f"makes pictures of {crop} x {crop}, and the model takes {config.image_size}: is it of another?"
        )
    return Preparation(Resize(shorter, interpolation, square), crop, mean, std, floors=True)


def _triple(values: Any) -> tuple[float, float, float]:
    """A number for each channel."""
    found = list(map(float, values))
    if len(found) != 3 or not all(map(math.isfinite, found)):
        raise ValueError(f"{values} are not three numbers")
    return found[0], found[1], found[2]


def _size(said: Any, keeps_shape: bool) -> tuple[int, bool]:
    """(pixels, whether both sides get them) of a size, which older files give as one number."""
    if isinstance(said, int):
        return said, not keeps_shape
    if "shortest_edge" in said:
        return int(said["shortest_edge"]), False
    if said["height"] != said["width"]:
        raise InputError(f"pictures of {said['height']} x {said['width']}: {_NOT_OFFERED}")
    return int(said["height"]), True
