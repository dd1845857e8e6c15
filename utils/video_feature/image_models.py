"""Image models that turn frames into features: torchvision's, timm's and transformers', with their own preprocessing.

model = load_image_model("resnet152", "resnet152.pth")
features = model(frames)  # (B, 224, 224, 3) uint8, RGB -> (B, 2048) float32
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from utils.basic_utils import InputError, StrPath, first_few, first_line
from utils.feature_files.provenance import weights_digest
from utils.pretrained.names import PREFIX, PROJECTED
from utils.video_feature.command_lines.frame_features import LAYERS, MAPS, POOLED
from utils.video_feature.sampling import Preparation, Resize
from utils.video_feature.weights_file import fill, read_state_dict, without_counters


class ImageModel:
    """A model in evaluation mode on a device.

    Args:
        name: as the record of its features has it.
        net: takes (B, 3, H, W) float32, gives (B, D) or (B, C, H, W).
        layer: which its output is.
        weights: digest of its weights.
        also: what the record of its features says besides.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        layer: str,
        preparation: Preparation,
        weights: str,
        device: torch.device,
        also: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.layer, self.preparation, self.weights, self.device = name, layer, preparation, weights, device
        self.also = dict(also or {})
        self._net = net.eval().to(device).to(memory_format=torch.channels_last)
        mean, std = torch.tensor((preparation.mean, preparation.std), device=device).view(2, 1, 3, 1, 1)
        self._scale, self._shift = 1 / (255 * std), mean / std

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8, RGB, resized and cropped as `preparation` says -> (B, D) float32."""
        pixels = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            found = self._net(pixels * self._scale - self._shift)
        return found.flatten(1).float().cpu().numpy()


def load_image_model(
    name: str,
    weights: StrPath | None = None,
    layer: str = POOLED,
    device: torch.device | None = None,
    bf16: bool = False,
) -> ImageModel:
    """A model without its classifier.

    Args:
        name: "resnet152", "torchvision/NAME" or "timm/NAME"; "hf/NAME" for a folder, or a name on the hub, of CLIP,
            SigLIP or SigLIP 2.
        weights: file with its state dict; None for those that the library downloads.
        layer: "pool5" for what goes into the classifier; see `MAPS` for others, of torchvision's ResNets.
        device: the CPU if None.
        bf16: an "hf/" model computes in bfloat16.

    Raises:
        InputError: there is no such model or layer, or its weights cannot be had.
    """
    library, _, short_name = name.rpartition("/")
    device = device or torch.device("cpu")
    if layer not in LAYERS:
        raise InputError(f"--layer {layer}: is none of {', '.join(LAYERS)}")
    if name.startswith(PREFIX):
        return _joint_model(name, weights, layer, device, bf16)
    if bf16:
        raise InputError(f"--bf16: {name} computes in float32, only hf/NAME models do otherwise: leave --bf16 out")
    if name == "resnet152" or library == "torchvision":
        net, preparation = _torchvision_model(short_name, weights)
    elif name.startswith("timm/"):
        if layer != POOLED:
            raise InputError(f"--layer {layer}: {name} offers {POOLED} only, which is what goes into its classifier")
        net, preparation = _timm_model(name.removeprefix("timm/"), weights)
    else:
        raise InputError(f"--model {name}: give resnet152, torchvision/NAME, timm/NAME or hf/NAME")
    digest = weights_digest(without_counters(net.state_dict()))
    if layer != POOLED:
        net = _until(net, short_name, layer)
    name = short_name if library == "torchvision" else name
    return ImageModel(name, net, layer, preparation, digest, device)


def _joint_model(name: str, weights: StrPath | None, layer: str, device: torch.device, bf16: bool) -> ImageModel:
    """The image tower of a model of images and text."""
    if weights is not None:
        raise InputError(f"{weights}: {name} brings its own weights: leave the file of weights out, or name its folder")
    if layer != POOLED:
        raise InputError(f"--layer {layer}: {name} offers the vector that compares with text only: leave --layer out")
    # transformers takes seconds to import
    from utils.pretrained.joint_model import load_joint_model
    from utils.video_feature.joint.image_tower import ImageTower, preparation_of

    joint = load_joint_model(name)
    preparation, record = preparation_of(joint), joint.record(bf16)
    also = {key: value for key, value in record.items() if key not in {"model", "weights"}}
    return ImageModel(
        joint.name, ImageTower(joint, preparation, bf16), PROJECTED, preparation, joint.digest, device, also
    )


def _torchvision_model(name: str, weights: StrPath | None) -> tuple[nn.Module, Preparation]:
    from torchvision import models  # takes seconds, which those who use timm or I3D need not spend

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"--model torchvision/{name}: torchvision has no such image model: {first_few(known, 100)}")
    net = models.get_model(name, weights=None)
    head = [path for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not head:
        raise InputError(f"--model torchvision/{name}: has no linear classifier that could be left out")
    parent, _, last = head[-1].rpartition(".")
    setattr(net.get_submodule(parent), last, nn.Identity())
    variants = models.get_model_weights(name)
    # of ResNet-152's two the older, which was the only one when TVR's features were made
    published = variants.IMAGENET1K_V1 if name == "resnet152" else variants.DEFAULT
    if weights is None:
        with _downloading(f"torchvision/{name}"):
            state, source = published.get_state_dict(progress=True), f"torchvision's {published}"
    else:
        state, source = read_state_dict(weights), str(weights)
    fill(net, state, source, head[-1])
    preset = published.transforms()
    resize = Resize(preset.resize_size[0], _interpolation(preset.interpolation.value))
    return net, Preparation(resize, preset.crop_size[0], tuple(preset.mean), tuple(preset.std))


def _until(net: nn.Module, name: str, layer: str) -> nn.Module:
    """The layers of a ResNet up to the one that gives a map."""
    names = [child for child, _ in net.named_children()]
    if MAPS[layer] not in names:
        raise InputError(f"--layer {layer}: {name} is no ResNet, {POOLED} is what it offers")
    return nn.Sequential(*net.children())[: names.index(MAPS[layer]) + 1]


def _timm_model(name: str, weights: StrPath | None) -> tuple[nn.Module, Preparation]:
    try:
        import timm
    except ImportError as err:
        raise InputError(
            f"--model timm/{name}: needs timm: pip install -r utils/video_feature/requirements.txt -c constraints.txt"
        ) from err
    if "/" not in name and ":" not in name and not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0][:8]}*")
        raise InputError(f"--model timm/{name}: timm has no such model; names like it: {first_few(near) or 'none'}")
    if weights is None:
        with _downloading(f"timm/{name}"):
            net: Any = timm.create_model(name, pretrained=True, num_classes=0)
    else:
        net = timm.create_model(name, pretrained=False, num_classes=0)
        heads = net.pretrained_cfg.get("classifier") or "classifier"
        fill(net, read_state_dict(weights), str(weights), heads if isinstance(heads, str) else heads[0])
    return net, _timm_preparation(name, timm.data.resolve_model_data_config(net))


def _timm_preparation(name: str, config: dict[str, Any]) -> Preparation:
    height, width = config["input_size"][-2:]
    mode = config.get("crop_mode") or "center"
    if height != width or mode not in {"center", "squash"}:
        raise InputError(f"--model timm/{name}: wants pictures of {height} x {width}, {mode}, which is not offered")
    side = math.floor(height / config["crop_pct"])
    resize = Resize(side, _interpolation(config["interpolation"]), square=mode == "squash")
    return Preparation(resize, height, tuple(config["mean"]), tuple(config["std"]))


def _interpolation(name: str) -> Any:
    return name if name in {"bilinear", "bicubic"} else "bicubic"


@contextlib.contextmanager
def _downloading(model: str) -> Iterator[None]:
    """Make a download that fails a message: libraries raise what their HTTP clients do, which is anything."""
    try:
        yield
    except Exception as err:
        raise InputError(
            f"--model {model}: its weights cannot be downloaded ({type(err).__name__}: {first_line(err)}): "
            "get them where there is a network, and give the file: --weights FILE"
        ) from err
