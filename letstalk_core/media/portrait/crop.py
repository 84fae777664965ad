"""Cutting the animated part out of a picture: a whole-pixel box, scaled to the size of the video; invertible."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...errors import ConfigError

SHAPE_TOLERANCE = 0.02  # by which the ratio of the sides may differ when a picture was scaled


@dataclass(frozen=True, kw_only=True)
class CropTransform:
    """A box x0..x1, y0..y1 of a picture of image_height x image_width, scaled to height x width.

    Pixel i covers i..i+1, so a point (x, y) of the picture lies at ((x - x0) * width / (x1 - x0), …) in the crop.
    The box has whole pixels and lies inside the picture.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    image_height: int
    image_width: int
    height: int
    width: int

    def __post_init__(self) -> None:
        inside = 0 <= self.x0 < self.x1 <= self.image_width and 0 <= self.y0 < self.y1 <= self.image_height
        if not inside or min(self.height, self.width) < 1:
            raise ConfigError(
                f"crop: box {(self.x0, self.y0, self.x1, self.y1)} to {self.width}x{self.height} does not fit in a"
                f" picture of {self.image_width}x{self.image_height}"
            )

    @classmethod
    def around(
        cls,
        box: Sequence[float] | Tensor,
        image_size: tuple[int, int],
        size: tuple[int, int],
        margin: float = 0.6,
        raise_by: float = 0.1,
    ) -> CropTransform:
        """A crop around a face box (x0, y0, x1, y1, …) with the shape of `size`; sizes are (height, width).

        `margin` is added on each side, as a part of the longer side of the box; `raise_by` moves the crop up by a
        part of it, for hair needs more room than chin. Near an edge the crop moves inwards, or shrinks.
        """
        x0, y0, x1, y1 = (float(v) for v in list(box)[:4])
        if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
            raise ConfigError(f"face box {(x0, y0, x1, y1)} must be x0 < x1 and y0 < y1 in pixels")
        if not (math.isfinite(margin) and margin >= 0):
            raise ConfigError(f"margin={margin} must be 0 or more")
        (image_height, image_width), (height, width) = image_size, size
        if min(image_height, image_width, height, width) < 1:
            raise ConfigError(f"cannot crop {width}x{height} from a picture of {image_width}x{image_height}")
        longer = max(x1 - x0, y1 - y0)
        # The smallest region of the wanted shape around the box and its margins, no larger than the picture.
        scale = (1 + 2 * margin) * longer / min(height, width)
        scale = min(scale, image_height / height, image_width / width)
        crop_height = min(image_height, max(1, round(height * scale)))
        crop_width = min(image_width, max(1, round(width * scale)))
        left = round((x0 + x1) / 2 - crop_width / 2)
        top = round((y0 + y1) / 2 - raise_by * longer - crop_height / 2)
        left = min(max(0, left), image_width - crop_width)
        top = min(max(0, top), image_height - crop_height)
        return cls(
            x0=left,
            y0=top,
            x1=left + crop_width,
            y1=top + crop_height,
            image_height=image_height,
            image_width=image_width,
            height=height,
            width=width,
        )

    @classmethod
    def centre(cls, image_size: tuple[int, int], size: tuple[int, int]) -> CropTransform:
        """The largest crop of the shape of `size` in the middle of a picture."""
        height, width = image_size
        return cls.around((0, 0, max(1, width), max(1, height)), image_size, size, raise_by=0.0)

    @property
    def scale(self) -> tuple[float, float]:
        """Crop pixels per picture pixel: across, down."""
        return self.width / (self.x1 - self.x0), self.height / (self.y1 - self.y0)

    @property
    def is_whole(self) -> bool:
        """Whether the box is all of the picture."""
        return (self.x0, self.y0, self.x1, self.y1) == (0, 0, self.image_width, self.image_height)

    def to_crop(self, points: Tensor) -> Tensor:
        """Points (…, 2) as (x, y) of the picture -> of the crop."""
        return (points - points.new_tensor([self.x0, self.y0])) * points.new_tensor(self.scale)

    def apply(self, image: Tensor, mode: str = "bicubic") -> Tensor:
        """Cut (h, w, 3) uint8 -> (height, width, 3) uint8. Raises: ConfigError for a picture of another size."""
        check_image(image)
        if tuple(image.shape[:2]) != (self.image_height, self.image_width):
            raise ConfigError(
                f"the crop belongs to a picture of {self.image_width}x{self.image_height}, this one has"
                f" {image.shape[1]}x{image.shape[0]}"
            )
        return resize(image[self.y0 : self.y1, self.x0 : self.x1], (self.height, self.width), mode)

    def on_picture(self, image_size: tuple[int, int]) -> CropTransform:
        """The same box on the picture scaled to `image_size` (height, width), to the nearest whole pixel.

        Raises: ConfigError if that picture has another shape.
        """
        height, width = image_size
        if (height, width) == (self.image_height, self.image_width):
            return self
        down, across = height / self.image_height, width / self.image_width
        if min(image_size) < 1 or abs(down / across - 1) > SHAPE_TOLERANCE:
            raise ConfigError(
                f"the crop belongs to a picture of {self.image_width}x{self.image_height}, this one has"
                f" {width}x{height}, which is another shape"
            )
        x0, y0 = min(round(self.x0 * across), width - 1), min(round(self.y0 * down), height - 1)
        x1, y1 = max(x0 + 1, round(self.x1 * across)), max(y0 + 1, round(self.y1 * down))
        box = {"x0": x0, "y0": y0, "x1": x1, "y1": y1}
        return dataclasses.replace(self, **box, image_height=height, image_width=width)


def check_image(image: Tensor) -> None:
    """Raises: ConfigError if this is not (h, w, 3) uint8."""
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != torch.uint8 or image.numel() == 0:
        raise ConfigError(f"picture is {image.dtype} {list(image.shape)}; needs uint8 (h, w, 3)")


def resize(image: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """Bicubic or bilinear, antialiased: (h, w, 3) or (t, h, w, 3) uint8 -> same with `size` (height, width)."""
    if min(size) < 1:
        raise ConfigError(f"size {size[1]}x{size[0]} must be at least 1x1")
    if tuple(image.shape[-3:-1]) == tuple(size):
        return image.clone()
    batch = image if image.ndim == 4 else image[None]
    x = rearrange(batch, "t h w c -> t c h w").float()
    x = F.interpolate(x, size=size, mode=mode, antialias=True, align_corners=False)
    x = rearrange(x.round().clamp(0, 255).to(torch.uint8), "t c h w -> t h w c").contiguous()
    return x if image.ndim == 4 else x[0]


def fit_to(image: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """The largest middle part of the wanted shape, scaled to `size` (height, width): (h, w, 3) uint8 -> same."""
    check_image(image)
    if min(size) < 1:
        raise ConfigError(f"size {size[1]}x{size[0]} must be at least 1x1")
    return CropTransform.centre((image.shape[0], image.shape[1]), size).apply(image, mode)
