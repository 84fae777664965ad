"""The inside of a mouth: cavity, tongue, and rows of single teeth, the upper on the skull, the lower on the jaw.

Coordinates: u along the mouth, the corners of the lips at rest at -1 and 1; v down from the line where they meet,
in mouth widths. A mouth is about 50 mm wide, which gives the sizes of teeth below (set by eye around them).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import smooth_step

UPPER_JOINTS, UPPER_LENGTH = (0.0, 0.335, 0.585, 0.80, 0.97), (0.0, -0.014, -0.004, -0.020)
LOWER_JOINTS, LOWER_LENGTH = (0.0, 0.205, 0.42, 0.64, 0.84), (0.0, 0.002, -0.010, 0.012)
UPPER_EDGE, LOWER_EDGE = 0.052, 0.006  # heights of the cutting edges at rest
TALL = 0.20  # of a tooth
CAVITY, TONGUE, GUM = (0.25, 0.085, 0.080), (0.80, 0.42, 0.41), (0.74, 0.42, 0.42)
YELLOW = (0.0, 0.02, 0.07)  # what teeth differ in
WARM = (0.20, -0.04, -0.20)  # light in the mouth's shadow has met its red walls
SKIN = (-0.30, 0.05, 0.25)  # shadows on skin are warm, as light goes through it
MOUTH_NUMBERS = 6
SHADE_UP, SHADE_LOW = 0.24, 0.16  # of the lips on what is behind them


@dataclass
class Mouth:
    """What the mouths of some people look like; every tensor has a row a person.

    light (b, 3): colour of a white thing in this mouth's light; slope (b,): more light to the right; drop (b,):
    way of the lower lip at jaw = 1 in mouth widths; pixel (b,): a frame's pixel in mouth widths; numbers (b,
    MOUTH_NUMBERS): standard normal, what makes these teeth this person's; colour (b,): 0 for a grey picture; white
    (b, 3): colour of the teeth; own (b,): 1 for people whose portrait shows their upper teeth.
    """

    light: Tensor
    slope: Tensor
    drop: Tensor
    pixel: Tensor
    numbers: Tensor
    colour: Tensor
    white: Tensor
    own: Tensor

    def draw(self, uv: Tensor, curves: dict[str, Tensor], shade_up: Tensor, shade_low: Tensor) -> Tensor:
        """Colours (b, 3, t, h, w). uv (b, 2 or 6, t, h, w): u, v, and colour and cover of the portrait's own
        teeth; curves (b, t); shades (b, 1, t, h, w): nearness of a lip."""
        u, v = uv[:, :1], uv[:, 1:2]
        n = self.numbers.clamp(-2, 2)[:, :, None, None, None, None].unbind(1)
        u = u + 0.02 * n[0]  # the middle of the teeth is rarely that of the lips
        jaw, round_, bared, out, tip = (
            curves[k][:, None, :, None, None] for k in ("jaw", "round", "teeth", "tongue_out", "tongue_tip")
        )
        hidden = round_ * (1 - 0.85 * bared)  # rounded lips stand before the teeth
        low = v - jaw * _wide(self.drop) * (1 - 0.25 * u.abs().clamp(0, 1) ** 2)
        light = _wide3(self.light) * (1 + _wide(self.slope) * u.clamp(-1, 1))
        soft = 0.8 * _wide(self.pixel)

        deep = smooth_step(0.0, 0.95, u.abs())
        picture = light * self._tone(CAVITY) * (1 - 0.55 * deep) * (1 - 0.35 * smooth_step(0.0, 0.14, v - 0.03))

        # Tongue: rests behind the lower teeth; its tip rises to the upper ones for l, n, t, d.
        edge_up = UPPER_EDGE + 0.010 * n[1] - 0.045 * u**2
        rest = -0.085 + 0.15 * (u / 0.66) ** 2
        raised = (edge_up - 0.045) - (v - low) + 0.30 * u**2
        crown = torch.lerp(rest, torch.minimum(rest, raised), tip)
        body = smooth_step(-soft, 2 * soft, low - crown) * smooth_step(0.90, 0.62, u.abs())
        bright = 0.44 + 0.30 * smooth_step(0.0, 0.16, low - crown) + 0.20 * tip
        groove = 1 - 0.16 * torch.exp(-((u / 0.07) ** 2)) * (1 - tip)
        picture = torch.lerp(picture, light * self._tone(TONGUE) * bright * groove, 0.94 * body)

        yellow = self._three(YELLOW) * n[3].clamp(-1, 2) - 0.045 * n[2]
        white = _wide3(self.white) * (1 - yellow * (1 - _wide(self.own))) * (light / _wide3(self.light))
        warm = self._three(WARM)
        x, length = _teeth(u, LOWER_JOINTS, LOWER_LENGTH)
        edge = LOWER_EDGE + 0.006 * n[4] + length + 0.02 * u**2 + 0.012 * x.abs() ** 4
        cover = smooth_step(-soft, soft, low - edge) * smooth_step(0.86, 0.74, u.abs()) * (1 - 0.9 * hidden)
        up = (low - edge) / TALL
        lit = _tooth_light(x, up, soft, 0.205) * (0.74 - 0.40 * smooth_step(0.30, 0.85, u.abs()))
        picture = torch.lerp(picture, white * lit * (1 + warm * (1 - lit)), cover)

        # th: the tip lies on the lower teeth, a round thing in the light.
        blade = smooth_step(0.58, 0.46, u.abs()) * smooth_step(-soft, 2 * soft, v - edge_up + 0.05)
        over = (v - edge_up + 0.02) / 0.12
        tone = light * self._tone(TONGUE) * (0.62 + 0.24 * torch.exp(-((over - 0.6) ** 2) / 0.12))
        picture = torch.lerp(picture, tone, blade * out)

        x, length = _teeth(u, UPPER_JOINTS, UPPER_LENGTH)
        corner = 0.020 * x.abs() ** 5 + 0.004 * n[5] * torch.sin(9 * u + 5 * n[0])
        edge = edge_up + length - corner
        cover = smooth_step(soft, -soft, v - edge) * smooth_step(0.97, 0.86, u.abs()) * (1 - 0.55 * hidden)
        cover = cover * (1 - _wide(self.own))
        up = (edge - v) / TALL
        lit = _tooth_light(x, up, soft, 0.335) * (1.0 - 0.62 * smooth_step(0.34, 0.95, u.abs()))
        lit = lit * (1 - 0.45 * hidden)
        tooth = torch.lerp(white, light * self._tone(GUM), smooth_step(0.86, 0.98, up + 0.10 * x**2))
        picture = torch.lerp(picture, tooth * lit * (1 + warm * (1 - lit)), cover)
        if uv.shape[1] > 2:
            dim = 0.5 * hidden
            picture = torch.lerp(
                picture, uv[:, 2:5] * (1 - dim) * (1 + warm * dim), uv[:, 5:] * (1 - 0.45 * hidden)
            )
        # The lips shade what is behind them.
        return picture * (1 - SHADE_UP * shade_up) * (1 - SHADE_LOW * shade_low)

    def shadow(self, light: Tensor) -> Tensor:
        """Factor (b, 3, t, h, w) of skin round the mouth for a logarithm of light (b, 1, t, h, w)."""
        return torch.exp(light * (1 + self._three(SKIN)))

    def _three(self, rgb: tuple[float, float, float]) -> Tensor:
        """Numbers of the colours, which no grey picture has: (b, 3, 1, 1, 1)."""
        return _wide3(torch.tensor(rgb, device=self.light.device) * self.colour[:, None])

    def _tone(self, rgb: tuple[float, float, float]) -> Tensor:
        colour = torch.tensor(rgb, device=self.light.device)[None]
        grey = colour.mean() * torch.ones_like(colour)
        return _wide3(torch.lerp(grey, colour, self.colour[:, None]))


def _wide(x: Tensor) -> Tensor:
    return x[:, None, None, None, None]


def _wide3(x: Tensor) -> Tensor:
    return x[:, :, None, None, None]


def _teeth(u: Tensor, joints: tuple[float, ...], lengths: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Place across its own tooth (-1 inner to 1 outer side) and the tooth's extra length, at every u."""
    bounds = torch.tensor(joints, device=u.device)
    index = torch.bucketize(u.abs(), bounds[1:-1])
    low, high = bounds[index], bounds[index + 1]
    return (2 * (u.abs() - low) / (high - low) - 1).clamp(-1, 1), torch.tensor(lengths, device=u.device)[index]


def _tooth_light(x: Tensor, up: Tensor, soft: Tensor, width: float) -> Tensor:
    """Light on a row of teeth: each is a barrel with a bright ridge, a thin clear edge, and dark joints."""
    # Half widths of mouth to widths
    gap = torch.exp(-((((1 - x.abs()) * width / 4) / (0.55 * soft + 0.004)) ** 2))
    barrel = 1 - 0.13 * x**2 + 0.06 * torch.exp(-((x + 0.2) ** 2) / 0.10 - ((up - 0.45) ** 2) / 0.06)
    edge = 1 - 0.14 * smooth_step(0.16, 0.0, up)
    return barrel * edge * (1 - 0.20 * gap) * (1 - 0.10 * smooth_step(0.4, 0.9, up))
