"""I3D on Kinetics-400 (Carreira and Zisserman 2017, arXiv 1705.07750), whose logits FVD compares.

Names of layers are those of the public PyTorch ports, so their state dicts load. Padding is TensorFlow's "SAME".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["I3D", "same_padding"]

# Widths of the branches: 1x1; 1x1 then 3x3; 1x1 then 3x3; pooling then 1x1.
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
POOLS = {  # before these: size and stride over time, height, width
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
Sides = tuple[int, int, int]


def same_padding(x: Tensor, kernel: Sides, stride: Sides) -> Tensor:
    """Zeros around (b, c, t, h, w) so that ceil(size / stride) positions come out, the odd one behind."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        extra = max(k - (size % s or s), 0)
        pads += [extra // 2, extra - extra // 2]
    return F.pad(x, pads)


def _pool(x: Tensor, kernel: Sides, stride: Sides) -> Tensor:
    return F.max_pool3d(same_padding(x, kernel, stride), kernel, stride)


class Unit(nn.Module):
    """Convolution, batch norm, ReLU; the last layer of the network has a bias instead of both."""

    def __init__(self, into: int, out: int, size: int = 1, stride: int = 1, *, last: bool = False) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(into, out, size, stride, bias=last)
        self.bn: nn.Module | None = None if last else nn.BatchNorm3d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        size, stride = self.conv3d.kernel_size, self.conv3d.stride
        x = self.conv3d(same_padding(x, size, stride))  # type: ignore[arg-type]
        return x if self.bn is None else F.relu(self.bn(x))


class Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, into: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        a, b, c, d, e, f = widths
        self.b0 = Unit(into, a)
        self.b1a, self.b1b = Unit(into, b), Unit(b, c, 3)
        self.b2a, self.b2b = Unit(into, d), Unit(d, e, 3)
        self.b3b = Unit(into, f)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.b3b(_pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled], 1)


class I3D(nn.Module):
    """(b, 3, t, h, w) in [-1, 1] -> logits (b, 400), averaged over time and place."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        into = 192
        for name, widths in MIXED.items():
            self.add_module(name, Mixed(into, widths))
            into = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = Unit(into, 400, last=True)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            if name in POOLS:
                x = _pool(x, *POOLS[name])
            if name == "logits":
                x = x.mean((2, 3, 4), keepdim=True)
            x = layer(x)
        return x.flatten(1)
