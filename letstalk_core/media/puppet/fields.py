"""How a face moves: displacement fields of single expressions, made once per person from the landmarks.

Each of `BASES` says for every point of the mesh where it goes when that expression is at 1; radial basis functions
spread it over the plane. Upper and lower layer differ in whose lip they know, so that they part where lips open;
the lid layer carries the upper lids down. Displacements are in the head's own axes first (x to the right, y down,
z into the head), then in those of the picture. Sizes were set by eye on rendered faces; lengths are in mouth
widths or heights of the face, so that they hold for every face.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.face_points import CHIN, EARS, LOWER_INNER, OVAL, UPPER_INNER
from .geometry import EXTENT, RadialBasis, axis_grid, curve_height, smooth_step
from .topology import (
    BROWS,
    CHEEKS,
    CORNERS,
    EYES,
    FOREHEAD,
    LOWER_LIP,
    MESH_POINTS,
    MOUTH,
    NASOLABIAL,
    TOP,
    UPPER_LIP,
)

GRID = 128  # side of the displacement fields
BASES = ("jaw", "wide", "round", "teeth", "smile", "gap", "brow", "blink", "close")
JAW_DEGREES = 9.6  # rotation about the ears at jaw = 1
STEEPEST = 1.5  # slope of the depth: a steeper cheek would fold over itself when turned
CLOSED_GAP = 0.03  # of the mouth's width: lips that meet
LIPS_APART, MOST_JAW = 0.22, 2.2  # of the mouth's width: what teeth are shown by; jaw that a portrait may have
RIMS = (0.018, 0.045)  # of parted lips, in mouth widths, where landmarks may lie on teeth
OVERLAP = 0.009  # of lips that meet, each
SEEN_RIMS = (0.018, 0.032)  # where the picture tells where the lips end
BROW_LIFT = 0.040  # of the face's height
_LIPS = [i for ring in (*UPPER_LIP, *LOWER_LIP) for i in ring]
_EYE_POINTS = [i for e in EYES for i in (*e.corners, *e.upper, *e.lower, *e.crease, *e.under_brow, *e.under)]
_FEATURES = {*_LIPS, *CORNERS, *_EYE_POINTS, *BROWS, *FOREHEAD, *OVAL, *CHEEKS, *NASOLABIAL[0], *NASOLABIAL[1]}
CONTROL = sorted(_FEATURES | set(range(0, MESH_POINTS, 3)))  # the points that carry the fields


class Head:
    """Axes and sizes of faces. points (b, 478, 3); all lengths in halves of a frame. seen (b,): whether the edges
    of parted lips are from the picture, not landmarks that may lie on teeth."""

    def __init__(self, points: Tensor, seen: Tensor | None = None) -> None:
        self.points = points
        wide, narrow = (points.new_tensor(rims) for rims in (RIMS, SEEN_RIMS))
        # Of the upper and the lower lip (b, 2)
        self.rims = wide.expand(len(points), 2) if seen is None else torch.where(seen[:, None], narrow, wide)
        x = F.normalize(points[:, EYES[1].corners[0]] - points[:, EYES[0].corners[0]], dim=-1)
        y = points[:, CHIN] - points[:, TOP]
        y = F.normalize(y - x * (x * y).sum(-1, keepdim=True), dim=-1)
        self.axes = torch.stack([x, y, torch.linalg.cross(x, y)], 1)  # (b, 3, 3), rows
        self.height = (points[:, CHIN] - points[:, TOP]).norm(dim=-1)
        self.mouth = points[:, list(MOUTH)].mean(1)
        self.mouth_width = (points[:, MOUTH[0]] - points[:, MOUTH[1]]).norm(dim=-1)
        self.centre = points[:, list(EARS)].mean(1) + 0.04 * self.height[:, None] * self.axes[:, 2]  # of turning
        oval = points[:, list(OVAL)]
        self.low, self.high = oval.amin(1), oval.amax(1)
        self.middle, self.half = (self.low + self.high) / 2, (self.high - self.low) / 2

    def local(self, points: Tensor) -> Tensor:
        """Points (b, k, 3) in the head's axes about the middle of the mouth."""
        return (points - self.mouth[:, None]) @ self.axes.transpose(1, 2)

    def plane(self, places: Tensor) -> Tensor:
        """Places (..., 2) of the picture in the head's upright plane about the mouth: (b, ..., 2)."""
        turn = torch.linalg.inv(self.axes[:, :2, :2])
        flat = places.reshape(1 if places.ndim == 3 else len(places), -1, 2) - self.mouth[:, None, :2]
        return (flat @ turn).reshape(len(self.points), *places.shape[-3:])

    def around(self) -> Tensor:
        """Points round the face that no expression moves (b, k, 2): two rings and the edge of the picture."""
        oval = self.points[:, list(OVAL), :2]
        middle = self.middle[:, None, :2]
        edge = axis_grid(5, EXTENT * 5 / 4, oval.device).reshape(-1, 2)
        edge = edge[edge.abs().amax(-1) > 0.99 * EXTENT].expand(len(oval), -1, -1)
        return torch.cat([middle + (oval - middle) * 1.4, middle + (oval - middle) * 1.9, edge], 1)


def _displacements(head: Head) -> Tensor:
    """(b, 468, len(BASES), 3) in the head's axes."""
    q = head.local(head.points[:, :MESH_POINTS])
    mw, fh = head.mouth_width[:, None], head.height[:, None]
    d = q.new_zeros(*q.shape[:2], len(BASES), 3)
    k = {name: i for i, name in enumerate(BASES)}
    u = q[..., 0] / (mw / 2)
    inner = u.abs().clamp(max=1)
    arc = (1 - u**2).clamp(0, 1)
    _jaw(head, q, u, d[..., k["jaw"], :])

    # Widths. Both fade out over the cheeks.
    side = torch.exp(-(((u.abs() - 1).clamp(min=0) / 0.75) ** 2) - (q[..., 1] / (0.20 * fh)) ** 2)
    pull = u.sign() * inner**1.3 * side
    d[..., k["wide"], 0] = 0.105 * mw * pull
    d[..., k["wide"], 2] = 0.05 * mw * pull.abs()
    d[..., k["round"], 0] = -0.17 * mw * u.sign() * inner * side
    d[..., k["round"], 2] = -0.16 * mw * side * (1 - 0.5 * inner)
    for lip, sign in ((UPPER_LIP, -1.0), (LOWER_LIP, 1.0)):
        for r, ring in enumerate(lip):
            ids, outer, inmost = list(ring), 1 - r / 3, r / 3
            a = arc[:, ids]
            d[:, ids, k["wide"], 1] -= sign * 0.018 * mw * outer * a  # thinner
            # Pursed: the red grows taller outwards, most in the middle, and the lips meet in a small round.
            d[:, ids, k["round"], 1] += sign * 0.050 * mw * outer * a ** (0.5 if sign < 0 else 0.25)
            lift = 0.050 if sign < 0 else 0.060
            d[:, ids, k["teeth"], 1] += sign * lift * mw * a**0.7 * (0.55 + 0.45 * inmost)
            d[:, ids, k["gap"], 1] += sign * 0.040 * mw * a**0.45 * (0.6 + 0.4 * inmost)
    # Smile: corners out and up, cheeks up, lower lids up a little.
    lift = u.abs().clamp(max=1.15) ** 2 * torch.exp(-(((u.abs() - 1).clamp(min=0) / 0.6) ** 2))
    lift = lift * torch.exp(-(((q[..., 1] + 0.04 * fh) / (0.18 * fh)) ** 2))
    d[..., k["smile"], 1] = -0.105 * mw * lift
    d[..., k["smile"], 0] = 0.095 * mw * pull
    d[..., k["smile"], 2] = 0.05 * mw * pull.abs()
    d[:, list(CHEEKS), k["smile"], 1] -= 0.040 * mw
    _close(head, q, arc, d[..., k["jaw"], :], d[..., k["close"], :])

    d[:, list(BROWS), k["brow"], 1] = -BROW_LIFT * fh
    forehead = list(FOREHEAD)
    d[:, forehead, k["brow"], 1] = -0.45 * BROW_LIFT * fh * smooth_step(-0.75 * fh, -0.60 * fh, q[:, forehead, 1])
    for eye in EYES:
        d[:, list(eye.under_brow), k["brow"], 1] = -0.5 * BROW_LIFT * fh
        d[:, list(eye.crease), k["brow"], 1] = -0.12 * BROW_LIFT * fh
        opening = (q[:, eye.lower[3], 1] - q[:, eye.upper[3], 1])[:, None]
        d[:, list(eye.lower), k["blink"], 1] = -0.10 * opening
        d[:, list(eye.lower), k["smile"], 1] -= 0.10 * opening
    return d


def _jaw(head: Head, q: Tensor, u: Tensor, out: Tensor) -> None:
    """The jaw turns about the ears; the lower lip goes with its middle, the corners share a third."""
    mw, fh = head.mouth_width[:, None], head.height[:, None]
    hinge = head.local(head.points[:, list(EARS)]).mean(1, keepdim=True)
    rel = q - hinge
    cos, sin = math.cos(math.radians(JAW_DEGREES)), math.sin(math.radians(JAW_DEGREES))
    turned = torch.stack(
        [rel[..., 0], rel[..., 1] * cos - rel[..., 2] * sin, rel[..., 1] * sin + rel[..., 2] * cos], -1
    )
    chin = q[:, CHIN, 1:2]
    weight = smooth_step(-0.30 * chin, 0.62 * chin, q[..., 1])
    weight = weight * (1 - 0.35 * smooth_step(0.75 * mw, 1.25 * mw, q[..., 0].abs()))
    for ring in UPPER_LIP:
        weight[:, list(ring)] = 0
    for r, ring in enumerate(LOWER_LIP):
        ids = list(ring)
        flat = (1 - u[:, ids].abs() ** (2.6 if r == 3 else 4.0)).clamp(min=0)
        weight[:, ids] = 0.36 + 0.64 * flat
    weight[:, list(CORNERS)] = 0.36
    out += (turned - rel) * weight[..., None]
    for ring in UPPER_LIP:
        ids = list(ring)
        out[:, ids, 1] -= 0.020 * mw * (1 - u[:, ids] ** 2).clamp(0, 1)
    near = torch.exp(-((u / 1.25) ** 2) - 1.2 * (q[..., 1] / (0.33 * fh)) ** 2)
    out[..., 0] -= 0.05 * mw * u * near  # an opening mouth narrows, and cheeks fall in


def shut_jaw(head: Head, jaw: Tensor) -> Tensor:
    """Of displacements of a jaw (b, 468, 3), how much has the portrait's mouth open beyond what shows teeth."""
    q = head.local(head.points)[..., 1]
    gap = (q[:, list(LOWER_INNER)] - q[:, list(UPPER_INNER)]).amax(1)
    parts = jaw[:, LOWER_INNER[5], 1] - jaw[:, UPPER_INNER[5], 1]
    return ((gap - LIPS_APART * head.mouth_width) / parts.clamp(min=1e-3)).clamp(0, MOST_JAW)


def _close(head: Head, q: Tensor, arc: Tensor, jaw: Tensor, out: Tensor) -> None:
    """Parted lips meet, without the rim that may be teeth; the outer edges share a part of the way. Lips that are
    further apart than lips alone can be meet by the jaw, too."""
    mw, upper, lower = head.mouth_width[:, None], list(UPPER_LIP[3]), list(LOWER_LIP[3])
    inner = q[:, lower, 1] - q[:, upper, 1]
    gap = inner.amax(1, keepdim=True)
    share = shut_jaw(head, jaw)[:, None]
    out -= share[..., None] * jaw
    inner = inner - share * (jaw[:, lower, 1] - jaw[:, upper, 1])
    parted = (gap > CLOSED_GAP * mw).float()
    rim = mw * arc[:, upper] * parted
    for lip, sign, own in ((UPPER_LIP, 1.0, head.rims[:, :1]), (LOWER_LIP, -1.0, head.rims[:, 1:])):
        way = 0.5 * inner.clamp(min=0) + (own + OVERLAP) * rim
        for r, ring in enumerate(lip):
            out[:, list(ring), 1] += sign * way * (0.45 + 0.55 * r / 3)


def expression_fields(head: Head) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fields of the upper and the lower layer (b, K, 3, G, G), the drop of the lower lip at jaw = 1 (b,), and how
    far that jaw has to shut for the portrait's lips to meet (b,)."""
    b, k = len(head.points), len(BASES)
    local = _displacements(head)
    world = (local.reshape(b, -1, 3) @ head.axes).reshape(b, MESH_POINTS, -1)
    still = head.around()
    points = torch.cat([head.points[:, CONTROL, :2], still], 1)
    values = torch.cat([world[:, CONTROL], world.new_zeros(b, still.shape[1], world.shape[2])], 1)
    weights = []
    # The upper layer knows nothing of the lower lip, and the other way round
    for hidden in (LOWER_LIP, UPPER_LIP):
        skip = {i for ring in hidden for i in ring}
        keep = [j for j in range(points.shape[1]) if j >= len(CONTROL) or CONTROL[j] not in skip]
        solved = RadialBasis(points[:, keep], values[:, keep]).weights
        spread = solved.new_zeros(b, points.shape[1] + 1, solved.shape[2])
        spread[:, [*keep, points.shape[1]]] = solved
        weights.append(spread)
    places = axis_grid(GRID, EXTENT, points.device).reshape(-1, 2)
    both = torch.bmm(RadialBasis.kernel(points, places), torch.cat(weights, 2))
    both = both.transpose(1, 2).reshape(b, 2, k, 3, GRID, GRID)
    jaw = local[:, :, BASES.index("jaw")]
    return both[:, 0].contiguous(), both[:, 1].contiguous(), jaw[:, LOWER_INNER[5], 1], shut_jaw(head, jaw)


def lid_field(head: Head) -> Tensor:
    """Displacement of the upper lids (b, 3, G, G) that shuts the eyes, over what blink does to both layers."""
    q = head.local(head.points)
    p = head.points[..., :2]
    down = head.axes[:, None, 1, :2]
    points, drops = [], []
    for eye in EYES:
        upper, brow = list(eye.upper), list(eye.under_brow)
        goal = curve_height(q[:, list(eye.lower), :2], q[:, upper, 0])
        drop = 0.90 * (goal - q[:, upper, 1])
        for beyond in (0.0, 0.5, 1.0, 1.6):  # past the lid's edge the layer goes on unchanged
            points.append(p[:, upper] + beyond * drop[..., None] * down)
            drops.append(drop)
        gap = p[:, brow] - p[:, upper]  # evenly over the skin up to the brow: creases differ too much
        for part, share in ((0.33, 0.66), (0.66, 0.33), (1.0, 0.08)):
            points.append(p[:, upper] + part * gap)
            drops.append(share * drop)
        fixed = [*eye.corners, *eye.under]
        points.append(p[:, fixed])
        drops.append(torch.zeros_like(p[:, fixed, 0]))
    far = sorted((set(CONTROL) | set(BROWS)) - set(_EYE_POINTS) - set(_LIPS))[::2]
    points += [p[:, far], head.around()]
    drops += [torch.zeros_like(points[-2][..., 0]), torch.zeros_like(points[-1][..., 0])]
    drop = torch.cat(drops, 1)[..., None] * head.axes[:, None, 1]
    # Only places near the eyes show the lid layer.
    height = head.height.max()
    low, high = p[:, _EYE_POINTS].amin((0, 1)) - 0.12 * height, p[:, _EYE_POINTS].amax((0, 1)) + 0.12 * height
    (x0, y0), (x1, y1) = (((v / EXTENT + 1) / 2 * GRID).long().clamp(0, GRID).tolist() for v in (low, high))
    near = axis_grid(GRID, EXTENT, p.device)[y0:y1, x0:x1]
    values = RadialBasis(torch.cat(points, 1), drop)(near.reshape(-1, 2))
    field = p.new_zeros(len(p), 3, GRID, GRID)
    field[..., y0:y1, x0:x1] = values.transpose(1, 2).reshape(len(p), 3, y1 - y0, x1 - x0)
    return field


def depth_map(head: Head, grid: Tensor | None = None) -> Tensor:
    """Depth (b, h, w) of the face, extended over hair and beyond, of limited slope.

    grid (h, w, 2): even places, by default those of the fields.
    """
    oval = head.points[:, list(OVAL)]
    middle = head.middle[:, None, :2]
    points, depths = [head.points[:, CONTROL, :2]], [head.points[:, CONTROL, 2]]
    for factor, back in ((1.25, 0.10), (1.6, 0.16), (2.2, 0.16)):
        points.append(middle + (oval[..., :2] - middle) * factor)
        depths.append(torch.maximum(oval[..., 2] + back * head.height[:, None], head.centre[:, None, 2] - 0.02))
    coarse = axis_grid(GRID // 2, EXTENT, oval.device) if grid is None else grid  # depth is smooth
    z = RadialBasis(torch.cat(points, 1), torch.cat(depths, 1)[..., None], ridge=3e-3)(coarse.reshape(-1, 2))
    z = z.reshape(len(oval), 1, *coarse.shape[:2])
    step = STEEPEST * float(coarse[0, 1, 0] - coarse[0, 0, 0])
    for _ in range(20):
        z = torch.minimum(z, step - F.max_pool2d(-z, 3, 1, 1))
    z = F.avg_pool2d(z, 3, 1, 1, count_include_pad=False)
    return z[:, 0] if grid is not None else F.interpolate(z, size=(GRID, GRID), mode="bilinear")[:, 0]


def falloff(head: Head, grid: Tensor, cut_out: Tensor) -> Tensor:
    """How far places (h, w, 2) follow the head (b, h, w): 1 on the face, less on hair, soon none towards the
    shoulders.

    cut_out (b,): whether the head has a matte; else what is beside it moves along as little as hair would show.
    """
    middle, half = head.middle[:, None, None], head.half[:, None, None]
    dx = (grid[..., 0] - middle[..., 0]) / half[..., 0]
    dy = (grid[..., 1] - middle[..., 1] + 0.18 * half[..., 1]) / half[..., 1]
    below = dy > 0
    r = torch.sqrt(dx**2 * torch.where(below, 0.8, 0.55) + dy**2 * torch.where(below, 0.75, 0.55))
    wide = torch.where(cut_out[:, None, None], smooth_step(0.0, -0.8, dy), torch.zeros_like(dy))
    return smooth_step(2.1 + 1.1 * wide, torch.full_like(wide, 0.95), r)
