"""A filmed person says something else: the frames of a film with mouths that a run generates.

The face is followed through the film. Of each shot one calm frame is the portrait; head and lids are told as they
were filmed, so the generated face turns as the filmed one, and its mouth goes where the filmed one is. Frames that
show no face stay as they are. It is a run like any other (`run.generate`): its clips end at cuts, and `Decode`
puts each into its frames.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, ConfigError, FaceNotFoundError
from ..files import atomic_path, file_sha256
from ..media.filmed_motion import COLUMN, FilmedFaces, read_faces
from ..media.portrait.crop import CropTransform
from ..media.portrait.find import Face, FaceFinder, default_finder
from ..media.portrait.mouth_blend import HeadPlace, MouthBlend
from ..media.portrait.scene import MARGIN, RAISE_BY
from ..media.portrait.track import averaged
from ..media.video.film import Film, back_and_forth
from ..networks.checkpoint import load_tensors, read_header
from ..networks.load import ModelBundle
from ..networks.motion_channels import MOVEMENTS
from ..sampling.clip import Clip
from ..sampling.long_video import plan_clips
from ..sampling.motion import Movement
from .face_motion import FaceMotion, Heard
from .settings import GenerateSettings
from .stages import Stages
from .work_folder import WorkFolder

FACES_FILE = "faces.safetensors"
FACES_VERSION = "1"  # of what is measured
LENGTHS = ("cut", "loop", "error")
SAME_LENGTH_S = 0.2
MOST_TURNED = 35.0  # degrees, beyond which a frame keeps its mouth
FADE = 2.0  # frames: deviation of the average over whether a frame is dubbed
READY = 3  # shots
TOLD = ("smile", "blink", "gaze_x", "yaw", "pitch")  # the crop follows the rest


def output_frames(film: int, sound: int, fps: float, length: str) -> list[int]:
    """Numbers of the film's frames that the video shows, for a film and a sound of so many frames.

    length: cut, as long as the shorter one; loop, as long as the sound, the film back and forth; error, if they
    differ by more than 0.2 s. Raises: ConfigError.
    """
    if length not in LENGTHS:
        raise ConfigError(f"length={length!r} is unknown; choose one of {', '.join(LENGTHS)}")
    if length == "error" and abs(film - sound) > SAME_LENGTH_S * fps:
        raise ConfigError(
            f"the video lasts {film / fps:.2f} s and the sound {sound / fps:.2f} s; cut one of them, or choose the"
            " length cut (the shorter) or loop (the video back and forth)"
        )
    return back_and_forth(film, sound if length == "loop" else min(film, sound))


def follow_film(
    path: Path, fps: float, work: WorkFolder | None, progress: Callable[[int], None] | None = None
) -> FilmedFaces:
    """The faces of a film, as an earlier run left them in its work folder, or found now and kept there.

    Raises: MediaError, FaceNotFoundError without any face, OutputError.
    """
    from ..media.video.reader import read_video

    kept = work.folder / FACES_FILE if work is not None else None
    about = {"film": file_sha256(path), "fps": f"{fps:g}", "version": FACES_VERSION}
    if kept is not None and (found := _load_faces(kept, about)) is not None:
        return found

    def seen(number: int, face: Face | None) -> None:
        if progress is not None:
            progress(number + 1)

    found = read_faces(read_video(path, fps=fps), seen=seen)
    if not bool(found.seen.any()):
        raise FaceNotFoundError(f"{path}: no face in any frame; use a film of a face seen from the front")
    if kept is not None:
        tensors = {"measures": found.measures, "confidence": found.confidence}
        numbers = {"cuts": ",".join(map(str, found.cuts)), "size": ",".join(map(str, found.size))}
        with atomic_path(kept, durable=True) as temporary:
            save_file(tensors, str(temporary), metadata={**about, **numbers})
    return found


def _load_faces(path: Path, about: dict[str, str]) -> FilmedFaces | None:
    try:
        told = read_header(path).metadata
        if any(told.get(name) != value for name, value in about.items()):
            return None
        tensors = load_tensors(path)
        cuts, size = ([int(v) for v in told[name].split(",") if v] for name in ("cuts", "size"))
        return FilmedFaces(tensors["measures"], tensors["confidence"], tuple(cuts), (size[0], size[1]))
    except (CheckpointError, KeyError, ValueError, IndexError):
        return None


class FilmedMovement(Movement):
    """Movement of one shot as it was filmed, rows (frames of the shot, 11); where the shot ends it holds.

    numbers: of the film's frames, by frame of the video.
    """

    def __init__(self, names: tuple[str, ...], rows: Tensor, shot: range, numbers: list[int], fps: float) -> None:
        super().__init__(names, seed=0, fps=fps)
        self.filmed = rows[:, [MOVEMENTS.index(name) for name in names]]
        self.shot, self.numbers = shot, numbers

    def rows(self, first: int, count: int) -> Tensor:
        own: list[int] = []
        for number in self.numbers[first : first + count]:
            if number not in self.shot:
                break
            own.append(number - self.shot.start)
        return self.filmed[own + own[-1:] * (count - len(own))]


@dataclass(frozen=True, eq=False)
class Shot:
    """What a shot's clips are made with: its portrait's latent, stages, movement, and how it is blended."""

    latent: Tensor
    stages: Stages
    moves: FilmedMovement
    blend: MouthBlend


class Shots:
    """The shots of a film as a run dubs them. A few are ready at a time, so memory stays the same.

    numbers: of the film's frames, by frame of the video; size: of the frames that the network samples; sound: what
    is said, for mouths that are drawn from the film.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        settings: GenerateSettings,
        path: Path,
        faces: FilmedFaces,
        numbers: list[int],
        finder: FaceFinder | None = None,
        sound: Heard | None = None,
    ) -> None:
        assert settings.fps is not None and settings.size is not None
        if not {"yaw", "pitch"} <= set(bundle.audio_projection.config.movement):
            raise ConfigError(
                "dubbing needs a model that is told how the head moves; use the demo model, or one trained with"
                " movement"
            )
        self.bundle, self.settings, self.path, self.faces = bundle, settings, path, faces
        self.numbers, self.finder, self.sound = numbers, finder or default_finder(), sound
        self.film, self.portraits = Film(path, settings.fps), Film(path, settings.fps)
        shown = faces.measures[:, COLUMN["yaw"]].abs() < MOST_TURNED
        shown &= faces.measures[:, COLUMN["pitch"]].abs() < MOST_TURNED
        self.weights = torch.zeros(len(faces), dtype=torch.float64)
        self.smooth = torch.zeros_like(faces.measures)
        self.shot_of = torch.zeros(len(faces), dtype=torch.long)
        for i, shot in enumerate(faces.shots):
            part = slice(shot.start, shot.stop)
            seen = faces.seen[part] & shown[part]
            soft = averaged(seen.double()[:, None], FADE)[:, 0]
            self.weights[part] = torch.where(seen, ((soft - 0.5) * 2).clamp(0, 1), torch.zeros(()).double())
            self.shot_of[part] = i
            if bool(faces.seen[part].any()):
                self.smooth[part] = faces.smooth(shot)
        self._ready: dict[int, Shot] = {}
        self._lock = threading.Lock()

    def plan(self, clip_frames: int) -> tuple[list[Clip], frozenset[int]]:
        """Clips of the video, each within a shot, and the indices of those that begin one."""
        clips: list[Clip] = []
        cuts = []
        begin, shots = 0, self.shot_of[self.numbers].tolist()
        for end in range(1, len(shots) + 1):
            if end == len(shots) or shots[end] != shots[begin]:
                cuts.append(len(clips))
                for clip in plan_clips(end - begin, clip_frames):
                    clips.append(Clip(len(clips), begin + clip.first, clip.count))
                begin = end
        return clips, frozenset(cuts)

    def is_dubbed(self, clip: Clip) -> bool:
        """Whether any of its frames gets another mouth."""
        return bool((self.weights[self.numbers[clip.first : clip.first + clip.count]] > 0).any())

    def portrait(self, clip: Clip, otherwise: Tensor) -> Tensor:
        """The latent of the portrait of a clip's shot, if any frame of the shot is dubbed."""
        shot = self.faces.shots[int(self.shot_of[self.numbers[clip.first]])]
        return self.of(clip).latent if bool((self.weights[shot.start : shot.stop] > 0).any()) else otherwise

    def of(self, clip: Clip) -> Shot:
        """The shot of a clip, one with frames that are dubbed, made ready. Raises: NumericalError, MediaError."""
        number = int(self.shot_of[self.numbers[clip.first]])
        with self._lock:  # one thread samples, another decodes
            if number not in self._ready:
                shot = self._make(self.faces.shots[number])
                self._ready = {**dict(list(self._ready.items())[1 - READY :]), number: shot}
            return self._ready[number]

    def _make(self, shot: range) -> Shot:
        settings, faces = self.settings, self.faces
        assert settings.size is not None and settings.fps is not None
        best = self._calmest(shot)
        frame = self.portraits[[best]][0]
        face = self._face(frame, best)
        crop = CropTransform.around(face.box, (frame.shape[0], frame.shape[1]), settings.size, MARGIN, RAISE_BY)
        own = (crop.y1 - crop.y0, crop.x1 - crop.x0)
        stages = Stages(self.bundle, settings.decode_batch)
        latent = stages.encode(crop.apply(frame))
        rows = faces.shot_motion(shot, faces.measures[best])
        rows = rows * torch.tensor([float(name in TOLD) for name in MOVEMENTS])
        names = tuple(self.bundle.audio_projection.config.movement)
        moves = FilmedMovement(names, rows, shot, self.numbers, settings.fps)
        if settings.carry:
            own, lips = (own[0] // 2 * 2, own[1] // 2 * 2), self.bundle.lips if settings.puppet else None
            stages.carry_detail(
                frame[crop.y0 : crop.y1, crop.x0 : crop.x1].contiguous(),
                stages.round_trip(latent),
                own,
                None if lips is None or self.sound is None else FaceMotion(lips, self.sound, moves),
            )
        blend = MouthBlend(crop, face.points, self._place(best), self.finder.networks.canonical)
        return Shot(latent, stages, moves, blend)

    def _calmest(self, shot: range) -> int:
        """The frame whose mouth is closed, whose eyes are open, and which looks as the shot usually does."""
        part = slice(shot.start, shot.stop)
        measures, usual = self.faces.measures[part], self.faces.usual(shot)
        off = (measures - usual).abs()
        badness = measures[:, COLUMN["opening"]] + off[:, [COLUMN["yaw"], COLUMN["pitch"]]].sum(1) / 60
        badness += 0.5 * (1 - measures[:, COLUMN["lids"]] / usual[COLUMN["lids"]]).clamp(min=0)
        usable = self.weights[part] > 0
        badness = torch.where(usable, badness, torch.full_like(badness, math.inf)).nan_to_num(math.inf)
        return shot.start + int(badness.argmin())

    def _face(self, frame: Tensor, number: int) -> Face:
        """The face that was followed, in one of its frames."""
        x, y = (float(self.faces.measures[number, COLUMN[name]]) for name in ("x", "y"))
        found = self.finder.faces(frame)
        if not found:
            raise FaceNotFoundError(
                f"{self.path}: the face of frame {number} is not found again; use a sharper film"
            )
        return min(found, key=lambda face: float((face.points[:468, :2].mean(0) - torch.tensor([x, y])).norm()))

    def _place(self, number: int) -> HeadPlace:
        row = {name: float(self.smooth[number, i]) for name, i in COLUMN.items()}
        turns = {name: math.radians(row[name]) for name in ("yaw", "pitch")}
        return HeadPlace(x=row["x"], y=row["y"], size=row["size"], roll=row["roll"], **turns)

    @torch.no_grad()  # in each thread
    def decode(self, latents: Tensor, clip: Clip) -> Tensor:
        """A `Decode`: whole frames of the film, (f, h, w, 3) uint8, with the mouths of the clip."""
        numbers = self.numbers[clip.first : clip.first + clip.count]
        frames = self.film[numbers]
        if not self.is_dubbed(clip):
            return torch.stack(frames)
        shot = self.of(clip)
        made = shot.stages.decode(latents, clip)
        opening = self.faces.opening.nan_to_num(0.0)
        return torch.stack(
            [
                shot.blend(frame, new, self._place(n), float(opening[n]), float(self.weights[n]))
                for frame, new, n in zip(frames, made, numbers, strict=True)
            ]
        )
