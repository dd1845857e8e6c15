"""I3D: Inception-v1 inflated to three dimensions (Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017).

The RGB stream without its classifier. Names of layers are those of the paper's code, as PyTorch conversions of the
public weights have them (`Mixed_3b.b1a.conv3d.weight`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

FEATURE_SIZE = 1024
_BN_EPS = 1e-3

# channels of the branches: 1x1; 1x1 then 3x3; 1x1 then 3x3; pooling then 1x1
MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


def pad_same(x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int]) -> torch.Tensor:
    """Pad (…, T, H, W) with zeros as TensorFlow's "same" does, so that ceil(length / stride) places come out.

    When an odd number is missing, the larger half goes to the end.
    """
    padding: list[int] = []
    for length, k, s in zip(reversed(x.shape[-3:]), reversed(kernel), reversed(stride), strict=True):
        missing = max(k - (length % s or s), 0)
        padding += [missing // 2, missing - missing // 2]
    return F.pad(x, padding) if any(padding) else x


class Unit3D(nn.Module):
    """Convolution without bias, batch normalisation, ReLU; kernel and stride are the same in all three dimensions."""

    def __init__(self, size_in: int, size_out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(size_in, size_out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(size_out, eps=_BN_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, size_in, T, H, W) -> (B, size_out, ceil(T / stride), ceil(H / stride), ceil(W / stride))."""
        padded = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return F.relu(self.bn(self.conv3d(padded)), inplace=True)


class MaxPool3dSame(nn.MaxPool3d):
    """Max pooling with "same" padding: zeros, which are never more than what stands after a ReLU."""

    kernel_size: tuple[int, int, int]
    stride: tuple[int, int, int]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W), none negative -> (B, C, ceil(T / stride), …)."""
        return super().forward(pad_same(x, self.kernel_size, self.stride))


class InceptionBlock(nn.Module):
    """Four branches side by side; `sizes` are the channels of the six convolutions, see `MIXED`."""

    def __init__(self, size_in: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.b0 = Unit3D(size_in, sizes[0])
        self.b1a = Unit3D(size_in, sizes[1])
        self.b1b = Unit3D(sizes[1], sizes[2], 3)
        self.b2a = Unit3D(size_in, sizes[3])
        self.b2b = Unit3D(sizes[3], sizes[4], 3)
        self.b3a = MaxPool3dSame((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3D(size_in, sizes[5])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, size_in, T, H, W) -> (B, sizes[0] + sizes[2] + sizes[4] + sizes[5], T, H, W)."""
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return torch.cat(branches, dim=1)


class I3D(nn.Sequential):
    """The network up to its average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("Conv3d_1a_7x7", Unit3D(3, 64, 7, 2))
        self.add_module("MaxPool3d_2a_3x3", MaxPool3dSame((1, 3, 3), (1, 2, 2)))
        self.add_module("Conv3d_2b_1x1", Unit3D(64, 64))
        self.add_module("Conv3d_2c_3x3", Unit3D(64, 192, 3))
        self.add_module("MaxPool3d_3a_3x3", MaxPool3dSame((1, 3, 3), (1, 2, 2)))
        self._add_mixed("Mixed_3b", "Mixed_3c")
        self.add_module("MaxPool3d_4a_3x3", MaxPool3dSame((3, 3, 3), (2, 2, 2)))
        self._add_mixed("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f")
        self.add_module("MaxPool3d_5a_2x2", MaxPool3dSame((2, 2, 2), (2, 2, 2)))
        self._add_mixed("Mixed_5b", "Mixed_5c")

    def _add_mixed(self, *names: str) -> None:
        for name in names:
            self.add_module(name, InceptionBlock(*MIXED[name]))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) float32, RGB, in the range of values that the weights were trained with -> (B, 1024).

        The pooling is the published code's: windows of 2 x 7 x 7 places, then the mean over those, so that in time
        the outer places weigh half.
        """
        places = super().forward(frames)  # (B, 1024, ceil(T / 8), ceil(H / 32), ceil(W / 32))
        kernel = [min(most, length) for most, length in zip((2, 7, 7), places.shape[-3:], strict=True)]
        return F.avg_pool3d(places, kernel, stride=1).mean((2, 3, 4))
