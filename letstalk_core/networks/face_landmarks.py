"""Two small convolutional networks that find a face in a picture and 478 points on it.

The detector sees the whole picture and marks, on a grid, where faces are, how large and how they are turned. The
mesh network sees one face, upright and cut out, and gives points in three dimensions, lips and eyes a second time
from closer up, and what is wrong with the picture of the face. Source: ours; CenterNet (arXiv 1904.07850) for the
form of the detector, Attention Mesh (arXiv 2006.10962) for the second look at lips and eyes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..protocols import Device, DType
from .configs import FacesConfig
from .face_points import EYES, LIPS, POINTS

CELL = 8  # pixels of the detector's input that one cell of its grid covers
QUALITIES = ("face", "eyes_hidden", "mouth_hidden", "eyes_shut", "drawn")
LOOKS = (LIPS, *EYES)  # groups of points that are looked at a second time
EYE_QUALITIES = (1, 3)  # of QUALITIES, those that the second looks at the eyes tell better
LIP_REACH, EYE_REACH = 0.36, 0.22  # half sides of the second looks, in half sides of the crop
LIP_CELLS, EYE_CELLS = 24, 16


class Detections(NamedTuple):
    """What the detector says of each cell of a grid (b, h, w)."""

    score: Tensor  # logit of "the middle of a face is here"
    offset: Tensor  # (b, 2, h, w): from the middle of the cell to that of the face, in cells
    size: Tensor  # logarithm of the side of the face, in cells
    turn: Tensor  # (b, 2, h, w): cosine and sine of the angle of its eyes, not normalised


class Mesh(NamedTuple):
    """Points (b, 478, 3) in -1..1 over the crop, z in the same unit and smaller towards the camera; logits (b, 5)
    of QUALITIES; the points before the second looks, for the training."""

    points: Tensor
    quality: Tensor
    coarse: Tensor


class ConvUnit(nn.Module):
    """Convolution, what training puts between (a norm that is folded away on export), ReLU."""

    def __init__(self, into: int, out: int, stride: int = 1, kernel: int = 3, *, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride, kernel // 2)
        self.norm: nn.Module = nn.Identity()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.relu(x) if self.act else x


class Residual(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = ConvUnit(width, width), ConvUnit(width, width, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Detector(nn.Module):
    """(b, 3, h, w) in [-1, 1], sides multiples of 32 -> `Detections` on h/8 x w/8 cells."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.early = nn.Sequential(ConvUnit(3, a, 2), ConvUnit(a, b, 2), ConvUnit(b, b))
        self.cells = nn.Sequential(ConvUnit(b, c, 2), Residual(c))
        self.wide = nn.Sequential(ConvUnit(c, d, 2), Residual(d))
        self.wider = nn.Sequential(ConvUnit(d, e, 2), ConvUnit(e, e))
        self.back = nn.ModuleList([ConvUnit(e, c, kernel=1, act=False), ConvUnit(d, c, kernel=1, act=False)])
        self.mix, self.last = ConvUnit(c, c), ConvUnit(c, c)
        self.final = nn.Conv2d(c, 6, 1)

    def forward(self, x: Tensor) -> Detections:
        fine = self.cells(self.early(x))
        middle = self.wide(fine)
        coarse = self.back[0](self.wider(middle))
        middle = self.back[1](middle) + F.interpolate(coarse, size=middle.shape[-2:])
        fine = fine + F.interpolate(F.relu(middle), size=fine.shape[-2:], mode="bilinear")
        out = self.final(self.last(self.mix(fine)))
        return Detections(out[:, 0], out[:, 1:3], out[:, 3], out[:, 4:6])


class CloserLook(nn.Module):
    """Some points from the fine features around them, (b, c, n, n) -> (b, points, 2), and features (b, narrow)."""

    def __init__(self, into: int, cells: int, points: int, narrow: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvUnit(into, 32), ConvUnit(32, 48, 2), ConvUnit(48, 48, 2))
        self.squeeze = ConvUnit(48, 24, kernel=1)
        self.hidden = nn.Linear(24 * (cells // 4) ** 2, narrow)
        self.final = nn.Linear(narrow, 2 * points)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.hidden(self.squeeze(self.body(x)).flatten(1)))
        return self.final(x).unflatten(1, (-1, 2)), x


class MeshNetwork(nn.Module):
    """(b, 3, side, side) in [-1, 1], one upright face -> `Mesh`.

    Points are a mean shape and a linear basis, set from principal components before training and then learned.
    """

    def __init__(self, side: int, widths: tuple[int, ...], code: int) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.early = ConvUnit(3, a, 2)
        self.trunk = nn.Sequential(
            *(ConvUnit(a, b, 2), Residual(b), ConvUnit(b, c, 2), Residual(c)),
            *(ConvUnit(c, d, 2), Residual(d), ConvUnit(d, e, 2), ConvUnit(e, e)),
            ConvUnit(e, 24, kernel=1),
        )
        self.hidden = nn.Linear(24 * (side // 32) ** 2, 128)
        self.code = nn.Linear(128, code)
        self.heads = nn.ModuleDict(
            {"points": nn.Linear(code, 3 * POINTS), "quality": nn.Linear(128, len(QUALITIES))}
        )
        self.lips = CloserLook(a, LIP_CELLS, len(LIPS), 64)
        self.eye = CloserLook(a, EYE_CELLS, len(EYES[0]), 48)
        self.eye_quality = nn.Linear(48, len(EYE_QUALITIES))

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Mesh:
        """`shift` (b, 3, 2) moves the second looks, as errors of the first one would: for the training."""
        fine = self.early(x)
        hidden = F.relu(self.hidden(self.trunk(fine).flatten(1)))
        points = self.heads["points"](self.code(hidden)).float().unflatten(1, (POINTS, 3))
        centres = look_centres(points).detach()
        found, closer = self.look(fine, centres if shift is None else centres + shift)
        flat = points.clone()
        for group, seen in zip(LOOKS, found, strict=True):
            flat[:, list(group), :2] = seen
        quality = self.heads["quality"](hidden)
        eyes = torch.tensor(EYE_QUALITIES, device=quality.device)
        return Mesh(flat, quality.index_add(1, eyes, closer.to(quality.dtype)), points)

    def look(self, fine: Tensor, centres: Tensor) -> tuple[list[Tensor], Tensor]:
        """Points (b, n, 2) of LOOKS from the features of `early` around `centres` (b, 3, 2), and what the eyes add
        to the logits of EYE_QUALITIES (b, 2)."""
        lips, _ = self.lips(_look(fine, centres[:, 0], LIP_REACH, LIP_CELLS))
        right, right_seen = self.eye(_look(fine, centres[:, 1], EYE_REACH, EYE_CELLS))
        # One network for both eyes: the left one is seen in a mirror. `early` is not symmetric, which it learns.
        left, left_seen = self.eye(_look(fine, centres[:, 2], EYE_REACH, EYE_CELLS).flip(-1))
        changes = (LIP_REACH * lips, EYE_REACH * right, EYE_REACH * left * left.new_tensor([-1.0, 1.0]))
        found = [centres[:, i, None] + change.float() for i, change in enumerate(changes)]
        return found, self.eye_quality((right_seen + left_seen) / 2)


def look_centres(points: Tensor) -> Tensor:
    """Where LOOKS are: (b, 478, 3) -> (b, 3, 2)."""
    return torch.stack([points[:, list(group), :2].mean(1) for group in LOOKS], 1)


def _look(features: Tensor, centre: Tensor, reach: float, cells: int) -> Tensor:
    """A square of `features` (b, c, h, w) around `centre` (b, 2): (b, c, cells, cells)."""
    axis = ((torch.arange(cells, device=features.device) + 0.5) / cells * 2 - 1) * reach
    grid = centre[:, None, None] + torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    seen = F.grid_sample(features.float(), grid, align_corners=False, padding_mode="border")
    return seen.to(features.dtype)


class FaceNetworks(nn.Module):
    """The detector, the mesh network, and a mean face looking into the camera, `canonical` (478, 3)."""

    canonical: Tensor

    def __init__(self, config: FacesConfig, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.config = config
        self.detector = Detector(config.detector_widths)
        self.mesh = MeshNetwork(config.mesh_side, config.mesh_widths, config.code)
        self.register_buffer("canonical", torch.zeros(POINTS, 3))
        self.to(device=device, dtype=dtype)
