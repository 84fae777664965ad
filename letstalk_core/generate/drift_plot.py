"""The drift of a long video as a picture: three curves over its clips, the level, and where it was re-anchored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..sampling.drift import SCORES, DriftLog

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 360, 52, 16, 34, 40
COLOURS = {"identity": (32, 96, 192), "colour": (208, 96, 16), "sharpness": (24, 136, 72)}
INK, FAINT, MARK, LIMIT = (40, 40, 40), (220, 220, 220), (200, 32, 64), (128, 128, 128)


def drift_plot(log: DriftLog, level: float = 0.0) -> Tensor:
    """(360, 960, 3) uint8. Clips from left to right, scores from 0 to 1; red ticks mark re-anchoring,
    a grey line how much the autoencoder leaves of the portrait."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for tenth in range(0, 11, 2):
        y = _y(tenth / 10)
        draw.line((LEFT, y, WIDTH - RIGHT, y), fill=FAINT)
        draw.text((LEFT - 28, y - 6), f"{tenth / 10:.1f}", fill=INK)
    if level > 0:
        draw.line((LEFT, _y(level), WIDTH - RIGHT, _y(level)), fill=MARK)
    if log.likeness is not None:
        draw.line((LEFT, _y(log.likeness), WIDTH - RIGHT, _y(log.likeness)), fill=LIMIT, width=2)
        draw.text((WIDTH - RIGHT - 150, 12), f"encoded portrait {log.likeness:.2f}", fill=LIMIT)
    xs = _places(len(log.scores))
    for clip, x in zip(log.clips, xs, strict=True):
        if clip in log.re_anchored:
            draw.line((x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 7), fill=MARK, width=2)
    for number, name in enumerate(SCORES):
        points = [(x, _y(value)) for x, value in zip(xs, log.column(name), strict=True)]
        if len(points) > 1:
            draw.line(points, fill=COLOURS[name], width=2)
        for x, y in points[:1]:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=COLOURS[name])
        draw.text((LEFT + 110 * number, 12), name, fill=COLOURS[name])
    first, last = (log.clips[0] + 1, log.clips[-1] + 1) if log.clips else (1, 1)
    draw.text((LEFT, HEIGHT - 22), f"clip {first}", fill=INK)
    draw.text((WIDTH - RIGHT - 60, HEIGHT - 22), f"clip {last}", fill=INK)
    draw.text((LEFT + 330, 12), f"re-anchored {len(log.re_anchored)} times", fill=MARK)
    return torch.from_numpy(np.array(image))


def _y(score: float) -> float:
    return HEIGHT - BOTTOM - score * (HEIGHT - BOTTOM - TOP)


def _places(count: int) -> Sequence[float]:
    step = (WIDTH - LEFT - RIGHT) / max(1, count - 1)
    return [LEFT + step * i for i in range(count)]
