"""Dense flow between two similar pictures, coarse to fine, by Gauss-Newton steps: no weights, differentiable.

A flow (n, 2, h, w) holds (x, y) in half pictures, the unit of `grid_sample`: what is at position p of the frame is
at p + flow in the other picture. Everything runs in float32, because 2x2 systems are solved at every pixel.
Source: Lucas and Kanade 1981; the pyramid is Bouguet's (2000).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .nn.attention import without_autocast

LEVELS = (4, 2, 1)  # pixels of the finest level in one of each, along a side
STEPS = (3, 3, 1)  # at each level
WINDOW = 5  # pixels that share a step
SMOOTH = 7  # pixels over which the flow is averaged after it
RIDGE = 3e-3  # added to the squared gradients: no texture, no motion. Pictures lie in [-1, 1]
LONGEST = 1.0  # pixels of one step
INVERSIONS, REWEIGHTED = 3, 4  # steps, for the motion of one piece
STIFF = 1e-3  # against turning and stretching where few places say so


def shrink(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean over areas: (n, c, H, W) -> (n, c, *size), float32."""
    x = pictures.float()
    while all(a >= 2 * b and a % 2 == 0 for a, b in zip(x.shape[-2:], size, strict=True)):  # faster than pooling
        x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return x if tuple(x.shape[-2:]) == size else F.interpolate(x, size=size, mode="area")


def grow(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, to another size; a flow keeps its unit."""
    if tuple(values.shape[-2:]) == size:
        return values
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


def warp(pictures: Tensor, flow: Tensor) -> Tensor:
    """Pictures (n or 1, c, H, W) sampled where the flow (n, 2, h, w) points: (n, c, h, w); edges go on outside."""
    count, _, height, width = flow.shape
    x, y = _centres(width, flow), _centres(height, flow)
    grid = torch.stack([flow[:, 0] + x, flow[:, 1] + y[:, None]], dim=-1)
    pictures = pictures.to(flow.dtype).expand(count, -1, -1, -1)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _centres(count: int, like: Tensor) -> Tensor:
    """Middles of so many pixels, -1..1."""
    return (torch.arange(count, device=like.device, dtype=like.dtype) * 2 + 1) / count - 1


def _mean(values: Tensor, side: int) -> Tensor:
    """Mean over the window round every pixel, as far as it lies inside; by matrices, which beat pooling by far."""
    rows, columns = (_band(n, side, values.device) for n in values.shape[-2:])
    return rows @ values @ columns.mT


def _band(length: int, side: int, device: torch.device) -> Tensor:
    places = torch.arange(length, device=device)
    near = ((places - places[:, None]).abs() <= side // 2).float()
    return near / near.sum(dim=1, keepdim=True)


def gauss_newton(frames: Tensor, other: Tensor, flow: Tensor, steps: int) -> Tensor:
    """Improve a flow (n, 2, h, w) from frames (n, c, h, w) to the other pictures (n or 1, c, h, w), all float32.

    A step solves, over a window, for the shift that removes the difference between frame and warped picture to
    first order, with the gradients of both, and smooths the flow.
    """
    with without_autocast(frames.device.type):
        height, width = flow.shape[-2:]
        unit = torch.tensor([2 / width, 2 / height], device=flow.device).view(1, 2, 1, 1)
        for _ in range(steps):
            moved = warp(other, flow)
            middle = F.pad((moved + frames) / 2, (1,) * 4, mode="replicate")
            across = (middle[..., 1:-1, 2:] - middle[..., 1:-1, :-2]) / 2
            down = (middle[..., 2:, 1:-1] - middle[..., :-2, 1:-1]) / 2
            error = moved - frames
            products = [across * across, across * down, down * down, across * error, down * error]
            sums = _mean(torch.stack([p.sum(1) for p in products], dim=1), WINDOW)
            xx, xy, yy, xe, ye = sums.split(1, dim=1)
            xx, yy = xx + RIDGE, yy + RIDGE
            shift = torch.cat([xy * ye - yy * xe, xy * xe - xx * ye], dim=1) / (xx * yy - xy * xy)
            flow = _mean(flow + shift.clamp(-LONGEST, LONGEST) * unit, SMOOTH)
        return flow


def pyramid_flow(frames: Tensor, other: Tensor, size: tuple[int, int]) -> Tensor:
    """Flow (n, 2, *size) from frames (n, c, H, W) to other pictures (n or 1, c, H, W) of the same scene.

    Finds shifts up to about a fifth of the picture's side; `size` (height, width) is that of the finest level, and
    at least 8.
    """
    flow = torch.zeros(len(frames), 2, 1, 1, device=frames.device)
    for level, steps in zip(LEVELS, STEPS, strict=True):
        here = max(8, size[0] // level), max(8, size[1] // level)
        flow = gauss_newton(shrink(frames, here), shrink(other, here), grow(flow, here), steps)
    return flow


def places_led(flow: Tensor, places: Tensor) -> Tensor:
    """From where in each frame a flow (n, 2, h, w) leads to `places` (k, 2), -1..1: (n, k, 2)."""
    at = places.expand(len(flow), -1, -1)
    for _ in range(INVERSIONS):
        led = F.grid_sample(flow, at[:, None], align_corners=False, padding_mode="border")[:, :, 0].mT
        at = places - led
    return at


def fit_affine(at: Tensor, to: Tensor) -> Tensor:
    """How something moves as one piece (n, 3, 2): coefficients of x, y and 1 for the way from places `at`
    (n, k, 2) of frames to places `to` (n, k, 2) of other pictures, all -1..1. Places that disagree count less."""
    known, led = F.pad(at, (0, 1), value=1.0), to - at
    weights = torch.ones_like(at[..., :1])
    ridge = torch.diag(at.new_tensor([STIFF, STIFF, 0])) * at.shape[1]
    for _ in range(REWEIGHTED):
        solved: Tensor = torch.linalg.solve(known.mT @ (weights * known) + ridge, known.mT @ (weights * led))
        off = (known @ solved - led).norm(dim=2, keepdim=True)
        weights = 1 / (1 + (off / (off.median(dim=1, keepdim=True).values + 1e-4)) ** 2)
    return solved


def affine_flow(coefficients: Tensor, size: tuple[int, int]) -> Tensor:
    """The flow (n, 2, *size) of such motions."""
    across, down, shift = coefficients[..., None, None].unbind(1)
    return _centres(size[1], across) * across + _centres(size[0], down)[:, None] * down + shift
