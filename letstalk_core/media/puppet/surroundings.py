"""What is round a portrait's face: how far places follow the head, and where a background stays as it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .fields import Head
from .geometry import EXTENT, axis_grid, blur, sample, smooth_step
from .matting import head_matte

SIDE = 256  # pixels of the square in which they are found
NEAR = 11  # of these pixels: what is so near to head or body may be covered by them
SOFT = 4.0  # standard deviation of the edge
# How far head and hair reach, in halves of the face's width and height from its middle: aside, up, down; and
# where, in these units, they begin to go their own way, and do.
ASIDE, UP, DOWN = 1.3, 1.5, 1.15
WITH, FREE = 0.95, 1.4


def surroundings(portrait: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (1, 1, h', w') in 0..1 over a picture (1, 3, h, w) in [-1, 1] with a face, points (478, 3) in its
    pixels: how far each place follows the head's motion, and how surely it is a background, which stays.

    There is no sure background where it cannot be told from the head.
    """
    height, width = portrait.shape[-2:]
    longer = max(height, width)
    middle = points.new_tensor([width / 2, height / 2, 0])
    head = Head(((points - middle) * (2 / longer))[None])
    side = round(EXTENT * SIDE)
    small = [max(2, round(n * SIDE / longer)) for n in (height, width)]
    picture = F.interpolate(portrait, size=small, mode="area")
    stretch = points.new_tensor([longer / width, longer / height])
    plane = axis_grid(side, EXTENT, points.device) * stretch
    texture = F.grid_sample(picture, plane[None], padding_mode="border", align_corners=False)
    alpha, _ = head_matte(((texture + 1) / 2).clamp(0, 1), head)
    still = blur((F.max_pool2d(alpha, 2 * NEAR + 1, 1, NEAR) < 0.05).float(), SOFT)
    x, y = ((axis_grid(side, EXTENT, points.device) - head.middle[0, :2]) / head.half[0, :2]).unbind(-1)
    reach = torch.sqrt((x / ASIDE) ** 2 + (y / torch.where(y > 0, DOWN, UP)) ** 2)
    follow = smooth_step(FREE, WITH, reach)[None, None]
    rows, columns = ((torch.arange(n, device=points.device) * 2 + 1) / n - 1 for n in small)
    at = (torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1) / stretch)[None]
    still = sample(still, at)
    return sample(follow, at) * (1 - still), still
