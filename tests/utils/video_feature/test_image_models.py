"""Image models give what their libraries give, with weights from files of any origin, and run no code from them."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from tests.support.video_files import efficientnet_weights, real_video
from utils.basic_utils import InputError
from utils.video_feature import image_models
from utils.video_feature.frames import open_video
from utils.video_feature.image_models import ImageModel, load_image_model
from utils.video_feature.sampling import centre_crop
from utils.video_feature.weights_file import read_state_dict

NAME = "torchvision/resnet18"


@pytest.fixture(scope="module")
def resnet() -> torchvision.models.ResNet:
    """Drawn weights, normalisation that does something."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net


@pytest.fixture(scope="module")
def resnet_file(resnet: torchvision.models.ResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def small(resnet_file: Path) -> ImageModel:
    return load_image_model(NAME, resnet_file)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)


def test_layers_of_a_resnet_are_those_of_torchvision(resnet, resnet_file: Path, frames: np.ndarray) -> None:
    found = {layer: load_image_model(NAME, resnet_file, layer)(frames) for layer in ("pool5", "res5c", "c3")}
    assert {layer: rows.shape for layer, rows in found.items()} == {
        "pool5": (2, 512),
        "res5c": (2, 512 * 7 * 7),
        "c3": (2, 128 * 28 * 28),
    }
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.from_numpy(frames) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        c3 = resnet.layer2(resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))))
        res5c = resnet.layer4(resnet.layer3(c3))
    np.testing.assert_allclose(found["c3"], c3.flatten(1), atol=1e-4)
    np.testing.assert_allclose(found["res5c"], res5c.flatten(1), atol=1e-4)
    np.testing.assert_allclose(found["pool5"], res5c.mean((2, 3)), atol=1e-4)


def test_resnet152_is_that_of_tvr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.init, "kaiming_normal_", lambda tensor, **_: tensor)  # drawing takes seconds
    with torch.device("meta"):
        state = torchvision.models.resnet152(weights=None).state_dict()
    torch.save({name: torch.zeros(tensor.shape) for name, tensor in state.items()}, tmp_path / "resnet152.pth")
    model = load_image_model("resnet152", tmp_path / "resnet152.pth")
    assert (model.name, model.layer) == ("resnet152", "pool5")
    assert model(np.zeros((1, 224, 224, 3), np.uint8)).shape == (1, 2048)
    assert model.preparation.crop == 224
    assert (model.preparation.resize.shorter_side, model.preparation.resize.interpolation) == (256, "bilinear")
    assert model.preparation.value_range == "imagenet"


def write_plain(state: dict, path: Path) -> None:
    torch.save(state, path)


def write_wrapped(state: dict, path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)


def write_safetensors(state: dict, path: Path) -> None:
    save_file(state, path)


def write_without_classifier(state: dict, path: Path) -> None:
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("fc.")}, path)


def write_old(state: dict, path: Path) -> None:
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    torch.save(
        {name: state[name] for name in state if name not in counters}, path, _use_new_zipfile_serialization=False
    )


@pytest.mark.parametrize("write", [write_wrapped, write_safetensors, write_without_classifier, write_old])
def test_weights_are_the_same_from_any_form_of_file(
    resnet, small: ImageModel, frames: np.ndarray, tmp_path: Path, write: Callable[[dict, Path], None]
) -> None:
    path = tmp_path / ("a.safetensors" if write is write_safetensors else "a.pth")
    write(resnet.state_dict(), path)
    other = load_image_model(NAME, path)
    assert small.weights == other.weights
    np.testing.assert_array_equal(small(frames[:1]), other(frames[:1]))


def test_other_weights_have_another_digest(resnet, small: ImageModel, tmp_path: Path) -> None:
    state = {**resnet.state_dict(), "layer1.0.bn1.running_mean": torch.ones(64)}
    torch.save(state, tmp_path / "a.pth")
    assert load_image_model(NAME, tmp_path / "a.pth").weights != small.weights


class _Harmful:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("harm_was_done",)


def test_code_in_a_file_of_weights_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"conv1.weight": _Harmful()}, protocol=2))
    torch.save({"conv1.weight": _Harmful()}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(InputError, match=f"{name}: cannot be read as weights"):
            read_state_dict(name)
    assert not Path("harm_was_done").exists()


@pytest.mark.parametrize("content", [b"", b"not weights", bytes(5000)])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_damaged_weights_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: cannot be read as weights"):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {1: torch.zeros(1)}, torch.zeros(3)])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match="state dict"):
        read_state_dict(tmp_path / "a.pth")


def test_missing_weights_are_named() -> None:
    with pytest.raises(InputError, match=r"nothing\.pth: weights not found"):
        load_image_model(NAME, "nothing.pth")


@pytest.mark.parametrize("name", ["torchvision/resnet34", "torchvision/resnet50", "timm/efficientnet_lite0"])
def test_weights_of_another_model_are_refused(resnet_file: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"resnet18\.pth: (lacks|has other shapes)"):
        load_image_model(name, resnet_file)


def test_names_that_are_not_used_are_told(resnet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({**resnet.state_dict(), "layer9.weight": torch.zeros(1)}, tmp_path / "a.pth")
    load_image_model(NAME, tmp_path / "a.pth")
    assert "not used: layer9.weight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "layer", "why"),
    [
        ("vgg16", "pool5", "give resnet152, torchvision/NAME, timm/NAME or hf/NAME"),
        ("torchvision/nothing", "pool5", "torchvision has no such image model"),
        ("torchvision/r3d_18", "pool5", "torchvision has no such image model"),
        ("torchvision/squeezenet1_0", "pool5", "no linear classifier"),
        ("timm/nothing", "pool5", "timm has no such model"),
        ("timm/efficientnet_lite0", "c3", "offers pool5 only"),
        ("torchvision/mobilenet_v2", "c3", "is no ResNet"),
        ("resnet152", "c9", "is none of pool5, res5c, c3"),
    ],
)
def test_models_and_layers_that_are_not_offered_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, layer: str, why: str
) -> None:
    monkeypatch.setattr(image_models, "fill", lambda *_: None)  # nothing is downloaded for what cannot work
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda *_, **__: {})
    with pytest.raises(InputError, match=why):
        load_image_model(name, None, layer)


def test_without_a_network_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(InputError, match=r"cannot be downloaded \(URLError.*--weights FILE"):
        load_image_model(NAME)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"timm/efficientnet_lite0: its weights cannot be downloaded"):
        load_image_model("timm/efficientnet_lite0")


def test_without_timm_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install -r utils/video_feature/requirements\.txt"):
        load_image_model("timm/efficientnet_lite0")


@pytest.fixture(scope="module")
def efficientnet() -> ImageModel:
    return load_image_model("timm/tf_efficientnet_lite0", efficientnet_weights())


def whole_frame(second: float) -> np.ndarray:
    return next(open_video(real_video("bikes"), decode_threads=1).frames([second]))[1]


def test_real_frames_give_the_features_that_timm_gives(efficientnet: ImageModel) -> None:
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    in_order = iter(torch.load(efficientnet_weights(), weights_only=True).values())
    net.load_state_dict({name: next(in_order) for name in net.state_dict()})
    config = timm.data.resolve_model_data_config(net)
    with torch.no_grad():
        pixels = timm.data.create_transform(**config, is_training=False)(Image.fromarray(whole_frame(1.3)))
        theirs = net(pixels[None]).numpy()[0]
    preparation = efficientnet.preparation
    same = ((pixels * 0.5 + 0.5) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(efficientnet(same[None])[0], theirs, atol=1e-3)
    _, frame = next(open_video(real_video("bikes"), decode_threads=1).frames([1.3], preparation.resize))
    ours = efficientnet(centre_crop(frame, preparation.crop)[None])[0]
    assert len(ours) == 1280
    assert (
        ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.99
    )  # another scaler, from other pixels: those of the file, not RGB


def test_real_weights_see_what_is_there(efficientnet: ImageModel) -> None:
    """At 1.3 s a man in a suit, with a tie, stands before cars."""
    state = torch.load(efficientnet_weights(), weights_only=True)
    _, frame = next(open_video(real_video("bikes"), decode_threads=1).frames([1.3], efficientnet.preparation.resize))
    features = torch.from_numpy(efficientnet(centre_crop(frame, 224)[None]))
    classes = (features @ state["_fc.weight"].T + state["_fc.bias"])[0].topk(2).indices
    names = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    assert [names[number] for number in classes] == ["suit", "Windsor tie"]


def test_weights_whose_order_differs_in_kind_are_not_taken_in_order(tmp_path: Path) -> None:
    state = torch.load(efficientnet_weights(), weights_only=True)
    names = list(state)
    first, second = names.index("_bn0.weight"), names.index("_bn0.bias")
    names[first], names[second] = names[second], names[first]
    torch.save({name: state[name] for name in names}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="another model"):
        load_image_model("timm/tf_efficientnet_lite0", tmp_path / "a.pth")


@pytest.mark.parametrize(("height", "width"), [(224, 224), (224, 399), (225, 224), (227, 300)])
def test_the_middle_is_cut_out_as_torchvision_does(height: int, width: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    theirs = torchvision.transforms.functional.center_crop(torch.from_numpy(frame).permute(2, 0, 1), [224, 224])
    np.testing.assert_array_equal(centre_crop(frame, 224), theirs.permute(1, 2, 0))


@pytest.mark.parametrize(
    ("config", "square"), [({"crop_mode": "center"}, False), ({"crop_mode": "squash"}, True), ({}, False)]
)
def test_preparations_of_timm_are_followed(config: dict, square: bool) -> None:
    plain = {"input_size": (3, 240, 240), "crop_pct": 0.96, "interpolation": "bicubic"}
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    preparation = image_models._timm_preparation("a", {**plain, **half, **config})
    assert (preparation.resize.shorter_side, preparation.resize.square, preparation.crop) == (250, square, 240)
    assert preparation.value_range == "[-1,1]"
    with pytest.raises(InputError, match="not offered"):
        image_models._timm_preparation("a", {**plain, **half, "crop_mode": "border"})
