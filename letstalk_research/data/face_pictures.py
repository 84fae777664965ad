"""Training pictures for the networks that find faces, made on the fly out of heads (`face_heads`).

For the detector: pictures with no, one or several heads of any size on anything, and where the faces are. For the
mesh network: one face cut out roughly upright, or something that is none. Both are lit, covered and spoilt as
photographs of users are. All randomness comes from the generator that is passed.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from letstalk_core.media.portrait.face_geometry import upright_square
from letstalk_core.networks.face_landmarks import CELL, QUALITIES
from letstalk_core.networks.face_points import EYES, LIPS

from .face_heads import SIDE, Heads
from .face_scenery import cover, painted, shuffled, texture, without_face

CROP = 1.5  # side of the mesh network's crop by the side of the face
PLACED = 4  # faces at most in a picture for the detector


def mirror_order(mean: Tensor) -> Tensor:
    """For each point of the mesh the number of its mirror image, from a mean face (478, 3)."""
    mirrored = mean * torch.tensor([-1.0, 1.0, 1.0])
    order = torch.arange(len(mean))
    rest = sorted(set(range(len(mean))) - {*LIPS, *EYES[0], *EYES[1]})
    apart = torch.cdist(mean[rest], mirrored[rest])
    left = set(rest)
    for pair in (apart + apart.T).flatten().argsort().tolist():  # the nearest pairs first, each point once
        i, j = rest[pair // len(rest)], rest[pair % len(rest)]
        if i in left and j in left:
            order[i], order[j] = j, i
            left -= {i, j}
    order[list(EYES[0])], order[list(EYES[1])] = torch.tensor(EYES[1]), torch.tensor(EYES[0])
    for ring in torch.tensor(LIPS).split(len(LIPS) // 4):  # corner, nine above, corner, nine below
        order[ring] = ring[torch.tensor([*range(10, -1, -1), *range(19, 10, -1)])]
    return order


@dataclass
class _Head:
    """One head as it goes into a picture: (3, SIDE, SIDE) in 0..1, points in pixels, labels."""

    picture: Tensor
    points: Tensor
    sure: Tensor
    labels: Tensor  # (5,) as QUALITIES; NaN: not known


class FacePictures:
    """Makes batches from heads; `backgrounds` (n, 3, SIDE, SIDE) in 0..1 are pictures without faces."""

    def __init__(self, heads: Heads, mirror: Tensor, backgrounds: Tensor | None = None) -> None:
        self.heads, self.mirror, self.backgrounds = heads, mirror, backgrounds

    # Heads

    def _head(self, rng: Generator, *, covered: float = 0.2) -> _Head:
        i = int(rng.integers(len(self.heads)))
        picture = self.heads.pictures[i].permute(2, 0, 1).float() / 255
        points, sure = self.heads.points[i].clone(), self.heads.sure[i].float()
        if rng.random() < 0.5:
            picture = picture.flip(-1)
            points = points[self.mirror] * torch.tensor([-1.0, 1.0, 1.0]) + torch.tensor([float(SIDE), 0, 0])
            sure = sure[self.mirror]
        drawn, shut = float(self.heads.drawn[i]), float(self.heads.shut[i])
        if not drawn and rng.random() < 0.08:
            picture, drawn = painted(picture, rng), 1.0
        closed = 1.0 if shut > 0.8 else 0.0 if shut < 0.3 else math.nan
        labels = torch.tensor([1.0, 0.0, 0.0, closed, drawn])
        if rng.random() < covered:
            picture, eyes, mouth = cover(picture, points, rng)
            labels[QUALITIES.index("eyes_hidden")], labels[QUALITIES.index("mouth_hidden")] = eyes, mouth
            if eyes:
                labels[QUALITIES.index("eyes_shut")] = math.nan
        return _Head(picture, points, sure, labels)

    def _anything(self, rng: Generator) -> Tensor:
        """(3, SIDE, SIDE) without a whole face."""
        kind = rng.random()
        if self.backgrounds is not None and kind < 0.35:
            return self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        if kind < 0.5:
            return texture(rng)
        i = int(rng.integers(len(self.heads)))
        picture = self.heads.pictures[i].permute(2, 0, 1).float() / 255
        if kind < 0.72:
            return shuffled(picture, rng)
        return without_face(picture, self.heads.points[i], rng)

    # The detector

    def whole(self, rng: Generator, count: int, side: int) -> dict[str, Tensor]:
        """picture (count, 3, side, side) in -1..1; faces (count, PLACED, 4): middle x, y, side in pixels, turn in
        radians; NaN rows are none."""
        pictures = torch.empty(count, 3, side, side)
        faces = torch.full((count, PLACED, 4), math.nan)
        for n in range(count):
            canvas = _seen(self._anything(rng), _Place.anywhere(rng, side), side)[0]
            wanted = int(rng.choice([0, 1, 2, 3], p=[0.22, 0.56, 0.14, 0.08]))
            sizes = sorted(np.exp(rng.uniform(math.log(0.07), math.log(1.25), wanted)) * side, reverse=True)
            placed: list[tuple[float, float, float]] = []
            for size in sizes:
                edge = min(0.42 * size, 0.45 * side)
                x, y = rng.uniform(edge, side - edge, 2)
                if any(math.hypot(x - a, y - b) < 0.75 * (size + s) for a, b, s in placed):
                    continue
                turn = _turn(rng)
                head = self._head(rng)
                canvas, own = _paste(canvas, head, (x, y, size, turn), rng, over=bool(placed))
                faces[n, len(placed)] = torch.tensor([x, y, size, turn + own])
                placed.append((x, y, size))
            pictures[n] = canvas
        return {"picture": spoil(pictures, rng) * 2 - 1, "faces": faces}

    # The mesh network

    def crops(self, rng: Generator, count: int, side: int) -> dict[str, Tensor]:
        """crop (count, 3, side, side) in -1..1; points (count, 478, 3) in -1..1 over it; sure (count, 478), 0 for
        points of no face; labels (count, 5), NaN where not known."""
        crops, points = torch.empty(count, 3, side, side), torch.zeros(count, 478, 3)
        sure, labels = torch.zeros(count, 478), torch.full((count, len(QUALITIES)), math.nan)
        for n in range(count):
            if rng.random() < 0.22:
                crops[n], labels[n, 0] = self._no_face(rng, side), 0.0
                continue
            head = self._head(rng, covered=0.3)
            centre, size, turn = (v.numpy() for v in upright_square(head.points))
            place = _Place(
                x=float(centre[0] + size * rng.normal(0, 0.05)),
                y=float(centre[1] + size * rng.normal(0, 0.05)),
                zoom=float(side / (CROP * size) * math.exp(rng.normal(0, 0.10))),
                turn=float(turn + rng.normal(0, math.radians(7))),
            )
            crops[n] = _seen(head.picture, place, side)[0]
            points[n], labels[n] = place.to_crop(head.points, side), head.labels
            sure[n] = 0.15 + 0.85 * head.sure
        return {"crop": spoil(crops, rng) * 2 - 1, "points": points, "sure": sure, "labels": labels}

    def _no_face(self, rng: Generator, side: int) -> Tensor:
        kind = rng.random()
        if kind < 0.5:
            return _seen(self._anything(rng), _Place.anywhere(rng, side), side)[0]
        head = self._head(rng)
        centre, size, turn = (v.numpy() for v in upright_square(head.points))
        x, y = float(centre[0]), float(centre[1])
        zoom, angle = side / (CROP * float(size)), float(turn)
        if kind < 0.65:  # upside down, or lying on a side
            angle += float(rng.choice([-1, 1]) * rng.uniform(1.4, math.pi))
        elif kind < 0.85:  # beside it
            away, direction = float(size * rng.uniform(0.75, 1.2)), rng.uniform(0, 2 * math.pi)
            x, y = x + away * math.cos(direction), y + away * math.sin(direction)
        else:  # a part of it, much too near
            zoom *= float(rng.uniform(2.4, 4.0))
            x, y = x + float(size) * rng.uniform(-0.3, 0.3), y + float(size) * rng.uniform(-0.3, 0.3)
        return _seen(head.picture, _Place(x=x, y=y, zoom=zoom, turn=angle), side)[0]


@dataclass(frozen=True)
class _Place:
    """A square view: its middle in the source's pixels, view pixels per source pixel, and its turn in radians."""

    x: float
    y: float
    zoom: float
    turn: float

    @classmethod
    def anywhere(cls, rng: Generator, side: int) -> _Place:
        """A view of a part of a stored picture, or of all of it."""
        zoom = side / SIDE * float(np.exp(rng.uniform(0.0, 1.3)))
        room = SIDE / 2 - side / zoom / 2
        x, y = SIDE / 2 + rng.uniform(-room, room, 2)
        return cls(float(x), float(y), zoom, float(rng.normal(0, 0.15)))

    def grid(self, side: int, device: torch.device) -> Tensor:
        """Source pixels (side, side, 2) of the view's pixels."""
        axis = (torch.arange(side, device=device) + 0.5 - side / 2) / self.zoom
        u, v = torch.meshgrid(axis, axis, indexing="xy")
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return torch.stack([self.x + u * cos - v * sin, self.y + u * sin + v * cos], -1)

    def to_crop(self, points: Tensor, side: int) -> Tensor:
        """Source points (n, 3) in -1..1 over the view."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        x, y, z = (points - points.new_tensor([self.x, self.y, 0.0])).unbind(-1)
        return torch.stack([x * cos + y * sin, y * cos - x * sin, z], -1) * (self.zoom * 2 / side)


def _seen(picture: Tensor, place: _Place, side: int) -> tuple[Tensor, Tensor]:
    """The view (3, side, side) of a picture, without aliasing, and its grid in the source's -1..1."""
    zoom = place.zoom
    small = picture[None]
    while zoom < 0.7 and small.shape[-1] >= 24:
        small, zoom = F.avg_pool2d(small, 2), zoom * 2
    grid = place.grid(side, picture.device) * (2 / picture.shape[-1]) - 1
    return F.grid_sample(small, grid[None], align_corners=False, padding_mode="border")[0], grid


def _turn(rng: Generator) -> float:
    """Most heads are upright, some lean, a few lie or hang."""
    kind = rng.random()
    if kind < 0.75:
        return float(rng.normal(0, math.radians(11)))
    return float(rng.uniform(-1, 1) * (math.radians(50) if kind < 0.92 else math.pi))


def _paste(
    canvas: Tensor, head: _Head, face: tuple[float, float, float, float], rng: Generator, *, over: bool
) -> tuple[Tensor, float]:
    """The canvas with the head's face at (x, y, size, turn), and the turn that the face has in its own picture."""
    x, y, size, turn = face
    side = canvas.shape[-1]
    centre, own_size, own_turn = (v.numpy() for v in upright_square(head.points))
    zoom = size / float(own_size)
    cos, sin = math.cos(turn), math.sin(turn)
    dx, dy = (side / 2 - x) / zoom, (side / 2 - y) / zoom  # from the face to the middle of the canvas, turned back
    place = _Place(
        x=float(centre[0]) + dx * cos + dy * sin, y=float(centre[1]) - dx * sin + dy * cos, zoom=zoom, turn=-turn
    )
    seen, grid = _seen(head.picture, place, side)
    if over or rng.random() < 0.35:  # the head alone
        c = torch.from_numpy(centre) * (2 / SIDE) - 1
        half = float(own_size) / SIDE
        reach = torch.tensor([rng.uniform(0.9, 1.5), rng.uniform(1.05, 1.5)], dtype=torch.float32) * half
        d = ((grid - c) / reach).norm(dim=-1)
        inside = (1 - d) * float(reach.min())
    else:
        inside = 1 - grid.abs().amax(-1)
    soft = float(rng.choice([0.01, 0.06, 0.15])) * (1 if over else float(rng.random()) + 0.01)
    mask = (inside / soft).clamp(0, 1)
    return torch.lerp(canvas, seen, mask.expand_as(seen)), float(own_turn)


def spoil(pictures: Tensor, rng: Generator) -> Tensor:
    """Light, colour, contrast, shadow, blur, noise and JPEG for each picture of a batch (n, 3, s, s) in 0..1."""
    n, _, side, _ = pictures.shape

    def each(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).view(n, -1, 1, 1)

    x = pictures.clamp(1e-3, 1) ** each(np.exp(rng.normal(0, 0.35, n)))
    x = x * each(np.exp(rng.normal(0, 0.10, (n, 3))))
    level = x.mean((1, 2, 3), keepdim=True)
    x = level + (x - level) * each(np.exp(rng.normal(0, 0.25, n)))
    x = x * each(np.where(rng.random(n) < 0.15, rng.uniform(0.15, 0.7, n), 1.0))
    grey = each(rng.random(n) < 0.12)
    x = torch.lerp(x, x.mean(1, keepdim=True).expand_as(x), grey.expand_as(x))
    axis = torch.linspace(-1, 1, side)
    angle = rng.uniform(0, 2 * np.pi, n)
    slope = each(np.cos(angle)) * axis + each(np.sin(angle)) * axis[:, None]
    x = x * (1 + each(rng.uniform(0, 0.5, n) * (rng.random(n) < 0.4)) * slope)
    for i in range(n):
        if rng.random() < 0.3:  # a small picture, enlarged
            small = max(12, int(side / rng.uniform(1.3, 4.0)))
            shrunk = F.interpolate(x[i : i + 1], size=(small, small), mode="bilinear", antialias=True)
            mode = "bilinear" if rng.random() < 0.7 else "nearest"
            x[i] = F.interpolate(shrunk, size=(side, side), mode=mode)[0]
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    strength = each(rng.uniform(0, 0.3, n) ** 2 * (rng.random(n) < 0.5))
    x = (x + strength * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    for i in range(n):
        if rng.random() < 0.25:
            x[i] = _jpeg(x[i], int(rng.integers(12, 70)))
    return x


def _jpeg(picture: Tensor, quality: int) -> Tensor:
    from PIL import Image

    stream = io.BytesIO()
    pixels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(stream)).copy()).permute(2, 0, 1).float() / 255


def cells_of(faces: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the detector should say on a grid of cells x cells for faces (b, n, 4) as `FacePictures.whole` gives.

    Score (b, cells, cells) in 0..1, values (b, 5, cells, cells): offset x, y, log size, cosine, sine; and the
    weight (b, cells, cells) of these values: 1 near the middle of a face.
    """
    axis = (torch.arange(cells, device=faces.device) + 0.5) * CELL
    dx = (faces[..., 0, None, None] - axis[None, None, None, :]) / CELL  # (b, n, 1, cells)
    dy = (faces[..., 1, None, None] - axis[None, None, :, None]) / CELL
    size = (faces[..., 2] / CELL)[..., None, None]
    distance = torch.hypot(dx, dy)
    width = (0.13 * size).clamp(min=0.55)
    heat = torch.exp(-0.5 * (distance / width) ** 2).nan_to_num(0.0)
    score, owner = heat.max(1)
    ones = torch.ones_like(heat)
    turn = faces[..., 3, None, None]
    values = torch.stack([dx * ones, dy * ones, size.log() * ones, turn.cos() * ones, turn.sin() * ones], 2)
    values = values.gather(1, owner[:, None, None].expand(-1, 1, 5, -1, -1))[:, 0].nan_to_num(0.0)
    nearest = torch.where(distance.isnan(), math.inf, distance).amin((-2, -1), keepdim=True)
    peak = ((distance - nearest).abs() < 1e-3).any(1)
    score = torch.where(peak, 1.0, score.clamp(max=0.95))
    return score, values, (score > 0.45).float()
