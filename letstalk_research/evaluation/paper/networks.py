"""Networks of the papers' metrics, with the names of layers of their public ports, so that state dicts load.

IResNet is ArcFace's residual network (Deng et al. 2019, arXiv 1801.07698), whose embeddings CSIM compares, as in
InsightFace's `arcface_torch`; depth and width follow from the weights. I3D on Kinetics-400 (Carreira and Zisserman
2017, arXiv 1705.07750) gives the logits that FVD compares; its padding is TensorFlow's "SAME".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from letstalk_core.errors import CheckpointError
from letstalk_core.networks.face_points import CORNERS, IRISES, NOSE_TIP

SIDE = 112
# Where eyes, tip of the nose and corners of the mouth lie in an aligned face; those of the picture's left first.
TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
FIVE = (*IRISES, NOSE_TIP, *CORNERS)
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


class Block(nn.Module):
    """Two 3x3 convolutions between batch norms, beside a straight way."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(into), nn.Conv2d(into, out, 3, 1, 1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(out), nn.PReLU(out)
        self.conv2, self.bn3 = nn.Conv2d(out, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride > 1 or into != out:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """Aligned faces (b, 3, 112, 112) in [-1, 1] -> embeddings (b, d)."""

    def __init__(self, depths: tuple[int, ...] = (3, 4, 14, 3), width: int = 64, embedding: int = 512) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        into = width
        for i, depth in enumerate(depths):
            out = width * 2**i
            blocks = [Block(into if k == 0 else out, out, 2 if k == 0 else 1) for k in range(depth)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            into = out
        self.bn2, self.fc = nn.BatchNorm2d(into), nn.Linear(into * (SIDE // 2 ** len(depths)) ** 2, embedding)
        self.features = nn.BatchNorm1d(embedding)

    @classmethod
    def like(cls, tensors: Mapping[str, Tensor]) -> IResNet:
        """One of the shape of these weights. Raises: CheckpointError if they are of another network."""
        try:
            depths = tuple(
                len({k.split(".")[1] for k in tensors if k.startswith(f"layer{i}.")}) for i in range(1, 5)
            )
            return cls(depths, tensors["conv1.weight"].shape[0], tensors["fc.weight"].shape[0])
        except (KeyError, IndexError):
            raise CheckpointError(
                f"not a backbone of arcface_torch: no conv1.weight or fc.weight; first are {sorted(tensors)[:5]}"
            ) from None

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
        y: Tensor = self.features(self.fc(self.bn2(x).flatten(1)))
        return y


def aligned_faces(frames: Tensor, points: NDArray[np.float64]) -> Tensor:
    """Faces as the network knows them: (t, h, w, 3) uint8 and points (t, 478, 2) -> (t, 3, 112, 112) in [-1, 1].

    Moved, turned and scaled so that five points lie nearest to the template (least squares).
    """
    height, width = frames.shape[1:3]
    to = np.array(TEMPLATE) @ (1, 1j)
    pixels = np.arange(SIDE)[None, :] + 1j * np.arange(SIDE)[:, None]
    faces = []
    for frame, found in zip(frames, points[:, list(FIVE)] @ np.array((1, 1j)), strict=True):
        a, b = found - found.mean(), to - to.mean()
        fit = (b * a.conj()).sum() / (abs(a) ** 2).sum()
        source = (pixels - to.mean()) / fit + found.mean()
        grid = np.stack([source.real / (width - 1) * 2 - 1, source.imag / (height - 1) * 2 - 1], -1)
        picture = frame.movedim(-1, 0)[None].float() / 127.5
        at = torch.from_numpy(grid[None]).float().to(frame.device)
        faces.append(F.grid_sample(picture, at, align_corners=True) - 1)
    return torch.cat(faces)


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
