"""The face of a portrait as a layer over frames: it moves as it is told, in the portrait's place."""

from __future__ import annotations

import math

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
FINER = 1.3  # texture pixels for one of the layer
DRAWN = ("yaw", "pitch")  # of the pose: what no affine map makes of a face
# Of the face's half width and height: how far the layer covers, brows and all but not the line of the jaw, and how
# much of that is soft.
BROWS, JAW, ABOVE, BELOW, SOFT = 0.95, 0.76, 0.95, 1.42, 0.24
OUTER = 1 + SOFT / 2


class PortraitFace:
    """portrait (1, 3, h, w) in [-1, 1] and points of its face (478, 3) in its pixels -> layers of its size.

    Yaw and pitch are drawn; the rest of the head's pose is not, for `Layer` moves a face as the frame under it has
    moved. Only a square around the face is drawn.
    """

    def __init__(self, portrait: Tensor, points: Tensor) -> None:
        self.portrait = portrait.float()
        place = portrait.device if portrait.device.type == "cuda" else torch.device("cpu")  # solves in float64
        points = points.float().to(place)
        oval = points[list(OVAL), :2]
        low, high = oval.amin(0), oval.amax(0)
        middle, half = (low + high) / 2, (high - low) / 2
        wide = float(half[0]) * max(BROWS, JAW) * OUTER
        top, bottom = (float(middle[1] + half[1] * reach * OUTER) for reach in (-ABOVE, BELOW))
        self.square = max(16, 2 * math.ceil(max(wide, (bottom - top) / 2) + 1))  # pixels of its side
        self.corner = (round(float(middle[0]) - self.square / 2), round((top + bottom) / 2 - self.square / 2))
        self.side = min(LARGEST, self.square)
        self.centre = points.new_tensor([n + self.square / 2 for n in self.corner])
        plane = (points - F.pad(self.centre, (0, 1))) * (2 / self.square)
        self.rigid = plane[list(RIGID)]
        self.puppet = make_puppets(Portraits(self._texture(place), plane[None]), size=self.side, matte=False)
        self.cover = self._sized(self._cover(plane))

    def __call__(self, motion: Tensor) -> list[Layer]:
        """One layer for each row of motion (t, len(MOTION))."""
        told = motion.to(self.cover.device, torch.float32).clone()
        for name, rest in POSE.items():
            if name not in DRAWN:
                told[:, MOTION.index(name)] = rest
        pose = Pose(self.puppet, told[None])
        pictures = self._sized(render(pose, size=self.side)[0] * 2 - 1).to(self.portrait.device)
        drawn = self._placed(pose.rigid(self.rigid.mT[None, None])[0].mT)  # (t, k, 2)
        places = self._placed(self.rigid[:, :2])
        return [Layer(self._whole(one[None]), places, at) for one, at in zip(pictures, drawn, strict=True)]

    def _texture(self, place: torch.device) -> Tensor:
        """The portrait in the puppet's plane, (1, 3, T, T) in 0..1; edges go on outside."""
        portrait = self.portrait.to(place)
        height, width = portrait.shape[-2:]
        if self.square > self.side:
            scale = self.side / self.square
            small = (max(2, round(height * scale)), max(2, round(width * scale)))
            portrait = F.interpolate(portrait, size=small, mode="bicubic", antialias=True)
        grid = axis_grid(round(FINER * EXTENT * self.side), EXTENT, place)
        grid = (grid * (self.square / 2) + self.centre) * grid.new_tensor([2 / width, 2 / height]) - 1
        found = F.grid_sample(portrait, grid[None], mode="bicubic", padding_mode="border", align_corners=False)
        return ((found + 1) / 2).clamp(0, 1)

    def _cover(self, plane: Tensor) -> Tensor:
        """(1, 1, side, side): 1 on the face and where its chin may go, 0 beyond, soft between."""
        oval = plane[list(OVAL), :2]
        low, high = oval.amin(0), oval.amax(0)
        x, y = ((axis_grid(self.side, 1.0, plane.device) - (low + high) / 2) / ((high - low) / 2)).unbind(-1)
        side = torch.lerp(torch.full_like(y, BROWS), torch.full_like(y, JAW), smooth_step(-0.35, 0.25, y))
        reach = torch.sqrt((x / side) ** 2 + (y / torch.where(y > 0, BELOW, ABOVE)) ** 2)
        return smooth_step(OUTER, 1 - SOFT / 2, reach)[None, None]

    def _sized(self, pictures: Tensor) -> Tensor:
        if self.side == self.square:
            return pictures
        size = (self.square, self.square)
        return F.interpolate(pictures, size=size, mode="bicubic", align_corners=False).clamp(-1, 1)

    def _placed(self, places: Tensor) -> Tensor:
        """Places of the puppet's plane (..., 2) as places of the portrait, -1..1."""
        height, width = self.portrait.shape[-2:]
        found = (places * (self.square / 2) + self.centre) * places.new_tensor([2 / width, 2 / height]) - 1
        return found.to(self.portrait.device)

    def _whole(self, picture: Tensor) -> Tensor:
        """The portrait with the square in its place, and the cover: (1, 4, h, w)."""
        height, width = self.portrait.shape[-2:]
        (x, y), side = self.corner, self.square
        whole = torch.cat([self.portrait, torch.zeros_like(self.portrait[:, :1])], 1)
        rows, columns = slice(max(0, y), min(height, y + side)), slice(max(0, x), min(width, x + side))
        part = slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x)
        whole[:, :3, rows, columns] = picture[..., part[0], part[1]]
        whole[:, 3:, rows, columns] = self.cover[..., part[0], part[1]].to(whole.device)
        return whole
