from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.media.portrait.crop import CropTransform
from letstalk_core.media.portrait.paste import PasteBack, feather_mask


def photo(height: int = 120, width: int = 160) -> Tensor:
    """Smooth, so that scaling there and back changes little."""
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    channels = [60 + y + 0 * x, 200 - x + 0 * y, 128 + 60 * torch.sin(x / 20 + y / 30)]
    return torch.stack(torch.broadcast_tensors(*channels), -1).clamp(0, 255).to(torch.uint8)


CROP = CropTransform.around((60, 40, 100, 90), (120, 160), (96, 96), margin=0.3)


@settings(deadline=None, max_examples=20)
@given(x=st.floats(0, 130), y=st.floats(0, 90), side=st.floats(8, 60), match=st.booleans())
def test_pasting_what_was_cut_changes_nothing(x: float, y: float, side: float, match: bool) -> None:
    image = photo()
    crop = CropTransform.around((x, y, x + side, y + side), (120, 160), (128, 128))
    found = PasteBack(image, crop, match_colour=match)(crop.apply(image)[None])
    assert (found[0].float() - image).abs().max() <= 5


def test_outside_of_the_box_every_pixel_stays() -> None:
    image = photo()
    found = PasteBack(image, CROP)(torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8))
    outside = torch.ones(120, 160, dtype=torch.bool)
    outside[CROP.y0 : CROP.y1, CROP.x0 : CROP.x1] = False
    assert found.shape == (2, 120, 160, 3)
    assert torch.equal(found[:, outside], image[outside].expand(2, -1, -1))


def test_the_middle_is_the_frame_itself() -> None:
    frames = torch.full((1, 96, 96, 3), 250, dtype=torch.uint8)
    found = PasteBack(photo(), CROP, match_colour=False)(frames)
    assert (found[0, (CROP.y0 + CROP.y1) // 2, (CROP.x0 + CROP.x1) // 2] == 250).all()


def test_a_colour_shift_of_the_model_is_undone() -> None:
    image = photo()
    shifted = (CROP.apply(image).float() * 0.9 + 14).to(torch.uint8)
    found = PasteBack(image, CROP)(shifted[None])
    plain = PasteBack(image, CROP, match_colour=False)(shifted[None])
    assert (found[0].float() - image).abs().max() <= 6 < (plain[0].float() - image).abs().max()


def test_the_colour_match_does_not_flicker() -> None:
    image, paste = photo(), PasteBack(photo(), CROP)
    frame = CROP.apply(image)[None]
    first = paste(frame)
    paste((frame.float() * 0.5).to(torch.uint8))
    assert torch.equal(paste(frame), first)


def test_the_mask_is_soft_inside_the_picture_and_hard_at_its_border() -> None:
    inside = feather_mask(CROP, 0.2)
    assert inside.max() == 1 and inside[0].max() < 0.1 and inside[:, -1].max() < 0.1
    assert (inside.diff(dim=0).abs().max() < 0.15) and (inside >= 0).all()
    whole = CropTransform.centre((100, 100), (64, 64))
    assert (feather_mask(whole, 0.2) == 1).all()
    assert set(feather_mask(CROP, 0.0).unique().tolist()) == {1.0}


def test_no_frames_give_no_frames() -> None:
    assert PasteBack(photo(), CROP)(torch.zeros(0, 96, 96, 3, dtype=torch.uint8)).shape == (0, 120, 160, 3)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ConfigError, match="belongs to a picture"):
        PasteBack(photo(100, 100), CROP)
    with pytest.raises(ConfigError, match="feather"):
        PasteBack(photo(), CROP, feather=0.6)
    for bad in (torch.zeros(1, 96, 96, 3), torch.zeros(96, 96, 3, dtype=torch.uint8), photo(96, 90)[None]):
        with pytest.raises(ConfigError, match="needs uint8"):
            PasteBack(photo(), CROP)(bad)
