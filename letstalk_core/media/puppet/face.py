"""The face of a portrait as a layer over frames: it moves as it is told, in the portrait's place."""

from __future__ import annotations

import math
from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.carry import Layers, Surroundings
from ...networks.face_points import OVAL, RIGID
from ...networks.motion_channels import MOTION, POSE
from .geometry import EXTENT, axis_grid, smooth_step
from .head_flow import HeadFlow
from .puppet import Portraits, make_puppets
from .render import Pose, render
from .surroundings import surroundings

LARGEST = 512  # pixels of the side that faces are drawn at; they are enlarged for larger results
FINER = 1.3  # texture pixels for one of the layer
DRAWN = ("yaw", "pitch")  # of the pose: what no affine map makes of a face
# Of the face's half width and height: how far the layer covers, brows and all but not the line of the jaw, and how
# much of that is soft.
BROWS, JAW, ABOVE, BELOW, SOFT = 0.95, 0.76, 0.95, 1.42, 0.24
OUTER = 1 + SOFT / 2


class PortraitFace:
    """portrait (1, 3, h, w) in [-1, 1] and points of its face (478, 3) in its pixels -> layers of its size.

    Yaw and pitch are drawn; `Layers` move the drawing, and the head under it, to the rest of the pose, or with a
    head whose pose nobody told (`pose_told`). Only a square around the face is drawn, hair and neck have a flow.
    """

    def __init__(self, portrait: Tensor, points: Tensor, pose_told: bool = True) -> None:
        self.pose_told = pose_told
        self.device, (height, width) = portrait.device, portrait.shape[-2:]
        place = portrait.device if portrait.device.type == "cuda" else torch.device("cpu")  # solves in float64
        portrait, points = portrait.to(place, torch.float32), points.to(place, torch.float32)
        oval = points[list(OVAL), :2]
        low, high = oval.amin(0), oval.amax(0)
        middle, half = (low + high) / 2, (high - low) / 2
        wide = float(half[0]) * BROWS * OUTER
        top, bottom = (float(middle[1] + half[1] * reach * OUTER) for reach in (-ABOVE, BELOW))
        self.square = max(16, 2 * math.ceil(max(wide, (bottom - top) / 2) + 1))  # pixels of its side
        self.corner = (round(float(middle[0]) - self.square / 2), round((top + bottom) / 2 - self.square / 2))
        self.side = min(LARGEST, self.square)
        self.centre = points.new_tensor([n + self.square / 2 for n in self.corner])
        self.units = points.new_tensor([2 / width, 2 / height])
        plane = (points - F.pad(self.centre, (0, 1))) * (2 / self.square)
        self.rigid = plane[list(RIGID)]
        self.places = self._placed(self.rigid[:, :2])
        self.puppet = make_puppets(Portraits(self._texture(portrait), plane[None]), size=self.side, matte=False)
        nothing = torch.cat([portrait, torch.zeros_like(portrait[:, :1])], 1)
        self.base = self._within(nothing, self._cover(middle, half), 3).to(self.device)
        self.shares = {"shift_x": width / self.square, "shift_y": height / self.square}
        self.head_flow = HeadFlow(self.puppet, (height, width), self.centre, self.square)
        self.around = Surroundings(*(one.to(self.device) for one in surroundings(portrait, points)))

    def __call__(self, motion: Tensor) -> Layers:
        """One for each row of motion (t, len(MOTION))."""
        told = motion.to(self.rigid.device, torch.float32)
        still = told.clone()
        for name, rest in POSE.items():
            if name not in DRAWN:
                still[:, MOTION.index(name)] = rest
        pose = Pose(self.puppet, still[None])
        pictures = (render(pose, size=self.side)[0] * 2 - 1).to(self.device)
        flow = None
        if self.pose_told:
            whole = copy(pose)
            whole.curves = pose.curves | {name: self._column(told, name) for name in POSE}
            flow = self.head_flow(whole).to(self.device)
        layers = torch.cat([self._within(self.base.clone(), one[None], 0) for one in pictures])
        return Layers(layers, self.places, self._moved(pose), flow, self.around)

    def _column(self, told: Tensor, name: str) -> Tensor:
        """A channel of the pose (1, t) as the puppet has it, whose frame is the square."""
        return told[None, :, MOTION.index(name)] * self.shares.get(name, 1.0) + POSE[name]

    def _moved(self, pose: Pose) -> Tensor:
        """Where a pose takes what moves as one piece: (t, k, 2), -1..1 of the portrait."""
        return self._placed(pose.rigid(self.rigid.mT[None, None])[0].mT)

    def _texture(self, portrait: Tensor) -> Tensor:
        """The portrait in the puppet's plane, (1, 3, T, T) in 0..1; edges go on outside."""
        if self.square > self.side:
            small = [max(2, round(n * self.side / self.square)) for n in portrait.shape[-2:]]
            portrait = F.interpolate(portrait, size=small, mode="bicubic", antialias=True)
        grid = axis_grid(round(FINER * EXTENT * self.side), EXTENT, portrait.device)
        grid = (grid * (self.square / 2) + self.centre) * self.units - 1
        found = F.grid_sample(portrait, grid[None], mode="bicubic", padding_mode="border", align_corners=False)
        return ((found + 1) / 2).clamp(0, 1)

    def _cover(self, middle: Tensor, half: Tensor) -> Tensor:
        """(1, 1, square, square): 1 on the face and where its chin may go, 0 beyond, soft between."""
        places = axis_grid(self.square, 1.0, middle.device) * (self.square / 2) + self.centre
        x, y = ((places - middle) / half).unbind(-1)
        side = torch.lerp(torch.full_like(y, BROWS), torch.full_like(y, JAW), smooth_step(-0.35, 0.25, y))
        reach = torch.sqrt((x / side) ** 2 + (y / torch.where(y > 0, BELOW, ABOVE)) ** 2)
        return smooth_step(OUTER, 1 - SOFT / 2, reach)[None, None]

    def _placed(self, places: Tensor) -> Tensor:
        """Places of the puppet's plane (..., 2) as places of the portrait, -1..1."""
        return ((places * (self.square / 2) + self.centre) * self.units - 1).to(self.device)

    def _within(self, whole: Tensor, part: Tensor, first: int) -> Tensor:
        """`whole` (1, 4, h, w) with channels from `first` on of the square, of any size, in their place."""
        height, width = whole.shape[-2:]
        (x, y), side = self.corner, self.square
        if part.shape[-1] < side:
            part = F.interpolate(part, size=(side, side), mode="bicubic", align_corners=False).clamp(-1, 1)
        rows, columns = slice(max(0, y), min(height, y + side)), slice(max(0, x), min(width, x + side))
        seen = part[..., rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        whole[:, first : first + part.shape[1], rows, columns] = seen
        return whole
