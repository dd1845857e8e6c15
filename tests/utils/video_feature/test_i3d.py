"""I3D is the published network, and takes its public weights under all the names they go by."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.basic_utils import InputError
from utils.model_utils import count_parameters
from utils.video_feature.i3d import FEATURE_SIZE, I3D, InceptionBlock, MaxPool3dSame, pad_same
from utils.video_feature.i3d_weights import NAMES, convert_names, load_i3d


@pytest.fixture(scope="module")
def net() -> I3D:
    torch.manual_seed(0)
    net = I3D().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return net


# (kernel side, channels in, channels out) of each convolution, written down from figure 3 of the paper and GoogLeNet's
# table: 1x1, 3x3 reduce, 3x3, "5x5" reduce, "5x5" (3x3x3 here), pool projection
GOOGLENET = [
    (192, 64, 96, 128, 16, 32, 32),
    (256, 128, 128, 192, 32, 96, 64),
    (480, 192, 96, 208, 16, 48, 64),
    (512, 160, 112, 224, 24, 64, 64),
    (512, 128, 128, 256, 24, 64, 64),
    (512, 112, 144, 288, 32, 64, 64),
    (528, 256, 160, 320, 32, 128, 128),
    (832, 256, 160, 320, 32, 128, 128),
    (832, 384, 192, 384, 48, 128, 128),
]


def test_the_number_of_parameters_is_that_of_the_published_network(net: I3D) -> None:
    convolutions = [(7, 3, 64), (1, 64, 64), (3, 64, 192)]
    for size_in, one, reduce3, three, reduce5, five, pool in GOOGLENET:
        convolutions += [(1, size_in, size) for size in (one, reduce3, reduce5, pool)]
        convolutions += [(3, reduce3, three), (3, reduce5, five)]
    weights = sum(side**3 * size_in * size_out for side, size_in, size_out in convolutions)
    scales_and_shifts = 2 * sum(size_out for _, _, size_out in convolutions)
    assert count_parameters(net) == weights + scales_and_shifts == 12_287_264


SHAPES = {  # (channels, frames, height, width) after each layer, for 64 frames of 224 x 224, from the paper's figure 3
    "Conv3d_1a_7x7": (64, 32, 112, 112),
    "MaxPool3d_2a_3x3": (64, 32, 56, 56),
    "Conv3d_2c_3x3": (192, 32, 56, 56),
    "MaxPool3d_3a_3x3": (192, 32, 28, 28),
    "Mixed_3b": (256, 32, 28, 28),
    "Mixed_3c": (480, 32, 28, 28),
    "MaxPool3d_4a_3x3": (480, 16, 14, 14),
    "Mixed_4b": (512, 16, 14, 14),
    "Mixed_4e": (528, 16, 14, 14),
    "Mixed_4f": (832, 16, 14, 14),
    "MaxPool3d_5a_2x2": (832, 8, 7, 7),
    "Mixed_5b": (832, 8, 7, 7),
    "Mixed_5c": (1024, 8, 7, 7),
}


def test_layers_have_the_published_shapes() -> None:
    with torch.device("meta"):  # shapes without arithmetic
        net = I3D().eval()
        x = torch.zeros(2, 3, 64, 224, 224)
        found = {}
        for name, layer in net.named_children():
            x = layer(x)
            found[name] = tuple(x.shape[1:])
        assert net(torch.zeros(2, 3, 23, 224, 224)).shape == (2, FEATURE_SIZE)
    assert {name: found[name] for name in SHAPES} == SHAPES


@settings(deadline=None)
@given(st.integers(1, 40), st.sampled_from([(7, 2), (3, 1), (3, 2), (2, 2), (1, 1), (1, 2)]))
def test_padding_is_that_of_tensorflow(length: int, layer: tuple[int, int]) -> None:
    """By its documentation: output ceil(length / stride), the larger half of an odd padding at the end."""
    kernel, stride = layer
    n_out = -(-length // stride)
    missing = max((n_out - 1) * stride + kernel - length, 0)
    padded = pad_same(torch.ones(1, 1, length, 1, 1), (kernel, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
    expected = [0.0] * (missing // 2) + [1.0] * length + [0.0] * (missing - missing // 2)
    assert padded.tolist() == expected


def plain_convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """ "Same" convolution of stride 1 in numpy: (C, T, H, W) and (out, C, k, k, k) with odd k."""
    k = kernel.shape[-1]
    padded = np.pad(x, [(0, 0)] + [(k // 2, k // 2)] * 3)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k, k), axis=(1, 2, 3))
    return np.einsum("cthwijk,ocijk->othw", windows, kernel)


def plain_block(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """An Inception block in numpy, float64."""

    def unit(x: np.ndarray, name: str) -> np.ndarray:
        values = {part: state[f"{name}.bn.{part}"][:, None, None, None] for part in ("weight", "bias")}
        mean, var = (state[f"{name}.bn.running_{part}"][:, None, None, None] for part in ("mean", "var"))
        y = plain_convolution(x, state[f"{name}.conv3d.weight"])
        return np.maximum((y - mean) / np.sqrt(var + 0.001) * values["weight"] + values["bias"], 0)

    padded = np.pad(x, [(0, 0)] + [(1, 1)] * 3, constant_values=-np.inf)
    pooled = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), axis=(1, 2, 3)).max((-3, -2, -1))
    branches = [unit(x, "b0"), unit(unit(x, "b1a"), "b1b"), unit(unit(x, "b2a"), "b2b"), unit(pooled, "b3b")]
    return np.concatenate(branches)


def test_an_inception_block_equals_a_plain_one() -> None:
    torch.manual_seed(1)
    block = InceptionBlock(10, (4, 3, 6, 2, 5, 3)).eval()
    for name, tensor in block.state_dict().items():
        if "bn" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    x = torch.rand(1, 10, 5, 6, 7)  # after a ReLU nothing is negative
    with torch.no_grad():
        ours = block(x)[0].numpy()
    state = {name: tensor.double().numpy() for name, tensor in block.state_dict().items()}
    plain = plain_block(x[0].double().numpy(), state)
    assert ours.shape == (4 + 6 + 5 + 3, 5, 6, 7)
    np.testing.assert_allclose(ours, plain, atol=1e-5)


@pytest.mark.parametrize("length", [7, 8])
def test_strided_layers_equal_plain_ones_with_padding_written_out(net: I3D, length: int) -> None:
    x = torch.rand(1, 3, length, 9, 10)
    padding = [2, 3] if length == 8 else [3, 3]  # 7 - 2 = 5 are missing to an even length, 6 to an odd one
    with torch.no_grad():
        ours = net.Conv3d_1a_7x7(x)
        unit = net.Conv3d_1a_7x7
        y = F.conv3d(F.pad(x, [2, 3, 3, 3, *padding]), unit.conv3d.weight, stride=2)
        plain = F.relu(
            F.batch_norm(y, unit.bn.running_mean, unit.bn.running_var, unit.bn.weight, unit.bn.bias, eps=1e-3)
        )
    torch.testing.assert_close(ours, plain)
    pooled = MaxPool3dSame((1, 3, 3), (1, 2, 2))(x)
    plain_pooled = F.max_pool3d(F.pad(x, [0, 1, 1, 1, 0, 0], value=-torch.inf), (1, 3, 3), (1, 2, 2))
    torch.testing.assert_close(pooled, plain_pooled)


def test_features_are_the_mean_of_windows_of_two(net: I3D) -> None:
    """Of three places in time the middle one is in both windows."""
    x = torch.rand(1, 3, 23, 40, 40)
    with torch.no_grad():
        features = net(x)
        for layer in net:
            x = layer(x)
    assert x.shape == (1, 1024, 3, 2, 2)
    weights = torch.tensor([0.25, 0.5, 0.25])
    torch.testing.assert_close(features, (x.mean((3, 4)) * weights).sum(2))


def with_head(net: I3D, n_classes: int = 6) -> dict[str, torch.Tensor]:
    head = {"logits.conv3d.weight": torch.rand(n_classes, 1024, 1, 1, 1), "logits.conv3d.bias": torch.rand(n_classes)}
    return {**net.state_dict(), **head}


def renamed(state: dict[str, torch.Tensor], naming: str) -> dict[str, torch.Tensor]:
    theirs = NAMES[naming]
    return {theirs[name]: tensor for name, tensor in state.items() if name in theirs}


def as_tensorflow(state: dict[str, torch.Tensor], scope: str = "RGB/inception_i3d/") -> dict[str, torch.Tensor]:
    """As the published checkpoints: other layout, and no scale in batch normalisation."""
    found = {}
    for name, tensor in renamed(state, "tensorflow").items():
        if name.endswith("gamma"):
            continue
        if name.endswith("conv_3d/w"):
            tensor = tensor.permute(2, 3, 4, 1, 0)
        elif "batch_norm" in name:
            tensor = tensor.view(1, 1, 1, 1, -1)
        found[scope + name] = tensor
    return found


def assert_is(net: I3D, other: I3D) -> None:
    for (name, ours), theirs in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("naming", ["i3d", "kinetics_i3d"])
def test_pytorch_conversions_load(net: I3D, tmp_path: Path, naming: str, capsys: pytest.CaptureFixture[str]) -> None:
    state = renamed(with_head(net, 400), naming)
    torch.save(state, tmp_path / "rgb.pt")
    found, weights = load_i3d(tmp_path / "rgb.pt")
    assert_is(net, found)
    assert (weights.naming, weights.n_classes, weights.unmatched) == (naming, 400, [])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("suffix", ["", ":0"])
def test_variables_of_tensorflow_load(net: I3D, tmp_path: Path, suffix: str) -> None:
    variables = {f"{name}{suffix}": tensor.numpy() for name, tensor in as_tensorflow(with_head(net, 600)).items()}
    np.savez(tmp_path / "rgb.npz", **variables)
    found, weights = load_i3d(tmp_path / "rgb.npz")
    assert_is(net, found)
    assert (weights.naming, weights.n_classes) == ("tensorflow", 600)


PUBLISHED = {  # names as they stand in the three sources
    "i3d": [
        "Conv3d_1a_7x7.conv3d.weight",
        "Conv3d_2c_3x3.bn.running_var",
        "Mixed_4f.b2b.bn.bias",
        "logits.conv3d.bias",
    ],
    "kinetics_i3d": [
        "conv3d_1a_7x7.conv3d.weight",
        "conv3d_2c_3x3.batch3d.running_var",
        "mixed_4f.branch_2.1.batch3d.bias",
        "conv3d_0c_1x1.conv3d.bias",
    ],
    "tensorflow": [
        "Conv3d_1a_7x7/conv_3d/w",
        "Conv3d_2c_3x3/batch_norm/moving_variance",
        "Mixed_4f/Branch_2/Conv3d_0b_3x3/batch_norm/beta",
        "Logits/Conv3d_0c_1x1/conv_3d/b",
    ],
}


@pytest.mark.parametrize("naming", PUBLISHED)
def test_names_are_the_published_ones(naming: str) -> None:
    assert [NAMES[naming][name] for name in PUBLISHED["i3d"]] == PUBLISHED[naming]
    assert len(set(NAMES[naming].values())) == len(NAMES[naming]) == 57 * 5 + 2


def test_the_block_that_tensorflow_misnames_is_found() -> None:
    theirs = NAMES["tensorflow"]
    assert theirs["Mixed_5b.b2b.conv3d.weight"] == "Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w"
    assert theirs["Mixed_5c.b2b.conv3d.weight"] == "Mixed_5c/Branch_2/Conv3d_0b_3x3/conv_3d/w"


def test_names_that_fit_nothing_are_told(net: I3D, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({**net.state_dict(), "global_step": torch.zeros(1)}, tmp_path / "rgb.pt")
    _, weights = load_i3d(tmp_path / "rgb.pt")
    assert weights.unmatched == ["global_step"]
    assert weights.n_classes is None
    assert "not used: global_step" in capsys.readouterr().err


def test_weights_that_are_missing_or_of_another_network_are_refused(net: I3D, tmp_path: Path) -> None:
    state = net.state_dict()
    with pytest.raises(InputError, match=r"no weights of I3D under a known name, but conv1\.weight"):
        convert_names({"conv1.weight": torch.zeros(1)}, "a.pt")
    torch.save({name: state[name] for name in state if not name.startswith("Mixed_5c")}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt: lacks Mixed_5c\.b0\.conv3d\.weight"):
        load_i3d(tmp_path / "a.pt")
    torch.save({**state, "Conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 2, 7, 7, 7)}, tmp_path / "flow.pt")
    with pytest.raises(InputError, match=r"flow\.pt: has other shapes of Conv3d_1a_7x7"):
        load_i3d(tmp_path / "flow.pt")


class _Harmful:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("harm_was_done",)


def test_pickles_in_arrays_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", w=np.array([_Harmful()], object))
    Path("b.npz").write_bytes(b"not arrays")
    Path("c.npz").write_bytes(pickle.dumps(_Harmful()))
    os.mkfifo("pipe.npz")
    for name in ("a.npz", "b.npz", "c.npz", "nothing.npz", "pipe.npz"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read"):
            load_i3d(name)
    assert not Path("harm_was_done").exists()
