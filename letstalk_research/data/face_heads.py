"""Heads with 478 known points: what the networks that find faces are trained on.

A folder of `heads*.safetensors` files, each with pictures (n, SIDE, SIDE, 3) uint8, points (n, 478, 3) float16 in
pixels, sure (n, 478) uint8 (whether a point was measured and not completed from a mean shape), shut (n) float16
(how far the eyes are closed) and drawn (n) uint8. `write_portraits`, `write_turned`, `write_drawn` and
`face_puppets.write_puppets` make such files.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.portrait.crop import resize
from letstalk_core.media.portrait.face_geometry import upright_square
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.face_points import OVAL, POINTS

from ..output import save_tensors
from .drawn_points import drawn_points
from .synthetic.faces import render
from .synthetic.identity import sample_identity
from .synthetic.motion import random_pose

SIDE = 192  # pixels of a stored picture
GRID = 48  # cells of the depth of a head
VALIDATION = "validation"  # folder beside the heads, with those of other people
SKULL = 1.35  # half axes of a head, hair included, in half axes of the face's outline

Array = NDArray[np.float64]


@dataclass
class Heads:
    """All heads of a folder, in memory; shapes as in the files."""

    pictures: Tensor
    points: Tensor
    sure: Tensor
    shut: Tensor
    drawn: Tensor

    def __len__(self) -> int:
        return len(self.pictures)


def load_heads(folder: str | Path) -> Heads:
    """Raises: ConfigError if there are none."""
    files = sorted(Path(folder).glob("heads*.safetensors"))
    if not files:
        raise ConfigError(f"{folder}: holds no heads*.safetensors; write them from a folder of portraits first")
    parts = [load_file(str(path)) for path in files]
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    joined["points"] = joined["points"].float()
    return Heads(**joined)


def make_heads(portraits: str | Path, folder: Path, drawn: int, turned: int, seed: int) -> None:
    """Write the heads of a folder of portraits, those of its held-out people into `validation`; what exists stays.

    Raises: ConfigError if the folder has no portraits.csv and landmarks.npz.
    """
    path = folder / "heads-portraits.safetensors"
    if not path.is_file():
        write_portraits(portraits, path)
    if not (folder / VALIDATION).is_dir():
        write_portraits(portraits, folder / VALIDATION / path.name, "heldout")
    if not (other := folder / "heads-drawn.safetensors").is_file():
        shapes = Shapes.of(load_file(str(path))["points"].float(), 40)
        write_drawn(other, shapes, drawn, np.random.default_rng([seed, 1]))
    if not (other := folder / "heads-turned.safetensors").is_file():
        write_turned(portraits, other, turned, np.random.default_rng([seed, 2]))


def save_heads(path: Path, pictures: Tensor, points: Tensor, shut: Tensor, *, drawn: bool, sure: Tensor) -> None:
    """Write one file of heads."""
    count = len(pictures)
    tensors = {
        "pictures": pictures,
        "points": points.half(),
        "sure": sure.expand(count, POINTS).to(torch.uint8).contiguous(),
        "shut": shut.half(),
        "drawn": torch.full((count,), int(drawn), dtype=torch.uint8),
    }
    save_tensors(path, tensors)


@dataclass(frozen=True)
class Shapes:
    """Mean and principal components of faces in their upright squares (-1..1 over the square)."""

    mean: Tensor  # (478, 3)
    basis: Tensor  # (k, 478, 3), scaled to one standard deviation

    @classmethod
    def of(cls, points: Tensor, count: int) -> Shapes:
        """From points (n, 478, 3) of any pictures."""
        centre, side, turn = upright_square(points)
        cos, sin = torch.cos(turn), torch.sin(turn)
        half = (side / 2)[:, None]
        x, y = ((points[..., :2] - centre[:, None]) / half[..., None]).unbind(-1)
        c, s = cos[:, None], sin[:, None]
        flat = torch.stack([x * c + y * s, y * c - x * s, points[..., 2] / half], -1)
        mean = flat.mean(0)
        _, values, vectors = torch.linalg.svd((flat - mean).flatten(1), full_matrices=False)
        scale = values[:count, None] / max(1, len(points)) ** 0.5
        return cls(mean, (vectors[:count] * scale).unflatten(1, (POINTS, 3)))

    def complete(self, known: dict[int, tuple[float, float]]) -> Tensor:
        """All points (478, 3) of the face whose points `known` lie where they are told, in the same unit."""
        ids = list(known)
        target = torch.tensor([known[i] for i in ids], dtype=torch.float64)
        mean, basis = self.mean.double(), self.basis.double()
        middle, reference = target.mean(0), mean[ids, :2].mean(0)
        t, m = target - middle, mean[ids, :2] - reference
        a = (t * m).sum() / m.square().sum()  # the best similarity: scale times cosine and sine
        b = (t[:, 1] * m[:, 0] - t[:, 0] * m[:, 1]).sum() / m.square().sum()
        turn = torch.stack([torch.stack([a, b]), torch.stack([-b, a])])  # row vectors
        rows = torch.cat([basis[:, ids, :2].flatten(1).T, 0.15 * torch.eye(len(basis), dtype=torch.float64)])
        wanted = (t @ torch.linalg.inv(turn) - m).flatten()
        wanted = torch.cat([wanted, torch.zeros(len(basis), dtype=torch.float64)])
        code = torch.linalg.lstsq(rows, wanted[:, None]).solution[:, 0]
        shape = mean + torch.einsum("k,kpc->pc", code, basis)
        flat = (shape[:, :2] - reference) @ turn + middle
        whole = torch.cat([flat, shape[:, 2:] * torch.hypot(a, b)], 1)
        whole[ids, :2] = target
        return whole.float()


def read_portraits(folder: str | Path, split: str) -> Iterator[tuple[dict[str, str], Tensor, Tensor]]:
    """Row of portraits.csv, picture (SIDE, SIDE, 3) uint8 and points (478, 3) in its pixels, of each still."""
    folder = Path(folder)
    try:
        rows = list(csv.DictReader((folder / "portraits.csv").open(encoding="utf-8", newline="")))
        with np.load(folder / "landmarks.npz") as file:
            known = {str(name): i for i, name in enumerate(file["ids"])}
            points = torch.from_numpy(file["points"].astype(np.float32))
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{folder}: needs portraits.csv and landmarks.npz of the stills ({error})") from None
    for row in rows:
        if row["split"] == split and row["id"] in known:
            image = load_portrait(folder / row["image"])
            scale = SIDE / max(image.shape[:2])
            yield row, resize(image, (SIDE, SIDE)), points[known[row["id"]]] * scale


def write_portraits(portraits: str | Path, path: Path, split: str = "train") -> None:
    """The stills themselves. Raises: ConfigError."""
    stills = list(read_portraits(portraits, split))
    if not stills:
        raise ConfigError(f"{portraits}: portraits.csv has no stills of the split {split!r}")
    pictures, points = torch.stack([s[1] for s in stills]), torch.stack([s[2] for s in stills])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_heads(path, pictures, points, torch.zeros(len(stills)), drawn=False, sure=torch.ones(1, POINTS))


def write_drawn(path: Path, shapes: Shapes, count: int, rng: Generator) -> None:
    """Drawn people in random poses; points that the drawing does not have are completed from `shapes`."""
    people = [sample_identity(rng) for _ in range(count)]
    motion = random_pose(rng, count)
    pictures = render(people, motion, size=SIDE)
    points, sure = [], torch.zeros(count, POINTS)
    for i, (person, pose) in enumerate(zip(people, motion, strict=True)):
        known = drawn_points(person, pose, SIDE, shapes.mean)
        points.append(shapes.complete(known))
        sure[i, list(known)] = 1
    shut = torch.from_numpy(motion[:, 5].astype(np.float32))
    save_heads(path, pictures.cpu(), torch.stack(points), shut, drawn=True, sure=sure)


def write_turned(portraits: str | Path, path: Path, count: int, rng: Generator) -> None:
    """Stills whose heads are turned in space by 25 to 85 degrees: what a camera at the side would see, roughly."""
    stills = list(read_portraits(portraits, "train"))
    pictures, points = [], []
    for _ in range(count):
        _, image, face = stills[int(rng.integers(len(stills)))]
        yaw = float(rng.choice([-1, 1]) * rng.uniform(25, 85))
        turned, moved = turn_head(image.numpy(), face.double().numpy(), yaw, float(rng.uniform(-15, 15)))
        pictures.append(torch.from_numpy(turned))
        points.append(torch.from_numpy(moved).float())
    shut = torch.zeros(count)
    save_heads(path, torch.stack(pictures), torch.stack(points), shut, drawn=False, sure=torch.ones(1, POINTS))


def turn_head(
    image: NDArray[np.uint8], points: Array, yaw: float, pitch: float
) -> tuple[NDArray[np.uint8], Array]:
    """The head of a picture (s, s, 3) with points (478, 3) turned by degrees: pixels move in space.

    What the picture does not show of the head gets the colour of its hair.
    """
    side = len(image)
    oval = points[list(OVAL)]
    middle, half = (oval.max(0) + oval.min(0)) / 2, (oval.max(0) - oval.min(0)) / 2
    pivot = np.array([middle[0], middle[1], oval[:, 2].max()])
    scale = 2  # source pixels for each target pixel and direction, against holes
    axis = (np.arange(side * scale) + 0.5) / scale
    x, y = np.meshgrid(axis, axis)
    u = (x - middle[0]) / (half[0] * SKULL)
    v = (y - (middle[1] - 0.25 * half[1])) / (half[1] * SKULL * 1.05)
    inside = u * u + v * v < 1
    depth = _depth(points, oval, middle, half, side)
    wide = F.interpolate(torch.from_numpy(depth)[None, None], size=x.shape, mode="bicubic")[0, 0].numpy()
    source = np.repeat(np.repeat(image, scale, 0), scale, 1)
    rest = np.stack([x[inside], y[inside], wide[inside]], 1)
    moved, colours = _turn(rest, pivot, yaw, pitch), source[inside]
    result = _backdrop(image)
    hair = image[: max(2, int(middle[1] - half[1])), int(middle[0] - half[0] / 2) : int(middle[0] + half[0] / 2)]
    tone = np.median(hair.reshape(-1, 3), 0) if hair.size else image.mean((0, 1))
    gy, gx = np.mgrid[0:side, 0:side] + 0.5
    shifted = middle[0] - np.sin(np.radians(yaw)) * 0.35 * half[0]  # the back of the head goes the other way
    across, down = (gx - shifted) / (half[0] * 1.25), (gy - middle[1] + 0.35 * half[1]) / (half[1] * 1.2)
    result[across**2 + down**2 < 1] = tone
    order = np.argsort(-moved[:, 2])
    for dy in (0, 1):
        for dx in (0, 1):
            tx = np.floor(moved[order, 0] - 0.5).astype(int) + dx
            ty = np.floor(moved[order, 1] - 0.5).astype(int) + dy
            fits = (tx >= 0) & (tx < side) & (ty >= 0) & (ty < side)
            result[ty[fits], tx[fits]] = colours[order][fits]
    return result, _turn(points, pivot, yaw, pitch)


def _turn(points: Array, pivot: Array, yaw: float, pitch: float) -> Array:
    """Nose to the right for yaw > 0, down for pitch > 0; z is away from the camera."""
    x, y, z = (points - pivot).T
    cy, sy, cp, sp = (f(np.radians(a)) for a in (yaw, pitch) for f in (np.cos, np.sin))
    x1, z1 = x * cy - z * sy, x * sy + z * cy
    y2, z2 = y * cp - z1 * sp, y * sp + z1 * cp
    return np.stack([x1, y2, z2], 1) + pivot


def _depth(points: Array, oval: Array, middle: Array, half: Array, side: int) -> Array:
    """Depth (GRID, GRID) of the head: that of its points, and rounded backwards outside of the face."""
    rings = [points[:468]]
    for grow, back in ((1.2, 0.5), (1.45, 1.1)):
        ring = middle + (oval - middle) * np.array([grow, grow, 1.0])
        ring[:, 2] = oval[:, 2] + back * half[0] * 0.6
        rings.append(ring)
    known = torch.from_numpy(np.concatenate(rings))
    axis = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID * side
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    weight = (torch.cdist(grid, known[:, :2]) + 0.5) ** -4
    depth = (weight * known[:, 2]).sum(1) / weight.sum(1)
    return F.avg_pool2d(depth.reshape(1, 1, GRID, GRID), 3, 1, 1, count_include_pad=False)[0, 0].numpy()


def _backdrop(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture's sides, spread over its middle."""
    side = len(image)
    left, right = image[:, :6].mean(1, keepdims=True), image[:, -6:].mean(1, keepdims=True)
    t = np.linspace(0, 1, side)[None, :, None]
    return (left * (1 - t) + right * t).astype(np.uint8)
