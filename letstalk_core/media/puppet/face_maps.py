"""Maps of a portrait round lips and eyes: what each layer of its puppet shows, and how its light changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...networks.face_points import LOWER_INNER, UPPER_INNER
from .fields import CLOSED_GAP, Head
from .geometry import EXTENT, axis_grid, blur, curve_height, grow, sample, smooth_step
from .mouth import SHADE_LOW, SHADE_UP, UPPER_EDGE
from .own_teeth import OwnTeeth, teeth_layer
from .topology import EYES, NASOLABIAL

SEAM_COLUMNS, SEAM_ROWS = 25, 21
FOLD = 0.22  # how deep the fold of a smile is; a face's own folds move, too
LASH, UPRIGHT = 0.09, 0.42  # widths of the eye: of a bunch of lashes, and how high they may stand above the lid
LID_LIGHT = 0.16  # widths of the eye: smaller things are no light but skin
LID_SHARE = 0.7  # of how much lighter than the eye's hollow it is below


def _face_box(head: Head, size: int) -> tuple[slice, slice]:
    """Rows and columns of the texture that hold every face's eyes and mouth."""
    low = (head.low[:, :2].amin(0) / EXTENT + 1) / 2 * size
    high = (head.high[:, :2].amax(0) / EXTENT + 1) / 2 * size
    (x0, y0), (x1, y1) = low.tolist(), high.tolist()
    return (
        slice(max(0, int(y0) - 4), min(size, int(y1) + 5)),
        slice(max(0, int(x0) - 4), min(size, int(x1) + 5)),
    )


class FaceMaps:
    """Masks round lips and eyes, made in the box of the face only."""

    def __init__(self, head: Head, texture: Tensor, teeth: OwnTeeth, dropped: Tensor) -> None:
        self.head, self.size, self.own = head, texture.shape[-1], teeth
        self.box = _face_box(head, self.size)
        self.dropped = dropped[:, None, None]  # how far an open jaw keeps the lower lip down
        self.pixel = 2 * EXTENT / self.size
        self.q = head.local(head.points)[..., :2]
        places = axis_grid(self.size, EXTENT, texture.device)[self.box]
        self.u, self.v = head.plane(places).unbind(-1)  # (b, h, w), lengths as in the frame
        self.width = head.mouth_width[:, None, None]
        self._lip_lines(texture)
        self._eye_masks()
        skin = 1 - self.full(torch.maximum(self.opening, self.lash))[:, None]
        self.bare = grow(texture * skin, skin)  # with skin for eyes

    def line(self, ids: tuple[int, ...]) -> Tensor:
        return curve_height(self.q[:, list(ids)], self.u)

    def full(self, maps: Tensor, outside: float = 0.0) -> Tensor:
        """A map of the box (b, ..., h, w) as one of the whole texture."""
        rows, cols = self.box
        out = maps.new_full((*maps.shape[:-2], self.size, self.size), outside)
        out[..., rows, cols] = maps
        return out

    def _lip_lines(self, texture: Tensor) -> None:
        top, bottom = self.line(UPPER_INNER), self.line(LOWER_INNER)
        q = self.q
        gap = (q[:, list(LOWER_INNER), 1] - q[:, list(UPPER_INNER), 1]).amax(1)[:, None, None]
        corner = 1 - (self.u / (0.5 * self.width)).abs().clamp(0, 1) ** 4
        middle = (top + bottom - self.dropped * corner) / 2  # where they meet
        seam = middle + curve_height(self._seam(texture), self.u)
        closed = gap < CLOSED_GAP * self.width
        shown = self.own.shown[:, None, None]
        if bool(shown.any()):
            seen = (curve_height(line, self.u) for line in (self.own.top, self.own.bottom))
            top, bottom = (torch.where(shown, a, b) for a, b in zip(seen, (top, bottom), strict=True))
            middle = torch.where(shown, bottom - UPPER_EDGE * self.width * corner, middle)
        rims = self.head.rims[..., None, None] * (self.width * corner)[:, None]
        self.top = torch.where(closed, seam, top - rims[:, 0])
        self.bottom = torch.where(closed, seam, bottom + rims[:, 1])
        self.middle = torch.where(closed, seam, middle)

    def _seam(self, texture: Tensor) -> Tensor:
        """Where closed lips really meet: the darkest line near the landmarks', as offsets (b, k, 2) from it."""
        half = self.head.mouth_width[:, None] / 2
        u = torch.linspace(-0.9, 0.9, SEAM_COLUMNS, device=texture.device) * half
        lines = [self.q[:, list(ids)] for ids in (UPPER_INNER, LOWER_INNER)]
        v = (curve_height(lines[0], u) + curve_height(lines[1], u)) / 2
        offset = torch.linspace(-1, 1, SEAM_ROWS, device=texture.device) * 0.12 * half[..., None]
        axes = self.head.axes[:, :2, :2]
        local = torch.stack([u[..., None].expand(-1, -1, SEAM_ROWS), v[..., None] + offset], -1)
        places = self.head.mouth[:, None, None, :2] + local @ axes[:, None]
        dark = sample(F.avg_pool2d(texture.mean(1, keepdim=True), 3, 1, 1), places)[:, 0]
        spread = dark.std(-1, keepdim=True)
        prior = 0.6 * torch.linspace(-1, 1, SEAM_ROWS, device=texture.device) ** 2 * spread
        share = torch.softmax(-(dark + prior) / (0.12 * spread + 1e-4), -1)
        found = (share * offset).sum(-1)
        kernel = torch.hann_window(9, periodic=False, device=texture.device)[1:-1]
        found = F.conv1d(F.pad(found[:, None], (3, 3), mode="replicate"), (kernel / kernel.sum()).view(1, 1, -1))[
            :, 0
        ]
        x = torch.cat([-half, u, half], 1)
        return torch.stack([x, F.pad(found, (1, 1))], -1)

    def lips(self) -> Tensor:
        """(b, 4, T, T): above, below, nearness of the upper and the lower lip."""
        soft = 0.5 * self.pixel
        # Beyond the lips both layers move alike, and the upper one shows everything.
        x = self.u.abs() / self.width
        zone = smooth_step(0.80, 0.58, x) * smooth_step(0.82, 0.50, (self.v - self.dropped) / self.width)
        zone = zone * smooth_step(-0.60, -0.40, self.v / self.width)
        below = torch.sigmoid((self.v - self.bottom) / soft) * zone
        above = 1 - zone * (1 - torch.sigmoid((self.top - self.v) / soft))
        shade_up, shade_low = self._shades()
        rest = self.full(torch.stack([below, shade_up, shade_low], 1))
        return torch.cat([self.full(above[:, None], 1.0), rest], 1)

    def _shades(self) -> tuple[Tensor, Tensor]:
        """Nearness of the upper and of the lower lip."""
        wide = 0.05 * self.width
        return (
            torch.exp(-((self.v - self.top).clamp(min=0) / wide)),
            torch.exp(-((self.bottom - self.v).clamp(min=0) / wide)),
        )

    def inside(self, texture: Tensor) -> Tensor:
        """u, v of the mouth and, if anybody shows teeth, their colour and cover: (b, 2 or 6, T, T)."""
        u, v = self.u / (self.width / 2), (self.v - self.middle) / self.width
        places = self.full(torch.stack([u, v], 1), 9.0)
        if not bool(self.own.shown.any()):
            return places
        above, below = self._shades()
        lit = self.full((1 - SHADE_UP * above) * (1 - SHADE_LOW * below), 1.0)
        own = self.full(teeth_layer(self.head, texture, self.own, self.u, self.v, 1 - lit))
        return torch.cat([places, own], 1)

    def _eye_masks(self) -> None:
        soft = 0.5 * self.pixel
        shape = self.u.shape
        self.cover, self.opening, self.lash, self.upright = (self.u.new_zeros(shape) for _ in range(4))
        for eye in EYES:
            above = self.line((eye.corners[0], *eye.upper, eye.corners[1]))
            below = self.line((eye.corners[0], *eye.lower, eye.corners[1]))
            ends = self.q[:, list(eye.corners), 0]
            width = (ends[:, 0] - ends[:, 1]).abs()[:, None, None]
            x = (self.u - ends.mean(1)[:, None, None]).abs() / width
            within = smooth_step(0.62, 0.54, x)
            zone = within * smooth_step(1.1, 0.8, (self.v - (above + below) / 2).abs() / width)
            cover = torch.sigmoid((above + 0.030 * width - self.v) / soft) * zone
            inside = torch.sigmoid((self.v - above - 0.3 * self.pixel) / soft) * torch.sigmoid(
                (below - self.v) / soft
            )
            inside = inside * smooth_step(0.52, 0.48, x)
            lash = torch.exp(-(((self.v - above - 0.02 * width) / (0.035 * width)) ** 2)) * zone
            self.cover = torch.maximum(self.cover, cover)
            self.opening = torch.maximum(self.opening, inside)
            self.lash = torch.maximum(self.lash, lash)
            high = smooth_step(-UPRIGHT, -0.5 * UPRIGHT, (self.v - above) / width) * smooth_step(0.75, 0.6, x)
            self.upright = torch.maximum(self.upright, high * (self.v < above + 0.1 * width))

    def lid_light(self, texture: Tensor) -> Tensor:
        """Logarithms of the light round the eyes, without what is fine (b, 2, T, T): as it is, and as it would be
        on shut lids, which are lit like the skin below them."""
        ends = [self.q[:, e.corners[0]] - self.q[:, e.corners[1]] for e in EYES]
        widths = torch.stack(ends).norm(dim=-1).mean(0)  # (b,)
        width = widths[:, None, None]
        above = torch.zeros_like(self.u)
        for eye in EYES:
            edge = self.line((eye.corners[0], *eye.lower, eye.corners[1]))
            middle = self.q[:, list(eye.corners), 0].mean(1)[:, None, None]
            near = smooth_step(0.8, 0.6, (self.u - middle).abs() / width)
            above = torch.maximum(above, near * (self.v < edge) * (self.v > edge - 1.2 * width))
        skin, sigmas = 1 - self.full(above)[:, None], (LID_LIGHT * widths / self.pixel).tolist()
        lights = (self.bare.mean(1, keepdim=True), grow(texture.mean(1, keepdim=True) * skin, skin))
        lit = [_blur_each(light, sigmas).clamp(min=0.03).log() for light in lights]
        shut = LID_SHARE * _blur_each(self.full(self.opening)[:, None], [0.5 * sigma for sigma in sigmas])
        return torch.cat([lit[0], torch.lerp(lit[0], lit[1], shut)], 1)

    def lids(self, widths: Tensor) -> Tensor:
        """(b, 4, T, T): the texture with skin for eyes, without dark lines thinner than LASH of the eyes' widths
        (b,) in pixels (its grey closing), and where lashes stand."""
        found = []
        for one, width in zip(self.bare.split(1), widths.tolist(), strict=True):
            side = 2 * max(1, round(LASH * width / 2)) + 1
            light = F.max_pool2d(one, side, 1, side // 2)
            found.append(blur(-F.max_pool2d(-light, side, 1, side // 2), side / 4))
        return torch.cat([torch.cat(found), self.full(self.upright)[:, None]], 1)

    def shades(self) -> Tensor:
        """Logarithms of light (b, 3, T, T): folds beside a smiling mouth, of rounded lips, of an open jaw."""
        mw = self.width
        x, y = self.u / mw, self.v / mw
        fold = torch.zeros_like(x)
        for ids in NASOLABIAL:
            line = self.q[:, list(ids)]
            height = line[..., 1]
            at = curve_height(torch.stack([height, line[..., 0]], -1), self.v)  # x of the fold at every height
            side = torch.sign(line[:, 2, 0])[:, None, None]
            distance = (self.u - at) * side / mw  # outwards
            start, end = (h[:, None, None] for h in (height.amin(1), height.amax(1)))
            span = smooth_step(start, start + 0.25 * mw, self.v)
            end = end + 0.10 * mw
            span = span * smooth_step(end, end - 0.35 * mw, self.v)
            dark = torch.exp(-((distance / 0.06) ** 2)) + 0.4 * torch.exp(-(((distance + 0.07) / 0.09) ** 2))
            bright = torch.exp(-(((distance - 0.15) / 0.12) ** 2))
            fold = fold + span * (0.40 * bright - 0.7 * dark)
        corners = torch.exp(-(((x.abs() - 0.53) / 0.06) ** 2) - ((y + 0.01) / 0.08) ** 2)
        smile = FOLD * fold - 0.20 * corners
        under = torch.exp(-((x / 0.28) ** 2) - ((y - 0.27) / 0.055) ** 2)
        chin = torch.exp(-((x / 0.30) ** 2) - ((y - 0.43) / 0.09) ** 2)
        middle = torch.exp(-((x / 0.16) ** 2) - ((y - 0.09) / 0.05) ** 2)
        hollow = torch.exp(-(((x.abs() - 0.56) / 0.14) ** 2) - (y / 0.2) ** 2)
        creases = torch.cos(2 * torch.pi * x / 0.055) * torch.exp(-((x / 0.30) ** 2) - (y / 0.09) ** 2)
        pursed = -0.20 * under + 0.06 * chin + 0.14 * middle - 0.08 * hollow - 0.04 * creases
        cheek = torch.exp(-(((x.abs() - 0.72) / 0.22) ** 2) - ((y - 0.12) / 0.34) ** 2)
        drop = -0.09 * cheek - 0.06 * corners
        border = smooth_step(0.98, 0.80, x.abs()) * smooth_step(-0.85, -0.68, y) * smooth_step(0.85, 0.62, y)
        return self.full(torch.stack([smile, pursed, drop], 1) * border[:, None])


def _blur_each(image: Tensor, sigmas: Sequence[float]) -> Tensor:
    return torch.cat([blur(one[None], sigma) for one, sigma in zip(image, sigmas, strict=True)])


def grown_eyes(texture: Tensor, opening: Tensor) -> Tensor:
    """The texture with what the eyes show grown outwards, for irises that move under a lid."""
    known = (opening > 0.9).float()[:, None]
    return grow(texture * known, known)
