"""Hair behind and before the head, and glasses, of drawn faces."""

from __future__ import annotations

import torch
from torch import Tensor

from .canvas import Canvas, Params, bump, ellipse, head_distance, smooth


def _hair_color(p: Params, u: Tensor, v: Tensor) -> Tensor:
    """Soft shading with one highlight band: all the texture hair gets."""
    r = torch.sqrt((u - 0.08 * p.light) ** 2 + (v + 0.05) ** 2 + 1e-9)
    band = bump(((r - 0.58) / 0.10) ** 2) * smooth(0.2, -0.35, v)
    shade = 0.92 + 0.16 * p.light * u - 0.12 * v
    return (p.hair * shade.unsqueeze(1) + (0.16 * band).unsqueeze(1) * (p.hair * 0.7 + 0.3)).clamp_(0, 1)


def hair_behind(canvas: Canvas, p: Params, u: Tensor, v: Tensor) -> None:
    """Hair that hangs behind the head and the shoulders."""
    w, volume = p.face_width, p.hair_volume
    if p.hair_style == "long":
        fall = torch.maximum(u.abs() - (w + 0.065 + volume + 0.05 * v), (v - 0.45).abs() - 0.55)
        shape = torch.minimum(ellipse(u, v + 0.10, w + 0.07 + volume, 0.68), fall)
    elif p.hair_style == "bob":
        shape = torch.maximum(ellipse(u, v - 0.02, w + 0.11 + volume, 0.82), v - 0.50)
    elif p.hair_style == "afro":
        shape = ellipse(u, v + 0.20, w + 0.20 + volume, 0.66 + 0.5 * volume)
    elif p.hair_style == "bun":
        shape = ellipse(u - 0.02 * p.yaw, v + 0.80, 0.20, 0.17)
    else:
        return
    shade = 0.78 - 0.10 * v
    canvas.paint(p.hair * shade.unsqueeze(1), canvas.cover(shape))


def hair_front(canvas: Canvas, p: Params, u: Tensor, v: Tensor, fu: Tensor, fv: Tensor) -> None:
    """The cap of hair above the hairline."""
    rows = canvas.band(-1.0, 0.45)
    u, v, fu, fv = u[:, rows], v[:, rows], fu[:, rows], fv[:, rows]
    w, h, volume, au = p.face_width, p.face_height, p.hair_volume, fu.abs()
    style = p.hair_style
    if style == "short":
        line = p.hairline + 0.04 + 0.25 * au * au + 1.5 * (au - 0.36).clamp(min=0)
        cap = ellipse(u, v + 0.10, w + 0.015 + volume * 0.4, h - 0.10 + volume)
    elif style == "side":
        s = fu * p.part
        line = p.hairline - 0.04 + 0.30 * smooth(-0.22, 0.42, s) + 1.4 * (au - 0.40).clamp(min=0)
        cap = ellipse(u + 0.03 * p.part, v + 0.13, w + 0.03 + volume * 0.6, h - 0.08 + volume)
    elif style in ("bob", "long"):
        q = (fu - 0.10 * p.part).abs()
        line = p.hairline - 0.05 + 0.85 * q**1.5 + 3.0 * (au - 0.39).clamp(min=0)
        cap = ellipse(u, v + 0.10, w + 0.06 + volume, 0.66 + volume * 0.5)
    elif style == "bun":
        line = p.hairline + 0.75 * au * au + 1.0 * (au - 0.38).clamp(min=0)
        cap = ellipse(u, v + 0.10, w + 0.010 + volume * 0.3, h - 0.10 + volume)
    else:  # afro
        line = p.hairline + 0.02 + 0.35 * au * au + 2.0 * (au - 0.37).clamp(min=0)
        cap = ellipse(u, v + 0.20, w + 0.18 + volume, 0.64 + 0.5 * volume)
    shape = torch.maximum(cap, (fv - line) * 0.7)
    shadow = canvas.cover(torch.maximum(head_distance(p, u, v), (fv - line - 0.05) * 0.7), 9.0)
    canvas.paint(p.skin * 0.60, 0.35 * shadow * canvas.cover(head_distance(p, u, v)), rows)
    canvas.paint(_hair_color(p, u, v), canvas.cover(shape), rows)


def glasses(canvas: Canvas, p: Params, fu: Tensor, fv: Tensor) -> None:
    rows = canvas.band(-0.45, 0.35)
    fu, fv = fu[:, rows], fv[:, rows]
    gx, gy = fu.abs() - p.eye_x - 0.008, fv - p.eye_y - 0.012
    if p.round_glasses:
        lens = torch.sqrt(gx * gx + gy * gy + 1e-9) - 0.158
    else:
        lens = (
            torch.sqrt((gx.abs() - 0.095).clamp(min=0) ** 2 + (gy.abs() - 0.055).clamp(min=0) ** 2 + 1e-9) - 0.062
        )
    pale = torch.tensor([0.92, 0.96, 1.0], device=fu.device).view(1, 3, 1, 1)
    canvas.paint(pale, 0.10 * canvas.cover(lens), rows)
    canvas.paint(p.frame, 0.97 * canvas.cover(lens.abs() - 0.013), rows)
    bridge = torch.maximum((gy + 0.03).abs() - 0.013, fu.abs() - (p.eye_x - 0.15))
    arm = torch.maximum((gy + 0.03).abs() - 0.012, (fu.abs() - p.eye_x - 0.24).abs() - 0.085)
    canvas.paint(p.frame, 0.97 * canvas.cover(torch.minimum(bridge, arm)), rows)
