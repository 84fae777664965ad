"""Numbers about videos, without a model: agreement of curves, blinks, colour and sharpness of frames.

Colour errors and frames are in levels of 0..255. Undefined values (the correlation with a constant) are NaN.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch import Tensor

from letstalk_core.errors import ConfigError

Array = NDArray[np.float64]
STATIC_LEVELS = 2.0  # pixels whose deviation over poses stays below this never move
CALM_LEVELS = 4.0  # cells whose deviation over poses stays below this show the person, not the pose
PAUSE_S, PAUSE_MARGIN_S = 0.3, 0.12  # the shortest pause, and its edges
SHUT, REOPENED = 0.5, 0.3  # lids: a blink begins above the one and is over below the other


def correlation(a: Array, b: Array) -> float:
    """Pearson's correlation of two curves (n,); NaN when one of them does not move."""
    if len(a) < 2 or np.std(a) < 1e-8 or np.std(b) < 1e-8:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def best_lag(measured: Array, truth: Array, limit: int = 5) -> tuple[int, float]:
    """(frames, correlation) at which `measured` fits `truth` best; positive when it comes late.

    Ties go to the smaller shift. A curve that does not move has lag 0 and correlation NaN.
    """
    best = (0, math.nan)
    for lag in sorted(range(-limit, limit + 1), key=abs):
        a, b = (measured[lag:], truth[: len(truth) - lag]) if lag >= 0 else (measured[:lag], truth[-lag:])
        r = correlation(a, b)
        if math.isfinite(r) and not r <= best[1] + 1e-9:
            best = (lag, r)
    return best


def blinks(lids: Array) -> int:
    """How often the eyes shut, from lids (t,): 0 open, 1 shut."""
    count, shut = 0, False
    for lid in lids:
        if not shut and lid > SHUT:
            count, shut = count + 1, True
        elif shut and lid < REOPENED:
            shut = False
    return count


def pauses(silent: NDArray[np.bool_], fps: float) -> NDArray[np.bool_]:
    """Frames (t,) well inside of pauses: runs of silent frames of at least 0.3 s, without their edges.

    The mouth needs the margin to close and may open ahead of the sound.
    """
    inside = np.zeros(len(silent), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]]).astype(np.int8)))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        if last - first >= PAUSE_S * fps - 1e-6:
            margin = round(PAUSE_MARGIN_S * fps)
            inside[first + margin : max(first + margin, last - margin)] = True
    return inside


def slope(series: Array, per: float = 100.0) -> float:
    """Least-squares trend of a series (n,): change in `per` frames; NaN for fewer than 3 frames."""
    if len(series) < 3:
        return math.nan
    return float(np.polyfit(np.arange(len(series)), series, 1)[0] * per)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images of equal shape; at most 99."""
    if a.shape != b.shape:
        raise ConfigError(f"psnr: images have shapes {list(a.shape)} and {list(b.shape)}")
    error = float((a.float() - b.float()).square().mean())
    return min(99.0, 10 * math.log10(255**2 / max(error, 1e-12)))


def psnr_boxes(a: Tensor, b: Tensor, boxes: Tensor) -> float:
    """PSNR over the pixels inside one box of each frame.

    Shapes: a, b (t, h, w, 3) uint8, boxes (t, 4) x0, y0, x1, y1 in pixels.
    """
    total, count = 0.0, 0
    for x, y, (x0, y0, x1, y1) in zip(a, b, boxes.long().tolist(), strict=True):
        difference = x[y0:y1, x0:x1].float() - y[y0:y1, x0:x1].float()
        total, count = total + float(difference.square().sum()), count + difference.numel()
    return min(99.0, 10 * math.log10(255**2 / max(total / max(count, 1), 1e-12)))


def static_pixels(frames: Tensor) -> Tensor:
    """Pixels that no pose changes: mask (h, w) from varied frames (t, h, w, 3) uint8 of one person."""
    deviation = frames.float().std(0).amax(-1)
    return deviation < STATIC_LEVELS


def colour_error(frames: Tensor, reference: Tensor, mask: Tensor) -> Array:
    """Mean absolute colour difference of each frame from one picture, over masked pixels; NaN without any.

    Shapes: frames (t, h, w, 3), reference (h, w, 3), mask (h, w) -> (t,).
    """
    if not mask.any():
        return np.full(len(frames), np.nan)
    wanted = reference[mask].float()
    return np.array([float((frame[mask].float() - wanted).abs().mean()) for frame in frames])


def cell_colors(frames: Tensor, cells: int = 16) -> Tensor:
    """Mean colours of a grid of cells, nearly blind to small movement: (t, h, w, 3) -> (t, cells, cells, 3)."""
    x = rearrange(frames.float(), "t h w c -> t c h w")
    return rearrange(F.adaptive_avg_pool2d(x, cells), "t c h w -> t h w c")


def calm_cells(drawings: Tensor) -> Tensor:
    """Cells whose mean colour hardly depends on the pose: mask (16, 16) from drawings (n, h, w, 3).

    Without any, the quarter that depends on it least.
    """
    deviation = cell_colors(drawings).std(0).amax(-1)
    return deviation < max(CALM_LEVELS, float(deviation.quantile(0.25)))


def gradient_energy(frames: Tensor, batch: int = 16) -> Array:
    """Sharpness of each frame: mean squared difference of neighbouring grey pixels. (t, h, w, 3) -> (t,)."""
    found: list[Tensor] = []
    for part in frames.split(batch):
        grey = reduce(part.float(), "t h w c -> t h w", "mean")
        across, down = grey.diff(dim=2).square().mean((1, 2)), grey.diff(dim=1).square().mean((1, 2))
        found.append(across + down)
    energy: Array = torch.cat(found).double().numpy()
    return energy
