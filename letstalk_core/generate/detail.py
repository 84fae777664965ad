"""The portrait's own detail for the frames of one run, behind whatever decodes them, in either host."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError, FaceNotFoundError
from ..media.portrait.crop import SHAPE_TOLERANCE, CropTransform, fit_to
from ..media.portrait.find import check_face, find_face
from ..media.portrait.lids import Lids
from ..networks.carry import Carry
from ..pixels import to_unit

__all__ = ["PortraitDetail", "check_output_size", "own_size"]


class PortraitDetail:
    """Decoded frames to frames of `size` with the portrait's detail. It holds no state: any part of a video, made
    at any time, gets the same frames.

    portrait (H, W, 3) uint8, of which the largest middle part of the frames' shape is used, at its own resolution;
    decoded (1, 3, h, w) in [-1, 1]: its round trip through the autoencoder at the size of the frames.
    `size`: height and width of the result, by default those of the frames. Raises: ConfigError.
    """

    def __init__(
        self, carry: Carry, portrait: Tensor, decoded: Tensor, size: tuple[int, int] | None = None
    ) -> None:
        height, width = decoded.shape[-2:]
        device = next(carry.parameters()).device
        whole = fit_to(portrait, own_size(portrait, (height, width)))
        small = fit_to(portrait, (height, width))
        self.carry = carry
        pictures = (to_unit(picture[None].to(device)) for picture in (whole, small))
        self.reference = carry.prepare(next(pictures), decoded.to(device), next(pictures), size)
        self.lids = self._lids(whole) if carry.config.lids else None

    def _lids(self, portrait: Tensor) -> Lids | None:
        """Of a photograph with open eyes that look into the camera; networks draw those of drawn faces well."""
        try:
            face = find_face(portrait)
            check_face(face)
        except FaceNotFoundError:
            return None
        if face.drawn:
            return None
        (height, width), (h, w) = self.size, portrait.shape[:2]
        return Lids(self.reference.portrait, face.points[:, :2] * torch.tensor([width / w, height / h]))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.reference.size

    @torch.no_grad()  # in each thread
    def __call__(self, frames: Tensor, blink: Tensor | None = None) -> Tensor:
        """(t, 3, h, w) in [-1, 1] -> (t, 3, *size) float32 on the same device; blink (t,): 0 open, 1 shut."""
        own = self.reference.portrait.device
        layers: list[Tensor | None] = []
        if self.lids is not None and blink is not None:
            layers = [self.lids(amount) for amount in blink.tolist()]
        return self.carry(frames.to(own), self.reference, layers).to(frames.device)


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
