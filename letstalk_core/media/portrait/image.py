"""Pictures of any common format as plain RGB: upright, opaque, 8 bits, sRGB, of a reasonable size."""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, DependencyError, MediaError, first_line
from ..av_input import check_file

MIN_SIDE = 32  # pixels
MAX_PIXELS = 50_000_000  # what cameras of 50 megapixels take; a larger claim may be a decompression bomb
# Decoders of Pillow that need about a second a megapixel, being written in Python, and JPEG 2000, half of that.
SLOW = {"qoi": 2_000_000, "ppm_plain": 2_000_000, "bmp_rle": 8_000_000, "jpeg2k": 10_000_000}
ROWS = 64  # that are converted at once
WORKING_SIDE = 4096  # larger pictures are reduced while they are read: no model needs more
ORIENTATION = 0x0112  # EXIF
# Only formats that Pillow decodes by itself: EPS, for one, would start another program.
FORMATS = "PNG JPEG MPO WEBP BMP DIB GIF TIFF PPM JPEG2000 AVIF TGA ICO QOI".split()

log = logging.getLogger(__name__)
T = TypeVar("T")


def load_portrait(
    path: str | os.PathLike[str], background: tuple[int, int, int] | None = (128, 128, 128)
) -> Tensor:
    """Load a picture as (h, w, 3) uint8 RGB; its longer side is below 8192, twice WORKING_SIDE.

    EXIF rotation is applied, transparency is laid over `background` (None: the colours under it show), 16-bit,
    gray, palette and CMYK pictures are converted, colour profiles are honoured, of animations the first frame is
    taken.
    Raises: MediaError for a missing, damaged, foreign, too small or too large picture.
    """
    return _read(path, lambda name, image: _to_tensor(_upright(name, image), background))


def load_with_alpha(
    path: str | os.PathLike[str], background: tuple[int, int, int] | None = (128, 128, 128)
) -> tuple[Tensor, Tensor | None]:
    """A picture as `load_portrait` gives it, and how opaque each pixel was: (h, w) uint8, 255 is opaque; None for
    opaque pictures. Raises: MediaError."""

    def both(name: Path, image: Any) -> tuple[Tensor, Tensor | None]:
        image = _upright(name, image)
        return _to_tensor(image, background), _alpha(image)

    return _read(path, both)


def read_texts(path: str | os.PathLike[str]) -> tuple[tuple[int, int], dict[str, str]]:
    """Height and width of a PNG, and the texts in it. Raises: MediaError."""

    def texts(name: Path, image: Any) -> tuple[tuple[int, int], dict[str, str]]:
        found = getattr(image, "text", {})
        return (image.height, image.width), {str(k): str(v) for k, v in found.items()}

    return _read(path, texts, least=1)


def _read(path: str | os.PathLike[str], function: Callable[[Path, Any], T], least: int = MIN_SIDE) -> T:
    """Call `function` with the opened picture; whatever goes wrong becomes a MediaError."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DependencyError(f"reading pictures needs Pillow ({error}); pip install Pillow") from None
    path = Path(path)
    check_file(path)
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are checked below, and damaged EXIF is no reason to stop
            with Image.open(path, formats=formats) as image:
                # As many as its decoder gets through in about two seconds, a few at worst.
                most = min([MAX_PIXELS, *(SLOW[tile[0]] for tile in image.tile or () if tile[0] in SLOW)])
                _check_size(path, image.width, image.height, least, most)
                return function(path, image)
    except MediaError:
        raise
    except Image.DecompressionBombError:
        raise MediaError(f"{path}: is too large; {_scale_to(MAX_PIXELS)}") from None
    except UnidentifiedImageError:
        raise MediaError(f"{path}: is not a picture that can be read; save it as PNG or JPEG") from None
    except Exception as error:  # decoders fail in many ways on damaged files
        raise MediaError(f"{path}: is damaged or cut short ({first_line(error)}); get the file again") from None


def _scale_to(pixels: int) -> str:
    side = math.isqrt(pixels)
    other = "" if pixels == MAX_PIXELS else ", or save it as PNG or JPEG"
    return f"scale it to at most {side}x{side} pixels{other}"


def _check_size(path: Path, width: int, height: int, least: int, most: int) -> None:
    if width * height > most:
        raise MediaError(f"{path}: {width}x{height} pixels are too many; {_scale_to(most)}")
    if (
        max(width, height) > WORKING_SIDE
        and max(width, height) // max(1, min(width, height)) > WORKING_SIDE // MIN_SIDE
    ):
        raise MediaError(f"{path}: {width}x{height} pixels are a line and not a picture; cut a face out of it")
    if min(width, height) < least:
        raise MediaError(f"{path}: {width}x{height} pixels are too few; needs {least} or more on each side")


def _upright(path: Path, image: Any) -> Any:
    """The first frame in 8 bits, of a reasonable size, turned as EXIF says."""
    from PIL import ImageOps

    image.seek(0)
    image.draft("RGB", (WORKING_SIDE, WORKING_SIDE))  # JPEG only: decode at 1/2, 1/4 or 1/8
    image.load()
    image = _deep_to_8_bit(path, image)
    if image.mode == "P":  # palettes cannot be averaged
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    factor = max(image.size) // WORKING_SIDE
    if factor > 1 and min(image.size) // factor >= MIN_SIDE:
        image = image.reduce(factor)
    try:
        if image.getexif().get(ORIENTATION, 1) not in range(2, 9):
            return image  # where exif_transpose would copy
        return ImageOps.exif_transpose(image)
    except Exception as error:  # the picture itself is fine
        log.warning("%s: damaged EXIF is ignored (%s)", path, error)
        return image


def _is_transparent(image: Any) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _alpha(image: Any) -> Tensor | None:
    if not _is_transparent(image):
        return None
    alpha = np.empty((image.height, image.width), np.uint8)
    for first, rows in _strips(image):
        alpha[first : first + ROWS] = np.asarray(_as(rows, "RGBA").getchannel("A"))
    return torch.from_numpy(alpha)


def _to_tensor(image: Any, background: tuple[int, int, int] | None) -> Tensor:
    """(h, w, 3) uint8, a strip at a time: no copy of a large picture but the result."""
    from PIL import Image

    pixels = np.empty((image.height, image.width, 3), np.uint8)
    transparent = _is_transparent(image)
    to_srgb = _srgb_conversion(image.info.get("icc_profile"), "RGB" if transparent else image.mode)
    for first, rows in _strips(image):
        if transparent:
            rows = _as(rows, "RGBA")
            if background is not None:
                rows = Image.alpha_composite(Image.new("RGBA", rows.size, (*background, 255)), rows)
        pixels[first : first + ROWS] = np.asarray(to_srgb(rows))
    return torch.from_numpy(pixels)


def _strips(image: Any) -> Iterator[tuple[int, Any]]:
    """(first row, the ROWS rows from there on), from top to bottom."""
    for first in range(0, image.height, ROWS):
        yield first, image.crop((0, first, image.width, min(first + ROWS, image.height)))


def _as(image: Any, mode: str) -> Any:
    """Pillow's convert, which copies what has that mode."""
    return image if image.mode == mode else image.convert(mode)


def _deep_to_8_bit(path: Path, image: Any) -> Any:
    """Gray pictures of more than 8 bits, which Pillow would clip instead of scaling."""
    from PIL import Image

    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    top = values.max()
    if not np.isfinite(top) or not np.isfinite(values.min()):
        raise MediaError(f"{path}: has NaN or infinite pixels; save it as an 8-bit PNG")
    scale = 255.0 if image.mode == "F" and top <= 1 else 255 / 65535 if top > 255 or image.mode != "F" else 1.0
    small = np.empty(values.shape, np.uint8)
    for first in range(0, len(values), ROWS):  # in float64, but not all at once
        part = values[first : first + ROWS].astype(np.float64)
        small[first : first + ROWS] = (part * scale).round().clip(0, 255)
    result = Image.fromarray(small)
    result.info = {k: v for k, v in image.info.items() if k not in ("transparency", "icc_profile")}
    return result


def _srgb_conversion(profile: bytes | None, mode: str) -> Callable[[Any], Any]:
    """A function from pictures of `mode`, and of RGBA, to RGB in the sRGB space.

    A missing or broken colour profile means that they already are.
    """
    if not profile or mode not in ("RGB", "CMYK", "L"):
        return lambda image: _as(image, "RGB")
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return lambda image: _as(image, "RGB")
    return lambda image: ImageCms.applyTransform(_as(image, mode), transform)


def save_image(path: str | os.PathLike[str], image: Tensor) -> None:
    """Write (h, w, 3) uint8; the format follows from the name. Atomic. Raises: OutputError."""
    from PIL import Image

    from ...files import atomic_path

    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != torch.uint8:
        raise ConfigError(f"image is {image.dtype} {list(image.shape)}; needs uint8 (h, w, 3)")
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"{path}: the name of a picture must end in .png, .jpg or .webp")
    with atomic_path(path) as temporary:
        Image.fromarray(image.cpu().contiguous().numpy()).save(temporary, quality=95)
