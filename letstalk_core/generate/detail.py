"""The portrait's own detail for the frames of one run, behind whatever decodes them, in either host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, FaceNotFoundError
from ..media.portrait.crop import SHAPE_TOLERANCE, CropTransform, fit_to
from ..media.portrait.find import check_face, find_face
from ..media.puppet.face import PortraitFace
from ..networks.carry import Carry, Layers
from ..networks.carry_blend import carry_from
from ..pixels import to_unit
from .face_motion import FaceMotion

DRAWN = 0.9  # of a face's quality: bold drawings as networks learned them; paintings and illustrations have less


class PortraitDetail:
    """Decoded frames to frames of `size` with the portrait's detail. It holds no state: any part of a video, made
    at any time, gets the same frames.

    portrait (H, W, 3) uint8, of which the largest middle part of the frames' shape is used, at its own resolution;
    decoded (1, 3, h, w) in [-1, 1]: its round trip through the autoencoder at the size of the frames.
    `size`: height and width of the result, by default those of the frames. `others`: more pictures of the person,
    framed like the portrait, each with its round trip. `motion`: of a photograph's face, which is drawn from the
    portrait then; `face` is None where it is not. Raises: ConfigError.
    """

    def __init__(
        self,
        carry: Carry,
        portrait: Tensor,
        decoded: Tensor,
        size: tuple[int, int] | None = None,
        others: Sequence[tuple[Tensor, Tensor]] = (),
        motion: FaceMotion | None = None,
    ) -> None:
        self.carry = carry
        device = next(carry.parameters()).device
        sampled = decoded.shape[-2], decoded.shape[-1]
        self.references = []
        for picture, again in ((portrait, decoded), *others):
            scaled = (fit_to(picture, own_size(picture, sampled)), fit_to(picture, sampled))
            whole, small = (to_unit(part[None].to(device)) for part in scaled)
            self.references.append(carry.prepare(whole, again.to(device), small, size or sampled))
        whole = fit_to(portrait, own_size(portrait, sampled))
        self.face = None if motion is None else self._face(whole, motion.pose_told)
        self._motion = motion

    def _face(self, portrait: Tensor, pose_told: bool) -> PortraitFace | None:
        """Of a photograph that looks into the camera with open eyes; networks draw drawn faces well."""
        try:
            face = find_face(portrait)
            check_face(face)
        except FaceNotFoundError:
            return None
        if face.qualities["drawn"] > DRAWN:
            return None
        (height, width), (h, w) = self.size, portrait.shape[:2]
        scale = torch.tensor([width / w, height / h, width / w])
        return PortraitFace(self.references[0].portrait, face.points * scale, pose_told)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.references[0].size

    @torch.no_grad()  # in each thread
    def layers(self, first: int, count: int) -> Layers | None:
        """The faces of some frames of the video, where they are the puppet's."""
        if self.face is None or self._motion is None:
            return None
        return self.face(self._motion.rows(first, count))

    @torch.no_grad()  # in each thread
    def __call__(self, frames: Tensor, layers: Layers | None = None) -> Tensor:
        """(t, 3, h, w) in [-1, 1] -> (t, 3, *size) float32 on the same device."""
        own = self.references[0].portrait.device
        return carry_from(self.carry, frames.to(own), self.references, layers).to(frames.device)


def own_size(portrait: Tensor, shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the largest middle part of a picture that has the shape of `shape`."""
    box = CropTransform.centre((portrait.shape[0], portrait.shape[1]), shape)
    return box.y1 - box.y0, box.x1 - box.x0


def check_output_size(size: tuple[int, int], output: tuple[int, int]) -> None:
    """Raises: ConfigError if frames of `size` (height, width) cannot become pictures of `output`."""
    if min(output) < 2 or abs(output[0] * size[1] / (output[1] * size[0]) - 1) > SHAPE_TOLERANCE:
        raise ConfigError(
            f"output size {output[1]}x{output[0]} is of another shape than the frames of {size[1]}x{size[0]}"
        )
