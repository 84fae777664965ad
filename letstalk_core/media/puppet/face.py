"""The face of a portrait as a layer over frames: it moves as it is told, in the portrait's place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.carry import Layer
from ...networks.face_points import OVAL, RIGID
from ...networks.motion_channels import MOTION, POSE
from .geometry import EXTENT, axis_grid, smooth_step
from .puppet import Portraits, make_puppets
from .render import Pose, render

__all__ = ["PortraitFace"]

LARGEST = 512  # pixels of the side that faces are drawn at; they are enlarged for larger results
DRAWN = ("yaw", "pitch")  # of the pose: what no affine map makes of a face
FINER = 1.3  # texture pixels for one of the layer
# Of the face's half width and height: how far the layer covers, and where it has faded out.
SIDE, ABOVE, BELOW, FADE = 0.76, 0.80, 1.42, 0.24


class PortraitFace:
    """portrait (1, 3, h, w) in [-1, 1] and points of its face (478, 3) in its pixels -> layers of its size.

    Yaw and pitch are drawn; the rest of the head's pose is not, for `Layer` moves a face as the frame under it has
    moved.
    """

    def __init__(self, portrait: Tensor, points: Tensor) -> None:
        height, width = portrait.shape[-2:]
        self.size, self.device = (height, width), portrait.device
        place = portrait.device if portrait.device.type == "cuda" else torch.device("cpu")  # solves in float64
        side = max(height, width)
        self.side = min(LARGEST, side + side % 2)
        points = points.float().to(place)
        middle = points.new_tensor([width / 2, height / 2, 0])
        plane = (points - middle) * (2 / side)
        self.puppet = make_puppets(
            Portraits(self._texture(portrait.float().to(place)), plane[None]), size=self.side, matte=False
        )
        self.cover = self._shown(self._cover(plane))
        self.rigid, self.stretch = plane[list(RIGID)], plane.new_tensor([side / width, side / height])

    def __call__(self, motion: Tensor) -> list[Layer]:
        """One layer for each row of motion (t, len(MOTION))."""
        told = motion.to(self.cover.device, torch.float32).clone()
        for name, rest in POSE.items():
            if name not in DRAWN:
                told[:, MOTION.index(name)] = rest
        pose = Pose(self.puppet, told[None])
        pictures = self._shown(render(pose, size=self.side)[0] * 2 - 1)
        found = torch.cat([pictures, self.cover.expand(len(pictures), -1, -1, -1)], 1).to(self.device)
        places = (self.rigid[:, :2] * self.stretch).to(self.device)
        drawn = (pose.rigid(self.rigid.mT[None, None])[0].mT * self.stretch).to(self.device)  # (t, k, 2)
        return [Layer(picture[None], places, place) for picture, place in zip(found, drawn, strict=True)]

    def _texture(self, portrait: Tensor) -> Tensor:
        """The portrait over the square of the puppet's plane, (1, 3, T, T) in 0..1; edges go on outside."""
        height, width = portrait.shape[-2:]
        side = max(height, width)
        if side > self.side:
            small = (max(2, round(height * self.side / side)), max(2, round(width * self.side / side)))
            portrait = F.interpolate(portrait, size=small, mode="bicubic", antialias=True)
        grid = axis_grid(round(FINER * EXTENT * self.side), EXTENT, portrait.device)
        grid = grid * grid.new_tensor([side / width, side / height])
        found = F.grid_sample(portrait, grid[None], mode="bicubic", padding_mode="border", align_corners=False)
        return ((found + 1) / 2).clamp(0, 1)

    def _cover(self, plane: Tensor) -> Tensor:
        """(1, 1, side, side): 1 on the face and where its chin may go, 0 beyond, soft between."""
        oval = plane[list(OVAL), :2]
        low, high = oval.amin(0), oval.amax(0)
        x, y = ((axis_grid(self.side, 1.0, plane.device) - (low + high) / 2) / ((high - low) / 2)).unbind(-1)
        reach = torch.sqrt((x / SIDE) ** 2 + (y / torch.where(y > 0, BELOW, ABOVE)) ** 2)
        return smooth_step(1 + FADE / 2, 1 - FADE / 2, reach)[None, None]

    def _shown(self, pictures: Tensor) -> Tensor:
        """The part of square pictures that the portrait has, at its size."""
        height, width = self.size
        scale = self.side / max(height, width)
        rows, columns = (min(self.side, max(2, round(n * scale))) for n in (height, width))
        y, x = (self.side - rows) // 2, (self.side - columns) // 2
        part = pictures[..., y : y + rows, x : x + columns]
        if (rows, columns) == (height, width):
            return part
        return F.interpolate(part, size=(height, width), mode="bicubic", align_corners=False).clamp(-1, 1)
