"""What is known exactly about rendered frames: where the landmarks are, and where the portrait shows the same."""

from __future__ import annotations

import torch
from torch import Tensor

from letstalk_core.media.puppet.geometry import axis_grid, invert, sample, sample_frames
from letstalk_core.media.puppet.render import GAZE_X, GAZE_Y, Pose
from letstalk_core.media.puppet.topology import EYES, LOWER_LIP, MOUTH, UPPER_LIP

FLOW_SIZE = 64


def landmarks(pose: Pose) -> Tensor:
    """Where the 478 points are in each frame, lids and gaze included: (b, t, 478, 2), -1..1 over the frame."""
    p, c = pose.puppets, pose.curves
    points = p.head.points[..., :2]
    lids = [i for e in EYES for i in (*e.upper, *e.crease, *e.under_brow)]
    lower = [i for ring in LOWER_LIP for i in ring]
    found = _forward(pose.upper, points)
    found[:, :, lower] = _forward(pose.lower, points[:, lower])
    if bool((c["blink"] > 0).any()):
        found[:, :, lids] = _forward(pose.lid(), points[:, lids])
    gaze = torch.stack([c["gaze_x"] * GAZE_X, c["gaze_y"] * GAZE_Y], -1)[:, :, None]
    for i, eye in enumerate(EYES):
        found[:, :, list(eye.iris)] += gaze * p.eye_width[:, i, None, None, None]
    return found


def _forward(field: Tensor, points: Tensor) -> Tensor:
    """Points (b, k, 2) or (b, t, k, 2) moved by a field (b, t, 2, G, G): (b, t, k, 2)."""
    b, t = field.shape[:2]
    places = points[:, None].expand(-1, t, -1, -1) if points.ndim == 3 else points
    move = sample(field.flatten(0, 1), places.reshape(b * t, 1, -1, 2))
    return places + move[:, :, 0].reshape(b, t, 2, -1).transpose(2, 3)


def flow(frames: Pose, portraits: Pose, *, size: int = FLOW_SIZE) -> Tensor:
    """From frames to portraits of the same people: (b, p, t, 2, size, size), x and y in widths of the picture.

    What a frame shows at x is seen in the portrait at x + flow. Inside an open mouth, where the portrait shows
    nothing of it, the flow is that of the face around.
    """
    p = frames.puppets
    b, t = frames.curves["jaw"].shape
    grid = axis_grid(size, 1.0, p.texture.device).expand(b, t, -1, -1, -1)
    s_up, s_low = invert(frames.upper, grid), invert(frames.lower, grid)
    is_low = (sample_frames(p.lips[:, 1:2], s_low) > sample_frames(p.lips[:, :1], s_up))[:, 0, ..., None]
    source = torch.where(is_low, s_low, s_up)
    blinking = frames.curves["blink"] > 0.01
    if bool(blinking.any()):
        s_lid = invert(frames.lid(), grid, steps=12, pace=0.55)
        covered = (sample_frames(p.eyes[:, :1], s_lid) > 0.5)[:, 0] & blinking[..., None, None]
        source = torch.where(covered[..., None], s_lid, source)
    moves = (sample_frames(p.texture[:, 3:], source) > 0.5)[:, 0, ..., None]
    found = []
    for k in range(portraits.upper.shape[1]):
        up, low = (
            sample_frames(f[:, k], source).permute(0, 2, 3, 4, 1) for f in (portraits.upper, portraits.lower)
        )
        there = torch.where(moves, source + torch.where(is_low, low, up) - grid, torch.zeros_like(source))
        found.append(there.permute(0, 1, 4, 2, 3) / 2)
    return torch.stack(found, 1)


def regions(points: Tensor, size: int = 256) -> Tensor:
    """Boxes x0 y0 x1 y1 in pixels round mouth, left and right eye of the picture: (b, t, 478, 2) -> (b, t, 3,
    4)."""
    at = (points + 1) / 2 * size
    lips = [*MOUTH, *(i for ring in (*UPPER_LIP, *LOWER_LIP) for i in ring)]
    groups = [lips, *([*e.corners, *e.upper, *e.lower] for e in EYES)]
    boxes = []
    for ids, grow_x, grow_y in zip(groups, (0.25, 0.30, 0.30), (0.35, 0.9, 0.9), strict=True):
        low, high = at[:, :, ids].amin(2), at[:, :, ids].amax(2)
        pad = (high - low) * torch.tensor([grow_x, grow_y], device=at.device) + 3 * size / 256
        boxes.append(torch.cat([low - pad, high + pad], -1))
    return torch.stack(boxes, 2).round().clamp(0, size).to(torch.int16)
