from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from letstalk_core.errors import ConfigError, MediaError, OutputError
from letstalk_core.media.portrait.image import load_portrait, load_with_alpha, read_texts, save_image


def picture(height: int = 40, width: int = 60) -> Any:
    """Left half red, right half blue, top row green."""
    array = np.zeros((height, width, 3), np.uint8)
    array[:, : width // 2, 0], array[:, width // 2 :, 2] = 255, 255
    array[0] = (0, 255, 0)
    return Image.fromarray(array)


def save(path: Path, image: Any, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp", "gif", "jpg", "tga"])
def test_common_formats_load_as_rgb(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {"quality": 98} if suffix == "jpg" else {}
    found = load_portrait(save(tmp_path / f"a.{suffix}", picture(), **options))
    assert found.shape == (40, 60, 3) and found.dtype == torch.uint8
    expected = torch.from_numpy(np.array(picture()))[20]
    assert (found[20].float() - expected)[[5, 50]].abs().max() <= (6 if suffix == "jpg" else 0)


@pytest.mark.parametrize(("background", "gray"), [(None, 128), ((255, 255, 255), 255)])
def test_transparency_is_laid_over_the_background(tmp_path: Path, background: Any, gray: int) -> None:
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.repeat([0, 255, 128], 20).astype(np.uint8), (40, 1))))
    path = save(tmp_path / "a.png", image)
    found = load_portrait(path) if background is None else load_portrait(path, background)
    assert found[20, 5].tolist() == [gray] * 3
    assert found[20, 25].tolist() == [255, 0, 0]
    assert (found[20, 55].float() - torch.tensor([gray / 2, gray / 2, 128 + gray / 2])).abs().max() < 3


def test_transparent_palettes_and_gray_with_alpha_load(tmp_path: Path) -> None:
    palette = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    index = palette.getpixel((5, 20))
    found = load_portrait(save(tmp_path / "a.png", palette, transparency=index))
    assert found[20, 5].tolist() == [128] * 3 and found[20, 55].tolist() == [0, 0, 255]
    gray = Image.merge("LA", [Image.new("L", (40, 40), 200), Image.new("L", (40, 40), 0)])
    assert load_portrait(save(tmp_path / "b.png", gray)).unique().tolist() == [128]


@pytest.mark.parametrize(("mode", "red"), [("L", [76] * 3), ("1", None), ("P", [255, 0, 0])])
def test_gray_black_and_white_and_palette_load(tmp_path: Path, mode: str, red: list[int] | None) -> None:
    found = load_portrait(save(tmp_path / "a.png", picture().convert(mode)))
    assert found.shape == (40, 60, 3) and (red is None or found[20, 5].tolist() == red)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (40, 1))
    found = load_portrait(save(tmp_path / f"a.{suffix}", Image.fromarray(ramp)))
    expected = torch.from_numpy((ramp / 257).round().astype(np.uint8))
    assert (found[..., 0].int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(("top", "expected"), [(1.0, 255), (200.0, 200)])
def test_floating_point_pictures_load(tmp_path: Path, top: float, expected: int) -> None:
    values = np.zeros((40, 40), np.float32)
    values[:, 20:] = top
    found = load_portrait(save(tmp_path / "a.tiff", Image.fromarray(values)))
    assert found[0, 0, 0] == 0 and found[0, 30, 0] == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = picture(40, 60)
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = load_portrait(save(tmp_path / "a.png", stored, exif=exif))
    assert torch.equal(found, torch.from_numpy(np.array(upright)))


def test_damaged_exif_does_not_stop_a_good_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert load_portrait(path).shape == (40, 60, 3)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    found = load_portrait(save(tmp_path / "a.jpg", picture().convert("CMYK"), quality=98))
    assert found.shape == (40, 60, 3)
    assert found[20, 5, 0] > 200 and found[20, 5, 2] < 60


def test_colour_profiles_are_honoured_and_broken_ones_ignored(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 40), (200, 100, 50))
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = load_portrait(save(tmp_path / "a.png", image, icc_profile=same))
    assert (found[0, 0].int() - torch.tensor([200, 100, 50])).abs().max() <= 1
    found = load_portrait(save(tmp_path / "b.png", image, icc_profile=b"no profile"))
    assert found[0, 0].tolist() == [200, 100, 50]


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), c) for c in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert load_portrait(path)[20, 20].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_large_pictures_are_reduced(tmp_path: Path, suffix: str) -> None:
    found = load_portrait(save(tmp_path / f"a.{suffix}", picture(900, 9000)))
    assert 4096 <= max(found.shape) < 6000
    assert found.shape[1] / found.shape[0] == pytest.approx(10, rel=0.02)


def _bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (12_500, 12_500), (20_000, 7_600)])
def test_decompression_bombs_are_refused_before_they_unpack(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "a.png").write_bytes(_bomb(width, height))
    with pytest.raises(MediaError, match=r"at most \d+x\d+ pixels$") as caught:
        load_portrait(tmp_path / "a.png")
    side = int(str(caught.value).split()[-2].split("x")[0])
    for allowed, message in ((side, "damaged or cut short"), (side + 1, "too many")):
        (tmp_path / "b.png").write_bytes(_bomb(allowed, allowed))
        with pytest.raises(MediaError, match=message):
            load_portrait(tmp_path / "b.png")


def test_formats_that_take_long_to_decode_may_be_smaller_only(tmp_path: Path) -> None:
    plain = tmp_path / "a.ppm"
    for side, message in ((1415, "too many.* at most 1414x1414 pixels, or save it as PNG"), (1400, "damaged")):
        plain.write_bytes(b"P3 %d %d 255\n1 2 3" % (side, side))
        with pytest.raises(MediaError, match=message):
            load_portrait(plain)
    save(tmp_path / "b.ppm", Image.new("RGB", (1415, 1415)))  # the same in binary
    assert load_portrait(tmp_path / "b.ppm").shape == (1415, 1415, 3)


def test_unusable_pictures_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    noise.save(whole, "PNG")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:3000])
    noise.save(whole := io.BytesIO(), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "zero.png").touch()
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n")
    save(tmp_path / "dot.png", picture(1, 2))
    save(tmp_path / "thin.png", picture(31, 500))
    save(tmp_path / "nan.tiff", Image.fromarray(np.full((40, 40), np.nan, np.float32)))
    (tmp_path / "column.png").write_bytes(_bomb(33, 60_000))
    (tmp_path / "row.png").write_bytes(_bomb(60_000, 33))
    cases = {
        "cut.png": "damaged",
        "cut.jpg": "damaged",
        "text.png": "not a picture",
        "zero.png": "empty",
        "a.eps": "not a picture",
        "dot.png": "too few; needs 32",
        "thin.png": "500x31 pixels are too few",
        "column.png": "a line and not a picture",
        "row.png": "a line and not a picture",
        "nan.tiff": "NaN",
        "missing.png": "no such file",
        ".": "not a file",
        "x" * 300: "cannot be opened",
    }
    for name, message in cases.items():
        with pytest.raises(MediaError, match=message) as caught:
            load_portrait(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_saved_picture_loads_again(tmp_path: Path) -> None:
    image = torch.from_numpy(np.array(picture()))
    save_image(tmp_path / "new" / "a.png", image)
    assert torch.equal(load_portrait(tmp_path / "new" / "a.png"), image)
    with pytest.raises(ConfigError, match="must end in"):
        save_image(tmp_path / "a.xyz", image)
    with pytest.raises(ConfigError, match="needs uint8"):
        save_image(tmp_path / "a.png", image.float())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        save_image(tmp_path / "file" / "a.png", image)


def test_the_alpha_of_a_picture_has_its_size_and_turns_with_it(tmp_path: Path) -> None:
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.pad(np.full((20, 60), 255, np.uint8), ((20, 0), (0, 0)))))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    alpha = load_with_alpha(save(tmp_path / "a.png", image, exif=exif))[1]
    assert alpha is not None and alpha.shape == (60, 40) == load_portrait(tmp_path / "a.png").shape[:2]
    assert (alpha[:, :20] == 255).all() and (alpha[:, 20:] == 0).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_a_picture_and_its_alpha_come_out_of_one_reading(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (150, 40, 4), np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(noise).convert("RGB" if mode == "P" else mode).convert(mode))
    image, alpha = load_with_alpha(path, background=None)
    assert torch.equal(image, load_portrait(path, background=None))
    assert (alpha is None) == (mode in ("RGB", "P"))
    if mode == "RGBA":
        assert alpha is not None and np.array_equal(torch.cat([image, alpha[..., None]], -1), noise)


def test_a_tall_picture_is_laid_over_the_background_as_pillow_does_it(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (333, 70, 4), np.uint8))
    whole = Image.alpha_composite(Image.new("RGBA", noise.size, (10, 200, 30, 255)), noise).convert("RGB")
    found = load_portrait(save(tmp_path / "a.png", noise), (10, 200, 30))
    assert np.array_equal(found, np.asarray(whole))


def test_texts_of_a_png_are_read_without_its_pixels(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_itxt("comment", "AI-generated video")
    save(tmp_path / "a.png", picture(20, 30), pnginfo=info)
    assert read_texts(tmp_path / "a.png") == ((20, 30), {"comment": "AI-generated video"})
