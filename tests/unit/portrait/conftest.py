"""Bundled portraits, and pictures that are moved by known amounts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.load import DEMO_FOLDER

PORTRAITS = sorted((DEMO_FOLDER / "portraits").glob("*.png"))  # drawn
PHOTOGRAPHS = sorted((DEMO_FOLDER / "portraits").glob("*.jpg"))


def moved(image: Tensor, x: float = 0.0, y: float = 0.0, roll: float = 0.0, scale: float = 1.0) -> Tensor:
    """A picture shifted by x, y of its width, then turned clockwise and scaled about its own middle."""
    cos, sin = math.cos(roll) / scale, math.sin(roll) / scale
    rows = [[cos, sin, -2 * (cos * x + sin * y)], [-sin, cos, -2 * (cos * y - sin * x)]]
    grid = F.affine_grid(torch.tensor([rows]), [1, 3, *image.shape[:2]], align_corners=False)
    seen = F.grid_sample(image.permute(2, 0, 1)[None].float(), grid, padding_mode="border", align_corners=False)
    return seen[0].permute(1, 2, 0).round().to(torch.uint8)


@pytest.fixture(scope="session")
def portrait() -> Tensor:
    """The first of the bundled drawings."""
    return load_portrait(PORTRAITS[0])
