"""The flow of whole frames whose head has a pose: face, hair and neck as the puppet moves them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...networks.flow import warp
from .fields import depth_map, falloff
from .geometry import sample
from .puppet import Puppets
from .render import Pose

CELLS = 64  # along the longer side of the portrait
STEPS = 5  # that invert a pose


class HeadFlow:
    """Of a puppet whose plane is a `square` of pixels round the `centre` (2,) of its portrait (h, w)."""

    def __init__(self, puppet: Puppets, shape: tuple[int, int], centre: Tensor, square: float) -> None:
        height, width = shape
        counts = [max(8, round(n * CELLS / max(shape))) for n in shape]
        y, x = ((torch.arange(k, device=centre.device) + 0.5) / k * n for k, n in zip(counts, shape, strict=True))
        at = (torch.stack(torch.meshgrid(x, y, indexing="xy"), -1) - centre) * (2 / square)
        head, everybody = puppet.head, torch.ones(1, dtype=torch.bool, device=centre.device)
        self.at = at[None]
        self.space = torch.cat([at.permute(2, 0, 1)[None], depth_map(head, at)[:, None]], 1)  # (1, 3, h', w')
        self.follow = falloff(head, at, everybody)
        self.below = head.plane(at)[..., 1] > 0  # the middle of the mouth: what goes with the jaw
        self.scale = centre.new_tensor([square / width, square / height]).view(2, 1, 1)

    def __call__(self, pose: Pose) -> Tensor:
        """Of a pose of t frames (t, 2, h', w'), -1..1: what a frame shows at x, the portrait shows at x + flow."""
        fields = (pose.upper_expression[0], pose.lower_expression[0])
        count = len(fields[0])
        upper, lower = (sample(f, self.at.expand(count, -1, -1, -1), padding="zeros") for f in fields)
        expression = torch.where(self.below, lower, upper)
        moved = self.space + expression
        turned = (pose.rigid(moved[None])[0] - moved[:, :2]) * self.follow
        way = (turned + expression[:, :2]) * self.scale
        flow = torch.zeros_like(way)
        for _ in range(STEPS):
            flow = -warp(way, flow)
        return flow
