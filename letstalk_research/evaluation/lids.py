"""How far eyes are shut, read from their pixels and measured by a puppet of the same person.

The landmarks of shut eyes are read as half open, by how much depends on the face. A puppet shows the same eyes
open and shut, and where a frame lies between these two pictures needs no landmarks.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["LidReader"]

CROP = (16, 32)  # height and width that eyes are compared at
OPEN, SHUT = 0.1, 0.8  # lids of the frames of the puppet that show open and shut eyes

Array = NDArray[np.float64]


class LidReader:
    """Learns from a puppet: frames (t, h, w, 3) uint8, boxes (t, 2, 4) around its eyes, lids (t,), 1 is shut.

    `known` is whether the puppet shows its eyes both open and shut.
    """

    def __init__(self, frames: Tensor, boxes: Tensor, lids: Array) -> None:
        self.boxes = boxes
        open_, shut = (torch.from_numpy(chosen) for chosen in (lids < OPEN, lids > SHUT))
        self.known = bool(open_.any()) and bool(shut.any())
        if self.known:
            eyes = _eyes(frames, boxes)
            self.middle = eyes[open_].mean(0)
            self.way = eyes[shut].mean(0) - self.middle

    def __call__(self, frames: Tensor) -> Array:
        """Frames of the same movement (t, h, w, 3) uint8 -> lids (t,), both eyes' mean; NaN if not `known`."""
        if not self.known:
            return np.full(len(frames), np.nan)
        along = ((_eyes(frames, self.boxes) - self.middle) * self.way).sum(-1)
        whole = self.way.square().sum(-1).clamp_min(1e-6)
        return np.asarray((along / whole).mean(1).double().numpy())


def _eyes(frames: Tensor, boxes: Tensor) -> Tensor:
    """Both eyes of each frame without their mean brightness: (t, 2, pixels)."""
    found = []
    for frame, pair in zip(frames, boxes.long().tolist(), strict=True):
        for x0, y0, x1, y1 in pair:
            eye = frame[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].permute(2, 0, 1)[None].float()
            found.append(F.interpolate(eye, CROP, mode="bilinear", antialias=True).flatten())
    eyes = torch.stack(found).unflatten(0, (-1, 2))
    return eyes - eyes.mean(-1, keepdim=True)
