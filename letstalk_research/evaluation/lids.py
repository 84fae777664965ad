"""How far eyes are shut, read from their pixels and measured by a puppet of the same person.

The landmarks of shut eyes are read as half open, by how much depends on the face. A puppet shows the same eyes
open and shut, and where a frame lies between these two pictures needs no landmarks.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.media.puppet.topology import EYES

from .metrics import Array

CROP = (16, 32)  # height and width that eyes are compared at
REACH = (0.45, 0.75)  # half height and half width of what is compared, in widths of the eye
OPEN, SHUT = 0.1, 0.8  # lids of the frames of the puppet that show open and shut eyes
AROUND = 15  # frames: what lasts for more than half of them is no blink, but an eye that smears


class LidReader:
    """Learns from a puppet: frames (t, h, w, 3) uint8, points (t, 478, 2) in pixels, lids (t,), 1 is shut.

    Eyes are looked for between their corners, which lids do not move. `known` is whether the puppet shows its eyes
    both open and shut.
    """

    def __init__(self, frames: Tensor, points: Array, lids: Array) -> None:
        self.points = points
        open_, shut = (torch.from_numpy(chosen) for chosen in (lids < OPEN, lids > SHUT))
        self.known = bool(open_.any()) and bool(shut.any())
        if self.known:
            eyes = _eyes(frames, points)
            self.middle = eyes[open_].mean(0)
            self.way = eyes[shut].mean(0) - self.middle

    def __call__(self, frames: Tensor) -> Array:
        """Frames of the same movement (t, h, w, 3) uint8 -> lids (t,), both eyes' mean, without what lasts;
        NaN if not `known`."""
        if not self.known:
            return np.full(len(frames), np.nan)
        along = ((_eyes(frames, self.points) - self.middle) * self.way).sum(-1)
        whole = self.way.square().sum(-1).clamp_min(1e-6)
        lids = (along / whole).mean(1).double().numpy()
        wide = np.pad(lids, AROUND // 2, mode="edge")
        return np.asarray(lids - np.median(np.lib.stride_tricks.sliding_window_view(wide, AROUND), axis=-1))


def _eyes(frames: Tensor, points: Array) -> Tensor:
    """Both eyes of each frame, level with their corners, without their mean brightness: (t, 2, pixels)."""
    corners = torch.from_numpy(np.stack([points[:, list(eye.corners)] for eye in EYES], 1)).float()  # (t, 2, 2, 2)
    across = corners[:, :, 1] - corners[:, :, 0]
    across = across * across[..., :1].sign()  # to the right in the picture
    down = torch.stack([-across[..., 1], across[..., 0]], -1)
    rows, columns = (((torch.arange(n) + 0.5) / n * 2 - 1) * reach for n, reach in zip(CROP, REACH, strict=True))
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    places = corners.mean(2)[:, :, None, None] + torch.einsum("hw,tec->tehwc", u, across)
    places = places + torch.einsum("hw,tec->tehwc", v, down)
    height, width = frames.shape[1:3]
    grid = (places + 0.5) / torch.tensor([width, height]) * 2 - 1
    pictures = frames.movedim(-1, 1).float().repeat_interleave(2, 0)
    seen = F.grid_sample(pictures, grid.flatten(0, 1), align_corners=False, padding_mode="border")
    eyes = seen.flatten(1).unflatten(0, (-1, 2))
    return eyes - eyes.mean(-1, keepdim=True)
