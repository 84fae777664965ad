"""A generated mouth in a filmed frame: put where the head is, soft at its edge, in the light of the film.

All happens in the pixels of the film. From the portrait's frame to another one of its shot, a head turns about its
own axis, which the generated face does itself, and moves, leans and nears in the picture, which this does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ...networks.face_points import CHIN, EARS, FOREHEAD, OVAL
from .crop import CropTransform
from .face_geometry import fit_head

Array = NDArray[np.float64]

NOSE_BASE = 2
WIDE = 0.42  # half width of the region, in widths of the face
BELOW = 0.14  # of the face's height, below the chin
INSIDE = 0.70  # share of the region that is not soft
POWER = 2.5  # of the rounded rectangle that the region is
JAW = 0.3  # half heights of the region over which it fades at the line of the jaw
LIGHT_SIDE, LIGHT_REACH, MOST_LIGHT = 24, 5.0, 40.0  # cells; cells; levels by which the light is corrected at most


@dataclass(frozen=True)
class HeadPlace:
    """Where a head is in the pixels of its frame: its axis, size and lean in radians; turns in radians."""

    x: float
    y: float
    size: float
    roll: float
    yaw: float
    pitch: float


class MouthBlend:
    """Puts frames of the crop of one portrait, a frame of the same shot, into the shot's other frames.

    points (478, 3): of the face in the portrait's frame; `home`: where its head is there.
    """

    def __init__(self, crop: CropTransform, points: Tensor, home: HeadPlace, canonical: Tensor) -> None:
        self.crop, self.home = crop, home
        fit = fit_head(points, canonical)
        axis = torch.tensor([home.x, home.y], dtype=torch.float64)
        depth = (canonical[list(EARS)].double().mean(0) @ fit.turn.T * fit.scale + fit.shift)[2]
        flat = points[:468].double()
        height = float((flat[CHIN] - flat[FOREHEAD]).norm())
        oval = flat[list(OVAL), 0]
        self.half_width = WIDE * float(oval.max() - oval.min())
        top, bottom = float(flat[NOSE_BASE, 1]), float(flat[CHIN, 1]) + BELOW * height
        self.half_height, self.height = (bottom - top) / 2, height
        middle = torch.tensor([float(flat[[NOSE_BASE, CHIN], 0].mean()), (top + bottom) / 2])
        self.middle = middle.double() - axis  # from the head's axis, in pixels of the portrait's frame
        self.depth = float(flat[[NOSE_BASE, CHIN], 2].mean() - depth)
        self.sides = [_side(flat[list(OVAL), :2] - middle, (bottom - top) / 2, sign) for sign in (-1, 1)]

    def __call__(self, frame: Tensor, made: Tensor, head: HeadPlace, opening: float, weight: float) -> Tensor:
        """A frame (h, w, 3) uint8 whose mouth is that of `made` (ch, cw, 3) uint8. opening: of the filmed mouth,
        in eye distances, for its jaw is to be covered; weight 0..1: of the generated one."""
        if weight <= 0:
            return frame
        lean, near = head.roll - self.home.roll, head.size / self.home.size
        middle, half = self._region(head, opening)
        reach = math.hypot(*half) * near
        turned = _turn(middle[None], lean)[0] * near
        height, width = frame.shape[:2]
        x0, y0 = max(0, int(head.x + float(turned[0]) - reach)), max(0, int(head.y + float(turned[1]) - reach))
        x1 = min(width, math.ceil(head.x + float(turned[0]) + reach))
        y1 = min(height, math.ceil(head.y + float(turned[1]) + reach))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return frame
        at = torch.stack(torch.meshgrid(torch.arange(x0, x1), torch.arange(y0, y1), indexing="xy"), -1) + 0.5
        # In the portrait's frame, off the axis.
        at = _turn(at.double() - torch.tensor([head.x, head.y]), -lean) / near
        off = ((at - middle).abs() / torch.tensor(half)) ** POWER
        share = ((1 - off.sum(-1) ** (1 / POWER)) / (1 - INSIDE)).clamp(0, 1)
        share = share * self._inside_jaw(at - middle, half[1])
        share = (share * share * (3 - 2 * share) * weight).float()
        place = self.crop.to_crop(at + torch.tensor([self.home.x, self.home.y]))
        size = torch.tensor([self.crop.width, self.crop.height], dtype=torch.float64)
        new = _sampled(made, (place / size * 2 - 1).float())
        under = rearrange(frame[y0:y1, x0:x1], "h w c -> c h w").float()
        mixed = torch.lerp(under, (new + _light(under - new, share)).clamp(0, 255), share)
        whole = frame.clone()
        whole[y0:y1, x0:x1] = rearrange(mixed.round().to(torch.uint8), "c h w -> h w c")
        return whole

    def _inside_jaw(self, at: Tensor, half_height: float) -> Tensor:
        """0 to 1 at places (h, w, 2) off the region's middle: background and collar behind the jaw stand still
        while the head moves, so they stay the film's."""
        down = (at[..., 1] * (self.half_height / half_height)).numpy()  # a longer region is that of a longer jaw
        left, right = (torch.from_numpy(np.interp(down, heights, widths)) for heights, widths in self.sides)
        beyond = at[..., 0].abs() - torch.where(at[..., 0] < 0, left, right)
        return (0.5 - beyond / (JAW * self.half_height)).clamp(0, 1)

    def _region(self, head: HeadPlace, opening: float) -> tuple[Tensor, tuple[float, float]]:
        """Middle of the region off the head's axis, and half its size, in pixels of the portrait's frame."""
        yaw, pitch = head.yaw - self.home.yaw, head.pitch - self.home.pitch
        x, y = self.middle.tolist()
        x, depth = x * math.cos(yaw) - self.depth * math.sin(yaw), x * math.sin(yaw) + self.depth * math.cos(yaw)
        y = y * math.cos(pitch) - depth * math.sin(pitch)
        more = 0.12 * max(0.0, opening) * self.height
        return torch.tensor([x, y + more], dtype=torch.float64), (self.half_width, self.half_height + more)


def _side(oval: Tensor, bottom: float, sign: int) -> tuple[Array, Array]:
    """How far one side of the jaw is from the middle, by height below it, in pixels: of points (n, 2) off the
    middle of the region, to whose `bottom` the chin is stretched."""
    part = oval[(oval[:, 0] * sign >= 0) & (oval[:, 1] > -2 * bottom)]
    part = part[part[:, 1].argsort()]
    heights = torch.where(part[:, 1] > 0, part[:, 1] * (bottom / float(oval[:, 1].max())), part[:, 1])
    return heights.numpy(), (part[:, 0] * sign).numpy()


def _turn(points: Tensor, angle: float) -> Tensor:
    """(..., 2) turned clockwise in the picture."""
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = points.unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1)


def _sampled(made: Tensor, grid: Tensor) -> Tensor:
    """(ch, cw, 3) uint8 at places (h, w, 2) in -1..1: (3, h, w) float."""
    picture = rearrange(made, "h w c -> 1 c h w").float()
    return F.grid_sample(picture, grid[None], mode="bicubic", align_corners=False, padding_mode="border")[0]


def _light(difference: Tensor, share: Tensor) -> Tensor:
    """What to add to the new picture to fit at its edge: the difference (3, h, w) there, smooth inside."""
    edge = (share * (1 - share))[None] + 1e-6
    size = (min(LIGHT_SIDE, share.shape[0]), min(LIGHT_SIDE, share.shape[1]))
    small = F.adaptive_avg_pool2d(torch.cat([difference * edge, edge]), size)[None]
    reach = int(2 * LIGHT_REACH)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / LIGHT_REACH) ** 2)
    small = rearrange(small, "1 c h w -> c 1 h w")
    small = F.conv2d(F.pad(small, (reach, reach, reach, reach)), kernel[None, None, None])
    small = rearrange(F.conv2d(small, kernel[None, None, :, None]), "c 1 h w -> 1 c h w")
    light = (small[:, :3] / small[:, 3:].clamp(min=1e-9)).clamp(-MOST_LIGHT, MOST_LIGHT)
    return F.interpolate(light, size=tuple(share.shape), mode="bilinear", align_corners=False)[0]
