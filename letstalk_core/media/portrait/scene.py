"""A photograph of any framing: the part around its face, which is animated, and the way back into the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...protocols import FaceDetector, FrameSink
from .crop import CropTransform
from .detect import largest_face
from .find import FaceFinder, check_face, find_face
from .paste import PasteTrack
from .track import CropTrack

MARGIN, RAISE_BY = 0.4, 0.09  # the face gets 0.56 of the crop's height, its middle 0.05 of it below the crop's
WHOLE = 0.75  # a picture of the right shape of which a crop takes this part is a portrait already


def frame_face(box: Sequence[float] | Tensor, image_size: tuple[int, int], size: tuple[int, int]) -> CropTransform:
    """The crop of `size` around a face box (x0, y0, x1, y1); all of a picture that is a portrait already.

    Sizes are (height, width). Raises: ConfigError.
    """
    crop = CropTransform.around(box, image_size, size, MARGIN, RAISE_BY)
    whole = CropTransform.centre(image_size, size)
    if (whole.y1 - whole.y0, whole.x1 - whole.x0) == image_size and crop.y1 - crop.y0 >= WHOLE * image_size[0]:
        return whole
    return crop


@dataclass(frozen=True)
class Scene:
    """A picture (h, w, 3) uint8 and the crop that is animated. Called with frames of the crop, (t, h, w, 3) uint8,
    it gives whole pictures of the same type; the mapping of a frame depends on nothing but the frame."""

    picture: Tensor
    crop: CropTransform
    notes: list[str] = field(default_factory=list)  # what the user should know, one line each
    mode: str = "bicubic"  # of the scaling to the size of the crop, or "bilinear"

    @classmethod
    def find(
        cls, picture: Tensor, size: tuple[int, int], finder: FaceFinder | FaceDetector | None = None
    ) -> Scene:
        """The crop of `size` (height, width) around the main face; all of a picture that is a portrait already.

        `finder`: by default the one that comes with the package, whose faces are checked; of any other detector
        the largest face is taken. Raises: FaceNotFoundError, one line with the reason and what to do.
        """
        image_size = (picture.shape[0], picture.shape[1])
        notes: list[str] = []
        if finder is None or isinstance(finder, FaceFinder):
            face = find_face(picture, finder)
            notes = check_face(face)
            box = torch.tensor(face.box)
        else:
            box = largest_face(finder(picture))
        return cls(picture, frame_face(box, image_size, size), notes)

    @property
    def portrait(self) -> Tensor:
        """What is animated: the crop at its size, (height, width, 3) uint8."""
        return self.crop.apply(self.picture, self.mode)

    @property
    def own_size(self) -> tuple[int, int]:
        """Height and width of the crop in the pixels of the picture."""
        return self.crop.y1 - self.crop.y0, self.crop.x1 - self.crop.x0

    def at(self, size: tuple[int, int]) -> Scene:
        """The same with frames of another size (height, width)."""
        return replace(self, crop=replace(self.crop, height=size[0], width=size[1]))

    @property
    def is_whole(self) -> bool:
        """Whether the crop is all of the picture, so that frames need no way back."""
        return self.crop.is_whole

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture."""
        return self.crop.image_height, self.crop.image_width

    @property
    def fingerprint(self) -> str:
        """Changes with the picture and with the crop."""
        digest = hashlib.sha256(self.picture.contiguous().numpy().tobytes())
        digest.update(repr(self.crop).encode())
        return digest.hexdigest()

    def __call__(self, frames: Tensor) -> Tensor:
        paste = PasteTrack(CropTrack(crops=(self.crop,), faces=(True,)), match_colour=False)
        return torch.stack([paste(0, frame, self.picture) for frame in frames])


class PastingSink:
    """A sink of frames of a crop, for a sink of whole pictures."""

    def __init__(self, sink: FrameSink, scene: Scene) -> None:
        self.sink, self.scene = sink, scene

    def write(self, frames: Tensor) -> None:
        """Frames of the crop (t, h, w, 3) uint8; a few at a time, for whole pictures may be large."""
        for part in frames.split(4):
            self.sink.write(self.scene(part))

    def close(self, partial: bool = False) -> None:
        self.sink.close(partial=partial)

    def abort(self) -> None:
        self.sink.abort()
