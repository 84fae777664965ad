"""Cached latents: clips encoded once by autoencoder and audio encoder, and windows of them for training.

A latents file holds "frames" float16 (t, c, h, w) and "portraits" (p, c, h, w), both times the scaling factor,
"audio" float16 (t, layers, d), the encoder's states of each frame, "regions" int16 (t, 3, 4) in pixels, and
"motion" (t, k) and "portrait_motion" (p, k) where they are known; with noisy copies also "frames_noisy" and
"portraits_noisy". Metadata: hashes of both models and the image size.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_core.networks.motion_channels import relative

from .manifest import Manifest

logger = logging.getLogger(__name__)


class _Growing:
    """A tensor that rows are appended to; views taken before stay valid."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._length = 0

    def append(self, rows: Tensor) -> None:
        needed = self._length + len(rows)
        if self._buffer is None or needed > len(self._buffer):
            grown = rows.new_empty((max(2 * self._length, needed), *rows.shape[1:]))
            if self._buffer is not None:
                grown[: self._length] = self._buffer[: self._length]
            self._buffer = grown
        self._buffer[self._length : needed] = rows
        self._length = needed

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> Tensor:
        if self._buffer is None:
            raise MediaError("no latents are loaded; encode the folder with `letstalk encode` first")
        return self._buffer[: self._length]


@dataclasses.dataclass(frozen=True)
class Window:
    """Training samples cut from clips.

    Shapes: frames (b, f, c, h, w), memory (b, a + m, c, h, w), portrait (b, c, h, w), audio (b, f, window, layers,
    d), regions (b, f, 3, 4) in pixels, movement (b, f, channels) relative to the portrait.
    """

    frames: Tensor
    memory: Tensor
    portrait: Tensor
    audio: Tensor
    regions: Tensor
    movement: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class _Snapshot:
    """The store at one moment: flat tensors and where each clip lies in them."""

    tensors: dict[str, Tensor]
    movement: tuple[str, ...]  # its channels
    starts: Tensor  # (n,) first row of each clip
    lengths: Tensor
    portrait_starts: Tensor
    portrait_counts: Tensor
    blinks: Tensor  # (n,) 1 where the eyes close, 0 where they do not or nobody says so


class LatentStore:
    """The latents of one split of a folder in memory, growing with the manifest.

    Clips shorter than `min_frames` are left out, as are those whose files have another number of frames than their
    records say. `movement` names the channels of movement to load. Raises: MediaError for damaged files, for
    latents of different models in one folder, and for clips of which the movement is not known.
    """

    def __init__(
        self, folder: str | Path, split: str, *, min_frames: int, noisy: bool = False, movement: Sequence[str] = ()
    ) -> None:
        self.folder, self.split, self.movement = Path(folder), split, tuple(movement)
        self.min_frames, self.noisy = min_frames, noisy
        self.image_size = 0
        self.hashes: dict[str, str] = {}
        self._loaded: set[str] = set()
        self._rows: dict[str, _Growing] = {}
        self._clips: list[tuple[int, int, int, int, int]] = []
        self._snapshot: _Snapshot | None = None  # of all that is loaded; every batch asks for it

    def __len__(self) -> int:
        return len(self._clips)

    def update(self, manifest: Manifest) -> None:
        """Load the clips that have gained latents, in the order in which they did."""
        for record in manifest.select(self.split, with_latents=True):
            if record.id not in self._loaded:
                self._loaded.add(record.id)
                if record.frames >= self.min_frames:
                    self._load(self.folder / str(record.latents), record.frames)

    def _load(self, path: Path, frames: int) -> None:
        names = ["frames", "portraits", "audio", "regions"]
        names += ["frames_noisy", "portraits_noisy"] if self.noisy else []
        try:
            with safe_open(str(path), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in names}
                metadata = file.metadata() or {}
                motion, poses = (
                    file.get_tensor(name) if name in file.keys() else None
                    for name in ("motion", "portrait_motion")
                )
        except (OSError, SafetensorError) as error:
            raise MediaError(f"{path}: cannot be read as latents ({error}); run `letstalk encode` again") from None
        columns, portraits = metadata.get("motion", "").split(","), len(tensors["portraits"])
        tensors["movement"] = _columns(path, motion, columns, self.movement, frames)
        tensors["portraits_movement"] = _columns(path, poses, columns, self.movement, portraits)
        shapes = {name: list(t.shape) for name, t in tensors.items()}
        dims = {"audio": 3, "regions": 3, "movement": 2, "portraits_movement": 2}
        known = {name: rows.rows.shape[1:] for name, rows in self._rows.items()}
        for name, tensor in tensors.items():
            if tensor.ndim != dims.get(name, 4) or known.get(name, tensor.shape[1:]) != tensor.shape[1:]:
                raise MediaError(
                    f"{path}: its tensors have shapes {shapes}, unlike those of a clip or of clips before it; run"
                    " `letstalk encode` again"
                )
        found = {name: len(t) for name, t in tensors.items() if not name.startswith("portraits")}
        if set(found.values()) != {frames}:
            logger.warning(
                "%s: left out: has %s but the manifest says %d frames; run `letstalk encode` again",
                path,
                ", ".join(f"{count} {name}" for name, count in found.items()),
                frames,
            )
            return
        hashes = {k: metadata.get(k, "") for k in ("autoencoder", "audio_encoder")}
        if self.hashes and hashes != self.hashes:
            raise MediaError(
                f"{path}: was encoded by other models than clips before it; run `letstalk encode` on the folder"
            )
        self.hashes = hashes
        size = metadata.get("image_size", "0")
        self.image_size = (int(size) if re.fullmatch(r"\d{1,6}", size) else 0) or tensors["frames"].shape[-2] * 32
        count = len(tensors["frames"])
        rows = len(self._rows["frames"]) if self._rows else 0
        portrait_rows = len(self._rows["portraits"]) if self._rows else 0
        for name, tensor in tensors.items():
            self._rows.setdefault(name, _Growing()).append(tensor)
        blinks = _blinks(motion, metadata.get("motion", "").split(","))
        self._clips.append((rows, count, portrait_rows, portraits, blinks))
        self._snapshot = None

    def snapshot(self) -> _Snapshot:
        """The present content; later loading does not change it. Raises: MediaError while there is none."""
        if not self._clips:
            raise MediaError(
                f"{self.folder}: has no {self.split} clips with latents of at least {self.min_frames} frames;"
                " run `letstalk encode` first"
            )
        if self._snapshot is None:
            columns = torch.tensor(self._clips).unbind(1)
            self._snapshot = _Snapshot({k: v.rows for k, v in self._rows.items()}, self.movement, *columns)
        return self._snapshot


def _columns(path: Path, motion: Tensor | None, names: list[str], wanted: tuple[str, ...], frames: int) -> Tensor:
    """The wanted channels (t, n) of the movement of a clip or its portraits; all of it is (t, names).

    Raises: MediaError.
    """
    if not wanted:
        return torch.zeros(frames, 0)
    missing = [name for name in wanted if name not in names]
    if motion is None or motion.ndim != 2 or motion.shape[1] != len(names) or missing:
        raise MediaError(
            f"{path}: does not say how {', '.join(missing or wanted)} move in frames and portraits; make clips"
            " that know it, as `letstalk prepare` does, or train without movement in [projection]"
        )
    return motion[:, [names.index(name) for name in wanted]].float()


def _blinks(motion: Tensor | None, names: list[str]) -> bool:
    """Whether the eyes close in a clip of which the movement (t, names) is known."""
    if motion is None or motion.ndim != 2 or motion.shape[1] != len(names) or "blink" not in names:
        return False
    return bool((motion[:, names.index("blink")] > 0.5).any())


def draw_clips(snapshot: _Snapshot, count: int, generator: torch.Generator, *, blinks: float = 0.0) -> Tensor:
    """Indices of random clips (count,), the share `blinks` of them clips in which the eyes close, if any do."""
    clips = torch.randint(len(snapshot.starts), (count,), generator=generator)
    closing = snapshot.blinks.nonzero().flatten()
    if blinks and len(closing):
        chosen = torch.rand(count, generator=generator) < blinks
        others = closing[torch.randint(len(closing), (count,), generator=generator)]
        clips = torch.where(chosen, others, clips)
    return clips


def draw_windows(
    snapshot: _Snapshot,
    clips: Tensor,
    generator: torch.Generator,
    *,
    clip_frames: int,
    memory_frames: int,
    anchor_frames: int,
    audio_window: int,
    cold_start: float,
    far_portrait: float,
    noisy: bool = False,
) -> Window:
    """Cut one window at a random place from each of the given clips (b,), with its portrait and memory.

    The memory holds anchors (the portrait, then the first frames of the clip), then the frames before the window;
    in the share `cold_start` of samples, and where a clip is too short for more, it is the portrait throughout.
    The portrait is one of the clip's own or, in the share `far_portrait`, a frame outside the window.
    """
    b, f, m = len(clips), clip_frames, memory_frames
    start, length = snapshot.starts[clips], snapshot.lengths[clips]
    u = torch.rand(6, b, generator=generator)
    cold = (u[0] < cold_start) | (length < m + f)
    lowest = torch.where(cold, 0, m)
    first = start + lowest + (u[1] * (length - f - lowest + 1)).long()
    suffix = "_noisy" if noisy else ""  # conditions see noisy pixels, the target is clean
    frames = snapshot.tensors["frames"]
    condition, portraits = snapshot.tensors[f"frames{suffix}"], snapshot.tensors[f"portraits{suffix}"]
    chosen = snapshot.portrait_starts[clips] + (u[2] * snapshot.portrait_counts[clips]).long()
    own = portraits[chosen]
    free = length - f  # frames outside the window
    other = (u[3] * free).long()
    other = torch.where(start + other >= first, start + other + f, start + other).clamp(max=start + length - 1)
    far = (u[4] < far_portrait) & (free > 0)
    portrait = torch.where(far.view(-1, 1, 1, 1), condition[other], own)
    movement, poses = snapshot.tensors["movement"], snapshot.tensors["portraits_movement"]
    pose = torch.where(far.view(-1, 1), movement[other], poses[chosen])
    window = first[:, None] + torch.arange(f)
    recent = condition[(first[:, None] - m + torch.arange(m)).clamp(min=start[:, None])]
    early = condition[start[:, None] + torch.arange(max(0, anchor_frames - 1))]
    memory = torch.cat([early, recent], 1)
    memory = torch.where(cold.view(-1, 1, 1, 1, 1), portrait[:, None].expand_as(memory), memory)
    if anchor_frames:
        memory = torch.cat([portrait[:, None], memory], 1)
    offsets = torch.arange(audio_window) - audio_window // 2
    heard = (window[:, :, None] + offsets).clamp(start.view(-1, 1, 1), (start + length - 1).view(-1, 1, 1))
    return Window(
        frames=frames[window],
        memory=memory,
        portrait=portrait,
        audio=snapshot.tensors["audio"][heard],
        regions=snapshot.tensors["regions"][window],
        movement=relative(movement[window], pose[:, None], snapshot.movement),
    )
