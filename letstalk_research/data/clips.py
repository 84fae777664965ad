"""Clips on disk: frames, portraits, sound and drawn truth of one clip, and random frames of many for training.

A clip is a safetensors file (any frame costs one memory-mapped read) or an ordinary video file with sound.
Tensors of a safetensors clip: "frames" uint8 (t, h, w, 3); and, where there are any, "portraits" uint8 (p, h, w,
3), "audio" int16 at 16 kHz (metadata "lead_frames": frames of it before the first picture), "motion" float16 (t,
k) and "portrait_motion" (p, k), "regions" int16 (t, 3, 4) and "portrait_regions" (p, 3, 4): boxes x0 y0 x1 y1 in
pixels of the mouth, left and right eye; a box of no area is unknown.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from letstalk_core.errors import MediaError

from .manifest import ClipRecord
from .video_clips import count_video_frames, read_video_frames

MOTION_KEY = "motion"
T = TypeVar("T")


class ClipFile:
    """One clip, opened lazily. Raises: MediaError if the file is missing, damaged or has no frames."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: Any = None
        self._names: frozenset[str] = frozenset()
        self._metadata: dict[str, str] = {}
        self._boxes: Tensor | None = None
        if self.path.suffix == ".safetensors":
            try:
                self._file = safe_open(str(self.path), framework="pt")
                self._names = frozenset(self._file.keys())
                self._metadata = self._file.metadata() or {}
            except (OSError, SafetensorError) as error:
                raise MediaError(f"{self.path}: cannot be read ({error}); make the clip again") from None
            if "frames" not in self._names:
                raise MediaError(
                    f"{self.path}: has no tensor 'frames', only {sorted(self._names)[:5]}; not a clip file"
                )
            shape = self._file.get_slice("frames").get_shape()
            if len(shape) != 4:
                raise MediaError(f"{self.path}: its frames have shape {shape}, need (t, h, w, 3); make it again")
            self.frame_count = int(shape[0])
        elif not self.path.is_file():
            raise MediaError(f"{self.path}: no such file; make the clip again")
        else:
            self.frame_count = count_video_frames(self.path)
            self._boxes = _boxes_beside(self.path)

    @property
    def motion_names(self) -> tuple[str, ...]:
        names = self._metadata.get(MOTION_KEY, "")
        return tuple(n.strip() for n in names.split(",")) if names else ()

    def has(self, name: str) -> bool:
        return name in self._names

    def frames(self, first: int = 0, count: int | None = None) -> Tensor:
        """Frames (t, h, w, 3) uint8 from `first` on."""
        stop = self.frame_count if count is None else min(self.frame_count, first + count)
        if self._file is None:
            return read_video_frames(self.path, first, stop)
        return self._tensor("frames", first, stop)

    def portraits(self) -> Tensor:
        """Portraits (p, h, w, 3) uint8; the first frame where the clip has none of its own."""
        return self._tensor("portraits") if self.has("portraits") else self.frames(0, 1)

    def regions(self, first: int = 0, count: int | None = None) -> Tensor:
        """Boxes (t, 3, 4) int16; zeros where unknown."""
        stop = self.frame_count if count is None else min(self.frame_count, first + count)
        if self.has("regions"):
            return self._tensor("regions", first, stop)
        if self._boxes is not None and len(self._boxes) >= stop:
            return self._boxes[first:stop]
        return torch.zeros(stop - first, 3, 4, dtype=torch.int16)

    def portrait_regions(self) -> Tensor:
        if self.has("portrait_regions"):
            return self._tensor("portrait_regions")
        return torch.zeros(self.portraits().shape[0], 3, 4, dtype=torch.int16)

    def portrait_motion(self) -> Tensor | None:
        """The same curves for the portraits (p, k); None where nobody says how they pose."""
        return self._tensor("portrait_motion") if self.has("portrait_motion") else None

    def flow(self, portrait: int, first: int, count: int) -> Tensor:
        """Where what frames show is seen in a portrait, as (x, y) in half pictures: (count, 2, h, w) float32."""
        return 2 * self._tensor("flow", portrait, portrait + 1)[0, first : first + count].float()

    def motion(self) -> Tensor:
        """Motion curves (t, k) float16, named by `motion_names`; (t, 0) where there are none."""
        if self.has("motion"):
            return self._tensor("motion")
        return torch.zeros(self.frame_count, 0, dtype=torch.float16)

    @property
    def lead_frames(self) -> int:
        """Frames of sound before the first picture: context for the audio encoder (metadata "lead_frames")."""
        text = self._metadata.get("lead_frames", "0")
        if not re.fullmatch(r"\d{1,9}", text):
            raise MediaError(f"{self.path}: lead_frames={text!r:.40} is no number of frames; make the clip again")
        return int(text)

    def audio(self) -> Tensor:
        """Mono 16 kHz sound (samples,) float32 in [-1, 1]; frame i begins at sample 640 (lead_frames + i)."""
        if self.has("audio"):
            return self._tensor("audio").float() / 32768.0
        if self._file is not None:
            raise MediaError(f"{self.path}: has no sound; make the clip again with sound")
        from letstalk_core.media.audio.decode import load_waveform

        return torch.as_tensor(load_waveform(self.path))

    def _tensor(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        try:
            tensor: Tensor = self._file.get_slice(name)[start:stop]
        except (OSError, SafetensorError, IndexError, TypeError, ValueError) as error:
            raise MediaError(
                f"{self.path}: tensor {name!r} cannot be read ({error}); make the clip again"
            ) from None
        return tensor


def open_clip(folder: str | Path, record: ClipRecord) -> ClipFile:
    return ClipFile(Path(folder) / record.clip)


def _boxes_beside(path: Path) -> Tensor | None:
    """Boxes that `letstalk prepare` wrote beside a video."""
    try:
        with safe_open(str(path.with_suffix(".regions.safetensors")), framework="pt") as file:
            boxes: Tensor = file.get_tensor("regions")
            return boxes
    except (OSError, SafetensorError):
        return None


FrameBatch = tuple[Tensor, Tensor]  # images (b, h, w, 3) uint8, regions (b, 3, 4) int16


def flip_regions(regions: Tensor, width: int) -> Tensor:
    """Boxes (..., 3, 4) of the mirrored image: x0 and x1 swap sides, left and right eye swap places.

    A box of no area stays one.
    """
    x0, y0, x1, y1 = regions.unbind(-1)
    mirrored = torch.stack((width - x1, y0, width - x0, y1), -1)
    return mirrored[..., [0, 2, 1], :]


def crop_windows(
    images: Tensor, regions: Tensor, size: int, step: int, generator: torch.Generator, *, face_share: float = 0.7
) -> FrameBatch:
    """Cut a square window out of each image: `face_share` of them round its boxes, the others anywhere.

    Windows begin at multiples of `step` pixels, the autoencoder's factor, so that features keep their place in the
    latent grid. Boxes are cut to the window. Shapes: (b, h, w, 3), (b, r, 4) -> (b, size, size, 3), (b, r, 4).
    """
    height, width = images.shape[1:3]
    windows, boxes = [], []
    for image, region in zip(images, regions, strict=True):
        u = torch.rand(3, generator=generator).tolist()
        corner = []
        for axis, length in ((0, width), (1, height)):
            places = (length - size) // step
            known = region[region[:, 2] > region[:, 0]][:, [axis, axis + 2]].float()
            if u[2] < face_share and len(known):
                middle = float(known.min() + known.max()) / 2
                index = round((middle - size / 2) / step)
            else:
                index = int(u[axis] * (places + 1))
            corner.append(min(max(index, 0), places) * step)
        x, y = corner
        windows.append(image[y : y + size, x : x + size])
        boxes.append((region - torch.tensor([x, y, x, y], dtype=region.dtype)).clamp(0, size))
    return torch.stack(windows), torch.stack(boxes)


class FrameSampler:
    """Draws random frames (and portraits) of random clips; clips that cannot be read are skipped and counted.

    Every draw depends on the generator and the given records only, which makes a resumed training repeat it.
    """

    def __init__(self, folder: str | Path, *, image_size: int, open_files: int = 128) -> None:
        self.folder = Path(folder)
        self.image_size = image_size
        self.failures = 0
        self._open: OrderedDict[str, ClipFile] = OrderedDict()
        self._lock = threading.Lock()  # several threads draw batches; only the list of open files needs care
        self._open_files = open_files

    def clip(self, record: ClipRecord) -> ClipFile:
        """The open clip of a record; the least recently used file is closed when too many are open."""
        with self._lock:
            found = self._open.pop(record.clip, None)
        found = found or open_clip(self.folder, record)
        with self._lock:
            self._open[record.clip] = found
            if len(self._open) > self._open_files:
                self._open.popitem(last=False)
        return found

    def draw(
        self, records: Sequence[ClipRecord], count: int, generator: torch.Generator, *, flip: bool
    ) -> FrameBatch:
        """Images (b, h, w, 3) uint8 and boxes (b, 3, 4) int16. Raises: MediaError if no clip can be read."""

        def one() -> FrameBatch:
            u = torch.rand(4, generator=generator).tolist()
            image, boxes = self._one(records[int(u[0] * len(records))], u[1], portrait=u[2] < 0.1)
            return (image.flip(1), flip_regions(boxes, image.shape[1])) if flip and u[3] < 0.5 else (image, boxes)

        images, regions = zip(*self.several(records, count, one), strict=True)
        return torch.stack(images), torch.stack(regions)

    def several(self, records: Sequence[ClipRecord], count: int, make: Callable[[], T]) -> list[T]:
        """What `make` draws out of the records, as often as it takes. Raises: MediaError if it fails too often."""
        if not records:
            raise MediaError(f"{self.folder}: the manifest has no clips of this split; add clips first")
        found: list[T] = []
        failures = 0
        while len(found) < count:
            try:
                found.append(make())
            except MediaError:
                failures, self.failures = failures + 1, self.failures + 1
                if failures > 20 + count:
                    raise
        return found

    def check_size(self, clip: ClipFile, image: Tensor) -> None:
        """Whether an image (h, w, 3) is one for the model. Raises: MediaError."""
        if tuple(image.shape[:2]) != (self.image_size, self.image_size):
            raise MediaError(
                f"{clip.path}: frames are {tuple(image.shape[:2])}, the model needs {self.image_size} px square;"
                " prepare the folder at that size"
            )

    def _one(self, record: ClipRecord, position: float, *, portrait: bool) -> FrameBatch:
        clip = self.clip(record)
        if portrait and clip.has("portraits"):
            images, boxes = clip.portraits(), clip.portrait_regions()
            index = int(position * images.shape[0])
            image, box = images[index], boxes[index]
        else:
            index = int(position * clip.frame_count)
            image, box = clip.frames(index, 1)[0], clip.regions(index, 1)[0]
        self.check_size(clip, image)
        return image, box
