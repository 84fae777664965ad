"""The residual network of ArcFace (Deng et al. 2019, arXiv 1801.07698), whose embeddings CSIM compares.

Names of layers are those of InsightFace's `arcface_torch`, so its backbones load; depth and width follow from the
weights.
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

__all__ = ["IResNet", "aligned_faces"]

SIDE = 112
# Where eyes, tip of the nose and corners of the mouth lie in an aligned face; those of the picture's left first.
TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
FIVE = (*IRISES, NOSE_TIP, *CORNERS)


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
