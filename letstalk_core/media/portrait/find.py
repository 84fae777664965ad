"""Finding the face in a picture with the networks that come with the package: no download, any picture, CPU.

The detector looks at the picture shrunk to a few sizes; each face that it proposes is cut out upright and read
twice by the mesh network, the second time where the first one saw it. What speaks against animating a face is told
in one line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...errors import FaceNotFoundError
from ...networks.configs import FacesConfig
from ...networks.face_landmarks import CELL, QUALITIES, FaceNetworks
from ...networks.load import DEMO_FOLDER, load_model
from .crop import check_image, resize
from .face_geometry import eye_opening, head_pose, mouth_opening, upright_square

WEIGHTS = DEMO_FOLDER / "faces.safetensors"
SIDES = (128, 256)  # pixels of the longer side that the detector sees
FAR_SIDE = 512  # only if nothing was found, for faces that are small in the picture
SMALLEST, LARGEST = 7.0, 110.0  # pixels of faces that a size of the picture is trusted with
CROP = 1.5  # side of the mesh network's crop by the side of the face
CANDIDATES = 8
PROPOSED, SURE = 0.25, 0.8  # score of a cell to be looked at; confidence of a face: a cup of coffee has 0.74
OVERLAP = 0.35  # of two faces, above which they are one
TURNED, LEANING = 38.0, 60.0  # degrees: of yaw or pitch, and of roll
MIN_PIXELS = 32  # of the height of a face
WIDE_OPEN = 0.25  # parts of the eye distance
SMALL = 0.25  # of the height of a portrait that its face should have


@dataclass(frozen=True)
class Face:
    """A face in a picture; lengths in its pixels, angles in degrees (see `face_geometry.Pose`)."""

    points: Tensor  # (478, 3) float32
    confidence: float  # 0..1
    yaw: float
    pitch: float
    roll: float
    mouth_opening: float  # parts of the eye distance
    eye_openings: tuple[float, float]  # height by width: right, left
    qualities: dict[str, float]  # 0..1, keys QUALITIES
    limits: tuple[float, float, float, float] = FacesConfig.limits  # of the networks that saw it
    others: int = 0  # further faces in the picture

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 around the points, from the hairline to the chin."""
        low, high = self.points[:468, :2].amin(0), self.points[:468, :2].amax(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def size(self) -> float:
        """Pixels of the longer side of the upright square around the face."""
        return float(upright_square(self.points)[1])

    @property
    def drawn(self) -> bool:
        """Whether it looks drawn or painted."""
        return self.qualities["drawn"] > 0.5


class FaceFinder:
    """All faces of a picture; a `FaceDetector`, too. Raises: CheckpointError if the weights cannot be used."""

    def __init__(self, weights: str | Path = WEIGHTS, confidence: float = SURE) -> None:
        self.networks: FaceNetworks = load_model(weights, "faces")
        self.confidence = confidence

    def __call__(self, image: Tensor) -> Tensor:
        """(h, w, 3) uint8 RGB -> boxes (n, 5) float32: x0, y0, x1, y1, confidence; the main face first."""
        rows = [(*face.box, face.confidence) for face in self.faces(image)]
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)

    @torch.inference_mode()
    def faces(self, image: Tensor) -> list[Face]:
        """Faces of a picture (h, w, 3) uint8 RGB, the main one (large and central) first. Raises: ConfigError."""
        check_image(image)
        whole = _Pyramid(image)
        found: list[Face] = []
        for sides in (SIDES, (FAR_SIDE,)):
            if found or (sides == (FAR_SIDE,) and max(image.shape[:2]) <= SIDES[-1]):
                break
            proposals = torch.cat([self._propose(whole, side) for side in sides])
            for row in _distinct(proposals)[:CANDIDATES]:
                face = self._read(whole, row)
                if face.confidence >= self.confidence and not any(_overlap(face, f) > OVERLAP for f in found):
                    found.append(face)
        height, width = image.shape[:2]
        middle = torch.tensor([width / 2, height / 2])

        def weight(face: Face) -> float:
            away = float((face.points[:468, :2].mean(0) - middle).norm()) / math.hypot(width, height)
            return face.size * (1 - away)

        found.sort(key=weight, reverse=True)
        return found

    @torch.inference_mode()
    def follow(self, image: Tensor, last: Face) -> Face | None:
        """The face of a film's next frame (h, w, 3) uint8 RGB near where it was, without a search, or None."""
        check_image(image)
        middle, square, angle = upright_square(last.points)
        centre, side, turn = (float(middle[0]), float(middle[1])), float(square), float(angle)
        height, width = image.shape[:2]
        reach = side * CROP  # the square may be turned
        x0, y0 = (max(0, int(c - reach)) for c in centre)
        x1, y1 = min(width, math.ceil(centre[0] + reach)), min(height, math.ceil(centre[1] + reach))
        if min(x1 - x0, y1 - y0) < 8 or side < SMALLEST:
            return None
        part = _Pyramid(image[y0:y1, x0:x1])
        points, quality = self._mesh(part, centre[0] - x0, centre[1] - y0, side, turn)
        face = self._face(points + points.new_tensor([x0, y0, 0]), quality, float(quality[0]))
        return face if face.confidence >= self.confidence and face.size > 0 else None

    def _propose(self, whole: _Pyramid, side: int) -> Tensor:
        """Rows (n, 5): score, middle x, y and side of a face in pixels of the picture, turn in radians."""
        small, scale = whole.fitted(side)
        x = rearrange(small, "h w c -> 1 c h w").float() / 127.5 - 1
        x = F.pad(x, (0, -x.shape[-1] % 32, 0, -x.shape[-2] % 32), mode="replicate")
        out = self.networks.detector(x)
        score = out.score[0].sigmoid()
        peak = (F.max_pool2d(score[None], 3, 1, 1)[0] == score) & (score > PROPOSED)
        row, column = peak.nonzero().T
        offset, turn = out.offset[0][:, row, column], out.turn[0][:, row, column]
        size = out.size[0][row, column].exp() * CELL
        rows = torch.stack(
            [
                score[row, column],
                (column + 0.5 + offset[0]) * CELL / scale,
                (row + 0.5 + offset[1]) * CELL / scale,
                size / scale,
                torch.atan2(turn[1], turn[0]),
            ],
            1,
        )
        return rows[(size >= SMALLEST) & ((size <= LARGEST) | (side == SIDES[0]))]

    def _read(self, whole: _Pyramid, row: Tensor) -> Face:
        """The face of a proposal."""
        score, x, y, size, turn = row.tolist()
        points, quality = self._mesh(whole, x, y, size, turn)
        seen = float(quality[0])
        centre, side, angle = upright_square(points)
        if float(side) > 0:
            x, y, size, turn = float(centre[0]), float(centre[1]), float(side), float(angle)
            points, quality = self._mesh(whole, x, y, size, turn)
        return self._face(points, quality, score * seen)

    def _face(self, points: Tensor, quality: Tensor, seen: float) -> Face:
        """What points and qualities say; `seen`: scores of what came before, multiplied."""
        values = dict(zip(QUALITIES, quality.tolist(), strict=True))
        confidence = (seen * values["face"]) ** (1 / 3)
        pose = head_pose(points, self.networks.canonical)
        right, left = eye_opening(points).tolist()
        return Face(
            points=points,
            confidence=confidence,
            yaw=float(pose.yaw),
            pitch=float(pose.pitch),
            roll=float(pose.roll),
            mouth_opening=float(mouth_opening(points)),
            eye_openings=(right, left),
            qualities=values,
            limits=self.networks.config.limits,
        )

    def _mesh(self, whole: _Pyramid, x: float, y: float, size: float, turn: float) -> tuple[Tensor, Tensor]:
        """Points (478, 3) in pixels of the picture and qualities (5,) of the face in an upright square."""
        side = self.networks.config.mesh_side
        crop = whole.square(x, y, CROP * size, turn, side)
        mesh = self.networks.mesh(crop[None] / 127.5 - 1)
        u, v, z = (mesh.points[0] * (CROP * size / 2)).unbind(-1)
        cos, sin = math.cos(turn), math.sin(turn)
        return torch.stack([x + u * cos - v * sin, y + u * sin + v * cos, z], -1), mesh.quality[0].sigmoid()


class _Pyramid:
    """A picture at several sizes, so that a cut-out of any size costs little and has no aliasing."""

    def __init__(self, image: Tensor) -> None:
        self.levels = [image]
        while max(self.levels[-1].shape[:2]) > 256 and min(self.levels[-1].shape[:2]) >= 64:
            height, width = self.levels[-1].shape[:2]
            self.levels.append(resize(self.levels[-1], (height // 2, width // 2)))

    def fitted(self, side: int) -> tuple[Tensor, float]:
        """The picture with a longer side of `side` pixels, and its pixels per picture pixel."""
        height, width = self.levels[0].shape[:2]
        scale = side / max(height, width)
        source = next((x for x in reversed(self.levels) if max(x.shape[:2]) >= side), self.levels[0])
        return resize(source, (max(8, round(height * scale)), max(8, round(width * scale)))), scale

    def square(self, x: float, y: float, size: float, turn: float, side: int) -> Tensor:
        """A turned square of the picture, (3, side, side) float in 0..255; what lies outside repeats the edge."""
        level = min(len(self.levels) - 1, max(0, math.floor(math.log2(max(1e-6, size / side)) + 0.3)))
        source = self.levels[level]
        height, width = self.levels[0].shape[:2]
        axis = ((torch.arange(side) + 0.5) / side - 0.5) * size
        u, v = torch.meshgrid(axis, axis, indexing="xy")
        cos, sin = math.cos(turn), math.sin(turn)
        px, py = x + u * cos - v * sin, y + u * sin + v * cos
        grid = torch.stack([px * (2 / width) - 1, py * (2 / height) - 1], -1)
        # Only the part that is needed as float: pictures may be large.
        h, w = source.shape[:2]
        fx, fy = w / width, h / height
        x0, x1 = max(0, int(float(px.min()) * fx) - 2), min(w, int(float(px.max()) * fx) + 3)
        y0, y1 = max(0, int(float(py.min()) * fy) - 2), min(h, int(float(py.max()) * fy) + 3)
        if x1 - x0 < 2 or y1 - y0 < 2:
            x0, y0, x1, y1 = 0, 0, w, h
        part = rearrange(source[y0:y1, x0:x1], "h w c -> 1 c h w").float()
        grid = torch.stack([(px * fx - x0) * (2 / (x1 - x0)) - 1, (py * fy - y0) * (2 / (y1 - y0)) - 1], -1)
        return F.grid_sample(part, grid[None], align_corners=False, padding_mode="border")[0]


def _distinct(rows: Tensor) -> Tensor:
    """Proposals (n, 5), the surest first, without those whose middle lies in a surer one of about its size."""
    kept: list[Tensor] = []
    for row in rows[rows[:, 0].argsort(descending=True)]:
        near = [float((row[1:3] - k[1:3]).abs().max()) < 0.4 * float(torch.minimum(row[3], k[3])) for k in kept]
        if not any(near):
            kept.append(row)
    return torch.stack(kept) if kept else rows[:0]


def _overlap(a: Face, b: Face) -> float:
    """Shared part of the smaller of two boxes."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.box, b.box
    shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    return shared / max(1e-6, min((ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0)))


@lru_cache(maxsize=1)
def default_finder() -> FaceFinder:
    """The finder with the weights of the package, loaded once."""
    return FaceFinder()


def find_face(image: Tensor, finder: FaceFinder | None = None) -> Face:
    """The main face of a picture (h, w, 3) uint8 RGB. Raises: FaceNotFoundError if there is none."""
    found = (finder or default_finder()).faces(image)
    if not found:
        raise FaceNotFoundError("no face was found in the picture; use a picture of a face seen from the front")
    first, *rest = found
    notable = [face for face in rest if face.size > 0.5 * first.size]
    return Face(**{**first.__dict__, "others": len(notable)})


def check_face(face: Face) -> list[str]:
    """What the user should know about a face that can be animated, one line each.

    Raises: FaceNotFoundError, one line with the reason and the remedy, for a photograph of a face that cannot; of
    a drawn face the same is only noted.
    """
    problems = _problems(face)
    if problems and not face.drawn:
        raise FaceNotFoundError(problems[0])
    notes = list(problems)
    if face.mouth_opening > WIDE_OPEN:
        notes.append("the mouth is wide open in the picture and may not quite close; use a calm one if you can")
    if face.others:
        notes.append(f"{face.others + 1} faces were found; takes the largest")
    return notes


def portrait_notes(image: Tensor) -> list[str]:
    """What the user should know of a picture (h, w, 3) uint8 RGB that is animated as it is, one line each."""
    try:
        face = find_face(image)
        if face.size < SMALL * image.shape[0]:
            part = face.size / image.shape[0]
            return [f"the face has {part:.0%} of the picture's height; crop closer around it"]
        return check_face(face)
    except FaceNotFoundError as error:
        return [str(error)]


def _problems(face: Face) -> Sequence[str]:
    found = []
    if face.size < MIN_PIXELS:
        found.append(
            f"the face is too small: {face.size:.0f} pixels high, needs {MIN_PIXELS} or more; use a larger picture"
        )
    if abs(face.roll) > LEANING:
        found.append(f"the face is turned by {face.roll:.0f} degrees in the picture; rotate the picture upright")
    if abs(face.yaw) > TURNED or abs(face.pitch) > TURNED:
        way = f"{abs(face.yaw):.0f} degrees to the side" if abs(face.yaw) > TURNED else "up or down"
        found.append(f"the face is turned away ({way}); use a picture that looks into the camera")
    eyes_hidden, mouth_hidden, eyes_shut, open_eye = face.limits
    if face.qualities["eyes_hidden"] > eyes_hidden:
        found.append("the eyes are covered (sunglasses or a hand?); use a picture that shows them")
    if face.qualities["mouth_hidden"] > mouth_hidden:
        found.append("the mouth is covered (a hand or a mask?); use a picture that shows it")
    if face.qualities["eyes_shut"] > eyes_shut and max(face.eye_openings) < open_eye:
        found.append("the eyes are closed; use a picture with open eyes")
    return found
