"""How a filmed face moves: the channels that networks are told (`networks.motion_channels`), read from frames.

`read_faces` finds the face frame by frame, where it was in the one before; `motion` says how it moves about one
look of it, shot by shot, in the channels' own units. Factors are those by which puppets of known movement give it
back. What cannot be read is 0: gaze_y and brow, which landmarks do not show, and every channel of a
shot without a face. Memory grows by 0.1 kB a frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import ConfigError, FaceNotFoundError
from ..networks.face_points import CHIN, CORNERS, EARS, EYES, FOREHEAD, NOSE_TIP, OVAL
from ..networks.motion_channels import GAZE_LIMIT, MOVEMENTS
from .portrait.face_geometry import eye_opening, fit_head, head_pose, mouth_opening, mouth_width
from .portrait.find import Face, FaceFinder, default_finder
from .portrait.track import averaged, bridged

MEASURES = (
    *("yaw", "pitch", "roll", "size", "x", "y", "pivot_x", "pivot_y"),  # degrees; roll radians; pixels
    *("gaze_x", "lids", "corners", "opening", "width"),
)
# Channels that are read; the rest is 0.
READ = ("smile", "blink", "gaze_x", "shift_x", "shift_y", "roll", "yaw", "pitch", "scale")
COLUMN = {name: i for i, name in enumerate(MEASURES)}
BEHIND = 0.04  # of the face's height from between the ears: about there a head turns
PIVOT = 1.35  # below the middle of the face, in halves of its height: about there it leans

CUT_LEVELS, CUT_TIMES = 14.0, 4.0  # a cut changes small pictures by more, and by more than so many usual changes
DEGREES, YAW = 20.0, 1.15  # at 1, as the puppets turn; yaw is read too small by this
GAZE, OPEN, SHUT = 4.0, 0.08, 0.38  # lids that close by less than OPEN only twitch; SHUT is read of shut eyes
SMILE = {"corners": 11.0, "width": 0.14, "opening": -0.3}
SLOW = 6.0  # frames: a smile is what stays of the lips' motion on average over speech
USUAL = 12  # changes that are remembered as usual
CUT_JUMP = 0.25  # of the size of the face, from one frame to the next
SMALL = 24  # side of the small pictures


class FaceFollower:
    """Finds the main face in the frames of a film, one after another, and where the film is cut."""

    def __init__(self, finder: FaceFinder | None = None) -> None:
        self.finder = finder or default_finder()
        self._last: Face | None = None
        self._small: Tensor | None = None
        self._changes: list[float] = []

    def __call__(self, frame: Tensor) -> tuple[Face | None, bool]:
        """(h, w, 3) uint8 -> the face, or None, and whether another shot begins here."""
        cut = self._another_picture(frame)
        before, face = self._last, None
        if before is not None and not cut:
            face = self.finder.follow(frame, before)
        if face is None:
            faces = self.finder.faces(frame)
            face = faces[0] if faces else None
        if face is not None and before is not None and not cut:
            jump = (face.points - before.points)[:, :2].mean(0).norm()
            cut = float(jump) > CUT_JUMP * max(face.size, before.size)
        self._last = face if face is not None or cut else before
        return face, cut

    def _another_picture(self, frame: Tensor) -> bool:
        small = F.adaptive_avg_pool2d(rearrange(frame, "h w c -> c h w")[:, ::2, ::2].float(), SMALL)
        before, self._small = self._small, small
        if before is None:
            return False
        change = float((small - before).abs().mean())
        usual = sorted(self._changes)[len(self._changes) // 2] if self._changes else 0.0
        cut = change > max(CUT_LEVELS, CUT_TIMES * usual)
        self._changes = [] if cut else [*self._changes[1 - USUAL :], change]
        return cut


def measure(frame: Tensor, face: Face, canonical: Tensor) -> Tensor:
    """MEASURES (13,) float64 of a face in a frame (h, w, 3) uint8. Lengths of features are in face heights,
    and read on the head turned back to the front."""
    points = face.points
    fit, pose = fit_head(points, canonical), head_pose(points, canonical)
    there = canonical.double()
    height = (there[CHIN] - there[FOREHEAD]).norm()
    local = (points.double() - fit.shift) @ fit.turn / fit.scale / height

    def place(at: Tensor) -> Tensor:
        return (fit.scale * (fit.turn @ at) + fit.shift)[:2]

    turning = there[list(EARS)].mean(0) + torch.stack([height * 0, height * 0, BEHIND * height])
    oval = there[list(OVAL), :2]
    low, high = oval.amin(0), oval.amax(0)
    pivot = torch.stack([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2 + PIVOT * (high[1] - low[1]) / 2])
    row = [
        *(float(pose.yaw), float(pose.pitch), math.radians(float(pose.roll)), float(fit.scale * height)),
        *place(turning).tolist(),
        *place(torch.cat([pivot, turning[2:]])).tolist(),
        sum(_gaze(frame, points[list(eye), :2]) for eye in EYES) / len(EYES),
        float(eye_opening(points).mean()),
        float(local[NOSE_TIP, 1] - local[list(CORNERS), 1].mean()),
        float(mouth_opening(points)),
        float(mouth_width(points)),
    ]
    return torch.tensor(row, dtype=torch.float64)


def _gaze(frame: Tensor, eye: Tensor) -> float:
    """How far right of the middle of an eye (21, 2) its dark part is, in widths of the eye. Skin and white are
    bright in red light and every iris is dark, which says more than the landmarks of irises do."""
    across = eye[1] - eye[0] if float(eye[1, 0]) > float(eye[0, 0]) else eye[0] - eye[1]
    wide = float(across.norm())
    along = across / max(wide, 1e-6)
    down = torch.stack([-along[1], along[0]])
    u, v = torch.meshgrid(_axis(32), _axis(16) / 2, indexing="xy")
    at = eye[2:16].mean(0) + wide * (u[..., None] * along + v[..., None] * down)
    height, width = frame.shape[:2]
    x0, y0 = (max(0, int(value) - 1) for value in at.amin((0, 1)).tolist())
    part = frame[y0 : y0 + 3 + int(2 * wide), x0 : x0 + 3 + int(2 * wide), 0].float()
    if wide < 4 or min(part.shape) < 2 or x0 >= width or y0 >= height:
        return 0.0
    size = torch.tensor([part.shape[1], part.shape[0]])
    grid = (at - torch.tensor([x0, y0])) * 2 / size - 1
    red = F.grid_sample(part[None, None], grid[None], align_corners=False, padding_mode="border")[0, 0]
    dark = (red.mean() - red).clamp(min=0) * (1 - (2 * u) ** 2).sqrt() * (1 - (4 * v) ** 2)
    return float((dark * u).sum() / (dark.sum() + 1e-6))


def _axis(count: int) -> Tensor:
    return (torch.arange(count) + 0.5) / count - 0.5


@dataclass(frozen=True, eq=False)
class FilmedFaces:
    """What was measured in the frames of a film. measures (f, 13) float64, columns MEASURES, NaN without a face;
    confidence (f,) 0..1; cuts: first frames of shots but the first; size: height and width of the frames."""

    measures: Tensor
    confidence: Tensor
    cuts: tuple[int, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.measures)

    @property
    def seen(self) -> Tensor:
        """Frames (f,) that show a face."""
        return self.confidence > 0

    @property
    def shots(self) -> list[range]:
        """Frames between cuts."""
        edges = [0, *self.cuts, len(self)]
        return [range(a, b) for a, b in pairwise(edges)]

    @property
    def opening(self) -> Tensor:
        """Of the mouth (f,), in eye distances; NaN without a face."""
        return self.measures[:, COLUMN["opening"]]

    @property
    def width(self) -> Tensor:
        """Of the mouth (f,), in eye distances; NaN without a face."""
        return self.measures[:, COLUMN["width"]]

    def usual(self, frames: range | None = None) -> Tensor:
        """The median (13,) of each measure, and the lids of open eyes. Raises: FaceNotFoundError."""
        chosen = range(len(self)) if frames is None else frames
        rows = self.measures[chosen.start : chosen.stop]
        rows = rows[rows.isfinite().all(1)]
        if not len(rows):
            raise FaceNotFoundError("no face in any of the frames; use a film of a face seen from the front")
        return rows.median(0).values

    def smooth(self, shot: range, smoothing: float = 2.0) -> Tensor:
        """Measures (f, 13) of one shot that shows a face: gaps bridged, averaged over time as in `motion`."""
        part = slice(shot.start, shot.stop)
        return averaged(bridged(self.measures[part], self.seen[part]), smoothing)

    def motion(self, about: Tensor | None = None, smoothing: float = 2.0) -> FilmedMotion:
        """The channels of movement of each frame. `about` (13,): measures of the portrait that will move, a frame
        of the film or another picture of the same size and framing; by default each shot's own usual look.
        `smoothing`: standard deviation in frames of the average over head and brows; no lag, and none over a cut.
        """
        rows = torch.cat([self.shot_motion(shot, about, smoothing) for shot in self.shots])
        return FilmedMotion(rows, self.confidence, self.cuts, self.opening, self.width)

    def shot_motion(self, shot: range, about: Tensor | None = None, smoothing: float = 2.0) -> Tensor:
        """The same for one shot: (frames, 11) float32, columns MOVEMENTS."""
        known = self.seen[shot.start : shot.stop]
        if not bool(known.any()):
            return torch.zeros(len(shot), len(MOVEMENTS))
        usual = self.usual(shot)
        measures = bridged(self.measures[shot.start : shot.stop], known)
        return _channels(measures, usual if about is None else about, usual, self.size[1], smoothing).float()


@dataclass(frozen=True, eq=False)
class FilmedMotion:
    """rows (f, 11) float32, columns MOVEMENTS, as networks are told them about the portrait; frames without a face
    are bridged within their shot. The rest as in `FilmedFaces`."""

    rows: Tensor
    confidence: Tensor
    cuts: tuple[int, ...]
    opening: Tensor
    width: Tensor


def read_faces(
    frames: Iterable[Tensor],
    finder: FaceFinder | None = None,
    seen: Callable[[int, Face | None], None] | None = None,
) -> FilmedFaces:
    """Follow the main face through frames (h, w, 3) uint8, as `read_video` gives them. `seen` is told of every
    frame's face. Raises: ConfigError without frames."""
    follow = FaceFollower(finder)
    canonical = follow.finder.networks.canonical
    rows, confidence, cuts, size = [], [], [], (0, 0)
    for i, frame in enumerate(frames):
        face, cut = follow(frame)
        if cut:
            cuts.append(i)
        size = (frame.shape[0], frame.shape[1])
        rows.append(
            torch.full((len(MEASURES),), torch.nan, dtype=torch.float64)
            if face is None
            else measure(frame, face, canonical)
        )
        confidence.append(0.0 if face is None else face.confidence)
        if seen is not None:
            seen(i, face)
    if not rows:
        raise ConfigError("there are no frames to read motion from; give at least one")
    return FilmedFaces(torch.stack(rows), torch.tensor(confidence), tuple(cuts), size)


def read_motion(frames: Iterable[Tensor], *, portrait: Tensor | None = None) -> FilmedMotion:
    """Movement of the main face in frames (h, w, 3) uint8 about that in `portrait`, a picture of the same size and
    framing, by default about the film's usual look. Raises: FaceNotFoundError for a portrait without a face."""
    return read_faces(frames).motion(None if portrait is None else read_faces([portrait]).usual())


def _channels(rows: Tensor, about: Tensor, usual: Tensor, width: int, smoothing: float) -> Tensor:
    """MOVEMENTS (f, 11) of one shot from its measures (f, 13), all known."""
    place = {name: rows[:, i] for name, i in COLUMN.items()}
    home = {name: about[i] for name, i in COLUMN.items()}
    smooth = averaged(rows, smoothing)
    pose = {name: smooth[:, i] - about[i] for name, i in COLUMN.items()}
    scale, roll = smooth[:, COLUMN["size"]] / home["size"], pose["roll"]
    x, y = home["x"] - home["pivot_x"], home["y"] - home["pivot_y"]
    found = {
        "yaw": YAW / DEGREES * pose["yaw"],
        "pitch": pose["pitch"] / DEGREES,
        "roll": roll,
        "scale": scale - 1,
        "shift_x": (pose["x"] + x - scale * (x * roll.cos() - y * roll.sin())) / width,
        "shift_y": (pose["y"] + y - scale * (x * roll.sin() + y * roll.cos())) / width,
        "gaze_x": (GAZE * (_median(place["gaze_x"]) - home["gaze_x"])).clamp(-GAZE_LIMIT, GAZE_LIMIT),
        "blink": ((1 - place["lids"] / usual[COLUMN["lids"]] - OPEN) / (SHUT - OPEN)).clamp(0, 1),
    }
    slow = averaged(rows, SLOW) - about
    found["smile"] = sum((k * slow[:, COLUMN[name]] for name, k in SMILE.items()), torch.zeros(len(rows)).double())
    none = torch.zeros(len(rows), dtype=torch.float64)
    return torch.stack([found.get(name, none) for name in MOVEMENTS], 1)


def _median(curve: Tensor) -> Tensor:
    """Median of each value and its two neighbours on either side: glances jump, noise goes."""
    padded = F.pad(curve[None, None], (2, 2), mode="replicate")[0, 0]
    return padded.unfold(0, 5, 1).median(-1).values
