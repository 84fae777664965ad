"""Face boxes from what users can give by hand: masks, and boxes as other programs write them.

All boxes are (x0, y0, x1, y1) in pixels; a row of NaN is a frame without a face.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from .crop import SHAPE_TOLERANCE

NO_FACE = (math.nan,) * 4


def boxes_of_masks(masks: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes (m, 4) float64 around what is above 0.5 in masks (m, h, w) or (h, w).

    A mask of another size is scaled to the picture of `image_size` (height, width). Raises: ConfigError for a mask
    of another shape.
    """
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or masks.numel() == 0:
        raise ConfigError(f"mask has shape {list(masks.shape)}; needs (n, height, width)")
    boxes = []
    for mask in masks:
        marked = mask > 0.5
        rows, columns = marked.any(1).nonzero().flatten(), marked.any(0).nonzero().flatten()
        if len(rows) == 0:
            boxes.append(NO_FACE)
        else:
            boxes.append((float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1))
    found = torch.tensor(boxes, dtype=torch.float64)
    (height, width), (image_height, image_width) = masks.shape[1:], image_size
    same_shape = abs((width * image_height) / (height * image_width) - 1) <= SHAPE_TOLERANCE
    if not same_shape and bool(found.isfinite().any()):  # an empty mask says nothing, whatever its size
        raise ConfigError(
            f"mask has {width}x{height} pixels, the picture {image_width}x{image_height}; give this picture's mask"
        )
    return found * torch.tensor([image_width / width, image_height / height] * 2, dtype=torch.float64)


def parse_boxes(value: Any, frames: int, image_size: tuple[int, int]) -> Tensor:
    """Boxes (frames, 4) float64 from boxes (x, y, width, height), the form in which other programs give them.

    `value` is one box, for all frames; a list of one box for each frame; or a list of the boxes of each frame, of
    which the largest counts (none: a frame without a face). A box may be a sequence, a tensor, or a mapping with
    x, y, width and height. What sticks out of the picture of `image_size` (height, width) is cut off.
    Raises: ConfigError.
    """
    value = _plain(value)
    if _is_box(value):
        return _box(value, image_size).repeat(frames, 1)
    if not isinstance(value, list) or any(isinstance(item, (int, float)) for item in value):
        raise ConfigError(f"{_shown(value)} is not a box; needs x, y, width, height in pixels")
    if frames == 1 and value and all(map(_is_box, value)):
        value = [value]  # all faces of the one picture
    if len(value) == 1:
        value = value * frames
    if len(value) != frames:
        raise ConfigError(
            f"has boxes of {len(value)} frames, but there are {frames}; needs one box, or one a frame"
        )
    return torch.stack([_largest(item, image_size) for item in value])


def _plain(value: Any) -> Any:
    """Tensors, arrays and tuples as lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    return value


def _is_box(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list) and len(value) == 4 and all(isinstance(v, (int, float)) for v in value)


def _largest(value: Any, image_size: tuple[int, int]) -> Tensor:
    """The largest of the boxes of one frame."""
    if value is None or value == []:
        return torch.tensor(NO_FACE, dtype=torch.float64)
    boxes = [value] if _is_box(value) else value
    if not (isinstance(boxes, list) and all(map(_is_box, boxes))):
        raise ConfigError(f"{_shown(value)} is not a box; needs x, y, width, height in pixels")
    return max((_box(box, image_size) for box in boxes), key=lambda b: float((b[2] - b[0]) * (b[3] - b[1])))


def _box(value: Any, image_size: tuple[int, int]) -> Tensor:
    """One box (x, y, width, height) as (4,) x0, y0, x1, y1 inside the picture."""
    height, width = image_size
    try:
        keys = ("x", "y", "width", "height")
        x, y, w, h = (float(v) for v in ([value[k] for k in keys] if isinstance(value, Mapping) else value))
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{_shown(value)} is not a box; needs x, y, width, height in pixels") from None
    x0, y0, x1, y1 = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
    if not (all(map(math.isfinite, (x, y, w, h))) and w > 0 and h > 0 and x0 < x1 and y0 < y1):
        raise ConfigError(
            f"box x={x:g}, y={y:g}, width={w:g}, height={h:g} is empty or outside of the picture of"
            f" {width}x{height} pixels"
        )
    return torch.tensor([x0, y0, x1, y1], dtype=torch.float64)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
