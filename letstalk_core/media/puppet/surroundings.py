"""What a portrait shows besides the face: the person, who moves, and a background that stays as it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .fields import Head
from .geometry import EXTENT, axis_grid, blur, sample
from .matting import head_matte

SIDE = 256  # pixels of the square in which they are found
NEAR = 11  # of these pixels: what is so near to head or body may be covered by them
SOFT = 4.0  # standard deviation of the edge
WITHIN = 7  # of these pixels: so far from the edge of head and body nothing comes from behind them


def surroundings(portrait: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (1, 1, h', w') in 0..1 over a picture (1, 3, h, w) in [-1, 1] with a face, points (478, 3) in its
    pixels: how surely each place is of the person, or of a background, which stays.

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
    person = blur((-F.max_pool2d(-alpha, 2 * WITHIN + 1, 1, WITHIN) > 0.95).float(), SOFT)
    rows, columns = ((torch.arange(n, device=points.device) * 2 + 1) / n - 1 for n in small)
    at = (torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1) / stretch)[None]
    return sample(person, at), sample(still, at)
