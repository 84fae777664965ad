"""Putting the animated crop back into the whole picture: inverse scaling, soft edges, matched colours."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ...errors import ConfigError
from ...pixels import from_bytes, to_bytes
from .crop import SHAPE_TOLERANCE, CropTransform, resize
from .track import CropTrack

MAX_GAIN = 1.25  # of the colour match: more would be a wrong match


class PasteTrack:
    """Pastes frame after frame of a track into its own picture, or all into the one picture of a still.

    Frames may be larger or smaller than the crop was, for instance upscaled, but not of another shape. Pictures
    without a face stay as they are. `feather` is the width of the soft edge as a part of the shorter side of the
    box. The colour match (one gain and offset per channel) makes the border of the first frame equal to the
    picture there, and stays the same afterwards: it must not flicker.
    """

    def __init__(self, track: CropTrack, feather: float = 0.1, match_colour: bool = True) -> None:
        self.track, self.feather, self.match_colour = track, feather, match_colour
        self._colour: tuple[Tensor, Tensor] | None = None
        # Of a box that stays it is made once; a bad feather is refused before the work begins.
        self._mask = track.crops[0], feather_mask(track.crops[0], feather)

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises: ConfigError if frames of `size` (height, width) cannot come from this crop."""
        height, width = self.track.size
        if min(size) < 1 or abs(size[1] * height / (size[0] * width) - 1) > SHAPE_TOLERANCE:
            raise ConfigError(
                f"{size[1]}x{size[0]} pixels are another shape than the crop of {width}x{height};"
                " give frames that were made from this crop"
            )

    def __call__(self, index: int, frame: Tensor, picture: Tensor) -> Tensor:
        """Frame `index` (h, w, 3) over its picture (H, W, 3), each uint8 or float in 0..1: a new picture.

        The result has the dtype of the picture; outside of the box it equals it to the last bit.
        Raises: ConfigError for a frame of another shape than the crop, or a picture of another size.
        """
        self.check_size((frame.shape[0], frame.shape[1]))
        if tuple(picture.shape[:2]) != self.track.image_size:
            height, width = self.track.image_size
            raise ConfigError(
                f"the crop belongs to a picture of {width}x{height}, this one has"
                f" {picture.shape[1]}x{picture.shape[0]}"
            )
        number = index if len(self.track) > 1 else 0
        whole = picture.clone()
        if self.track.faces[number]:
            box = self.track.crops[number]
            rows, columns = slice(box.y0, box.y1), slice(box.x0, box.x1)
            mixed = self._mixed(to_bytes(frame), to_bytes(picture[rows, columns]).to(frame.device), box)
            whole[rows, columns] = mixed if picture.dtype == torch.uint8 else from_bytes(mixed)
        return whole

    def _mixed(self, frame: Tensor, under: Tensor, box: CropTransform) -> Tensor:
        """A frame (h, w, 3) of any size over the box (y1 - y0, x1 - x0, 3) of a picture, all uint8."""
        inner, below = resize(frame, (box.y1 - box.y0, box.x1 - box.x0)).float(), under.float()
        if self.match_colour:
            if self._colour is None:
                self._colour = _match(inner, below)
            gain, offset = self._colour
            inner = inner * gain.to(inner.device) + offset.to(inner.device)
        if self._mask[0] != box:
            self._mask = box, feather_mask(box, self.feather)
        mask = rearrange(self._mask[1].to(frame.device), "h w -> h w 1")
        return torch.lerp(below, inner, mask.expand_as(inner)).round().clamp(0, 255).to(torch.uint8)


def feather_mask(transform: CropTransform, feather: float = 0.1) -> Tensor:
    """Weight of the crop on its box, (y1 - y0, x1 - x0) in 0..1: 1 inside, falling smoothly to 0 at the edges.

    Edges of the box that are edges of the picture stay 1: there is nothing to blend with.
    """
    if not 0 <= feather <= 0.5:
        raise ConfigError(f"feather={feather} must be between 0 and 0.5")
    t = transform
    width = feather * min(t.y1 - t.y0, t.x1 - t.x0)
    down = _ramp(t.y1 - t.y0, width, t.y0 > 0, t.y1 < t.image_height)
    across = _ramp(t.x1 - t.x0, width, t.x0 > 0, t.x1 < t.image_width)
    return torch.outer(down, across)


def _ramp(length: int, width: float, soft_start: bool, soft_end: bool) -> Tensor:
    middle = torch.arange(length) + 0.5
    distance = torch.full((length,), float("inf"))
    if soft_start:
        distance = torch.minimum(distance, middle)
    if soft_end:
        distance = torch.minimum(distance, length - middle)
    x = (distance / max(width, 1e-6)).clamp(0, 1)
    return x * x * (3 - 2 * x)


def _match(frame: Tensor, under: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset (3,) that give the frame's border the mean and spread of the picture's."""
    height, width = under.shape[:2]
    edge = max(1, round(0.1 * min(height, width)))
    border = torch.ones(height, width, dtype=torch.bool, device=under.device)
    border[edge : height - edge, edge : width - edge] = False
    ours, theirs = frame[border], under[border]
    gain = ((theirs.std(0, correction=0) + 1) / (ours.std(0, correction=0) + 1)).clamp(1 / MAX_GAIN, MAX_GAIN)
    return gain, theirs.mean(0) - gain * ours.mean(0)
