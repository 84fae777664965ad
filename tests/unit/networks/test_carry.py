"""The portrait's detail in decoded frames: identity, sizes, chunks, grey portraits, refusals."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from letstalk_core.errors import ConfigError
from letstalk_core.networks.carry import FURTHEST, Carry, CarryReference, Layers, Surroundings
from letstalk_core.networks.carry_blend import carry_from
from letstalk_core.networks.configs import CarryConfig


def picture(side: int = 128, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """Something between noise and a gradient, (1, 3, side, side) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        F.interpolate(torch.rand(1, channels, n, n, generator=generator), size=side, mode="bicubic")
        for n in (4, 16, side // 2)
    ]
    return ((parts[0] + parts[1] + 0.6 * parts[2]) / 2.6 * 2 - 1).expand(1, 3, side, side).clamp(-1, 1)


def round_trip(pictures: torch.Tensor) -> torch.Tensor:
    """Stands for an autoencoder: what is finer than 8 pixels is lost."""
    small = F.interpolate(pictures, scale_factor=1 / 8, mode="area")
    return F.interpolate(small, size=pictures.shape[-2:], mode="bicubic").clamp(-1, 1)


def fixed_carry(forms: float, detail: float, dtype: torch.dtype = torch.float32) -> Carry:
    """A network whose masks are the same everywhere and whose flow is Gauss and Newton's."""
    torch.manual_seed(0)
    carry = Carry(CarryConfig(hidden_size=8)).eval().requires_grad_(False)
    carry.init_weights()
    for out in (carry.correct_out, carry.masks_out):
        out.weight.zero_()
    carry.masks_out.bias.copy_(torch.logit(torch.tensor([forms, detail]).repeat_interleave(4)))
    return carry.to(dtype)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean() / 4))


def moved(pictures: torch.Tensor, dx: int) -> torch.Tensor:
    return torch.roll(pictures, dx, dims=-1)


def test_a_frame_that_is_the_portrait_comes_out_as_the_portrait() -> None:
    portrait = picture()
    decoded = round_trip(portrait)
    carry = fixed_carry(0.5, 0.99)
    found = carry(decoded, carry.prepare(portrait, decoded))
    assert psnr(found, portrait) > 40
    assert psnr(decoded, portrait) < 30  # the round trip loses what comes back


def test_detail_follows_a_motion() -> None:
    portrait = picture()
    frame = moved(portrait, 3)
    carry = fixed_carry(0.9, 0.99)
    found = carry(round_trip(frame), carry.prepare(portrait, round_trip(portrait)))
    inside = (..., slice(12, -12), slice(12, -12))
    assert psnr(found[inside], frame[inside]) > psnr(round_trip(frame)[inside], frame[inside]) + 4


def test_closed_masks_leave_the_frame_as_it_is() -> None:
    portrait, frames = picture(), torch.cat([picture(seed=1), picture(seed=2)])
    carry = fixed_carry(1e-6, 1e-6)
    found = carry(frames, carry.prepare(portrait, round_trip(portrait)))
    torch.testing.assert_close(found, frames, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [None, (256, 256), (192, 192), (90, 90)])
def test_results_have_the_size_asked_for_and_the_large_portraits_detail(
    size: tuple[int, int] | None,
) -> None:
    portrait = picture(256)
    small = F.interpolate(portrait, size=(128, 128), mode="area")
    decoded = round_trip(small)
    carry = fixed_carry(0.5, 0.99)
    found = carry(decoded, carry.prepare(portrait, decoded, small, size))
    wanted = F.interpolate(portrait, size=size or (128, 128), mode="bicubic", antialias=True)
    assert found.shape == wanted.shape
    assert psnr(found, wanted) > 32
    if size == (256, 256):  # more than enlarging can give
        assert psnr(found, portrait) > psnr(F.interpolate(small, size=size, mode="bicubic"), portrait) + 2


def test_pictures_that_are_not_square() -> None:
    portrait = picture(256)[..., :192]
    decoded = round_trip(F.interpolate(portrait, size=(128, 96), mode="area"))
    carry = fixed_carry(0.5, 0.9)
    assert carry(decoded, carry.prepare(portrait, decoded, size=(512, 384))).shape == (1, 3, 512, 384)


def test_pictures_at_the_size_of_the_result_are_made_one_at_a_time() -> None:
    portrait = picture(256)
    decoded = round_trip(F.interpolate(portrait, size=(64, 64), mode="area"))
    carry = fixed_carry(0.5, 0.9)
    reference = carry.prepare(portrait, decoded, size=(256, 256))
    with (
        patch.object(carry, "estimate", wraps=carry.estimate) as estimate,
        patch.object(carry, "mix", wraps=carry.mix) as mix,
    ):
        found = carry(decoded.expand(19, -1, -1, -1), reference)
    matched, mixed = ([len(call.args[0]) for call in spy.call_args_list] for spy in (estimate, mix))
    assert len(found) == sum(matched) == sum(mixed) == 19
    assert max(matched) <= 8 and max(mixed) == 1


def test_one_reference_for_each_frame() -> None:
    portraits = torch.cat([picture(seed=1), picture(seed=2)])
    carry = fixed_carry(0.5, 0.99)
    found = carry(round_trip(portraits), carry.prepare(portraits, round_trip(portraits)))
    assert psnr(found, portraits) > 40


def test_a_grey_portrait_keeps_its_frames_grey() -> None:
    portrait = picture(channels=1)
    frame = round_trip(portrait)
    frame[:, 0, 75:90, 50:80] += 0.3  # a mouth that the autoencoder made red
    carry = fixed_carry(0.05, 0.05)
    found = carry(frame, carry.prepare(portrait, round_trip(portrait)))
    assert float((found.amax(1) - found.amin(1)).max()) < 0.02
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    torch.testing.assert_close((found * luma).sum(1), (frame * luma).sum(1), atol=0.1, rtol=0)


def test_a_sepia_portrait_keeps_its_tone_and_a_coloured_one_its_colours() -> None:
    grey = picture(channels=1)
    sepia = torch.cat([0.9 * grey[:, :1] + 0.1, 0.8 * grey[:, :1], 0.6 * grey[:, :1] - 0.15], dim=1)
    frame = round_trip(sepia)
    frame[:, 2, 75:90, 50:80] += 0.4
    carry = fixed_carry(0.01, 0.01)
    found = carry(frame, carry.prepare(sepia, round_trip(sepia)))
    level = (found[:, 0] - 0.1) / 0.9
    torch.testing.assert_close(found[:, 2], 0.6 * level - 0.15, atol=0.03, rtol=0)
    coloured = picture()
    frame = round_trip(coloured)
    frame[:, 2, 75:90, 50:80] += 0.4
    kept = carry(frame, carry.prepare(coloured, round_trip(coloured)))
    torch.testing.assert_close(kept, frame.clamp(-1, 1), atol=0.03, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_change_little(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    carry = Carry(CarryConfig(hidden_size=8)).eval().requires_grad_(False)
    carry.init_weights()
    portrait = picture()
    frame = round_trip(moved(portrait, 4))
    reference = carry.prepare(portrait, round_trip(portrait))
    exact = carry(frame, reference)
    rounded = carry.to(dtype)(frame.to(dtype), reference)
    assert rounded.dtype == torch.float32
    assert psnr(rounded, exact) > 40


def test_shapes_that_do_not_go_together_are_refused() -> None:
    carry = fixed_carry(0.5, 0.5)
    portrait = picture()
    with pytest.raises(ConfigError, match="portrait 64x128 is of another shape than the frames of 128x128"):
        carry.prepare(portrait[..., :64], round_trip(portrait))
    with pytest.raises(ConfigError, match="size 150x128"):
        carry.prepare(portrait, round_trip(portrait), size=(128, 150))
    with pytest.raises(ConfigError, match="frames are 64x64, the decoded portrait is 128x128"):
        carry(picture(64), carry.prepare(portrait, round_trip(portrait)))


PLACES = torch.cartesian_prod(torch.linspace(-0.5, 0.5, 4), torch.linspace(-0.5, 0.5, 4))
WHOLE, NOTHING = torch.ones(1, 1, 128, 128), torch.zeros(1, 1, 128, 128)


def layers(
    told: torch.Tensor | None = None,
    *,
    cover: torch.Tensor = NOTHING,
    count: int = 1,
    person: torch.Tensor = NOTHING,
    still: torch.Tensor = NOTHING,
) -> Layers:
    """A white picture for each frame, of which `cover` is seen."""
    picture = torch.cat([torch.ones(1, 3, 128, 128), cover], dim=1).expand(count, -1, -1, -1)
    return Layers(picture, PLACES, PLACES.expand(count, -1, -1), told, Surroundings(person, still))


def prepared(detail: float) -> tuple[torch.Tensor, torch.Tensor, Carry, CarryReference]:
    """A portrait, its round trip, a carry that takes so much of its detail, and the reference of both."""
    portrait, carry = picture(), fixed_carry(0.5, detail)
    decoded = round_trip(portrait)
    return portrait, decoded, carry, carry.prepare(portrait, decoded)


def to_the_right(pixels: float) -> torch.Tensor:
    """The flow of frames in which all has gone so far."""
    return torch.tensor([-pixels * 2 / 128, 0.0]).view(1, 2, 1, 1).expand(1, 2, 32, 32).clone()


def test_a_layer_is_moved_with_its_frame_and_laid_over_it() -> None:
    portrait = picture()
    decoded = round_trip(portrait)
    frames = torch.cat([decoded, moved(decoded, 4)])
    carry = fixed_carry(0.5, 0.99)
    reference = carry.prepare(portrait, decoded)
    cover = torch.zeros(1, 1, 128, 128)
    cover[..., 48:80, 48:80] = 1
    plain, found = carry(frames, reference), carry(frames, reference, layers(cover=cover, count=2))
    assert float(found[0, :, 52:76, 52:76].min()) > 0.9
    assert float(found[1, :, 52:76, 56:80].min()) > 0.9
    torch.testing.assert_close(found[1, :, :40], plain[1, :, :40])


def test_everything_goes_where_it_is_told_and_no_further_than_it_would_tear() -> None:
    portrait, decoded, carry, reference = prepared(0.99)
    inside = (..., slice(16, -16), slice(16, -16))
    for frame, told in ((moved(decoded, 4), 1), (decoded, 3), (decoded, -2)):
        found = carry(frame, reference, layers(to_the_right(told)))
        assert psnr(found[inside], moved(portrait, told)[inside]) > psnr(found[inside], frame[inside]) + 4
    far = carry(decoded, reference, layers(to_the_right(40)))
    assert psnr(far[inside], moved(portrait, round(FURTHEST * 64))[inside]) > 24
    half = to_the_right(4)
    half[..., :16] = 0
    found = carry(decoded, reference, layers(half))
    torch.testing.assert_close(found[..., 16:56], carry(decoded, reference)[..., 16:56], atol=0.05, rtol=0)


def test_a_person_who_is_told_a_place_is_the_portraits_unless_something_else_comes_there() -> None:
    portrait, decoded, carry, reference = prepared(0.5)
    frame = decoded.clone()
    frame[..., 40:48, 40:88] += 0.3 * torch.randn(3, 8, 48, generator=torch.Generator().manual_seed(0))
    frame[..., 96:, :32] = 1 - 2 * (decoded[..., 96:, :32].mean() > 0)  # as unlike as can be
    person = NOTHING.clone()
    person[..., :96] = 1
    found, without = (carry(frame, reference, layers(to_the_right(0), person=who)) for who in (person, NOTHING))
    smear = (..., slice(40, 48), slice(44, 84))
    error, before = (float((one - portrait)[smear].abs().mean()) for one in (found, without))
    assert error < 0.6 * before
    torch.testing.assert_close(found[..., 104:, :16], without[..., 104:, :16], atol=0.02, rtol=0)
    torch.testing.assert_close(found[..., 112:], without[..., 112:], atol=0.02, rtol=0)


def test_a_background_stays_unless_something_else_comes_there() -> None:
    portrait, decoded, carry, reference = prepared(0.5)
    still = NOTHING.clone()
    still[..., :64] = 1
    frame = moved(decoded, 2)
    frame[..., 96:, :32] = 1 - 2 * (decoded[..., 96:, :32].mean() > 0)  # as unlike as can be
    found = carry(frame, reference, layers(still=still))
    torch.testing.assert_close(found[..., 8:72, :56], portrait[..., 8:72, :56], atol=0.02, rtol=0)
    without = carry(frame, reference)
    assert float((without - portrait)[..., 8:72, :56].abs().mean()) > 0.02
    torch.testing.assert_close(found[..., 104:, :16], without[..., 104:, :16], atol=0.02, rtol=0)
    torch.testing.assert_close(found[..., 80:], without[..., 80:], atol=0.02, rtol=0)


def references(carry: Carry, *pictures: torch.Tensor) -> list[CarryReference]:
    return [carry.prepare(p, round_trip(p)) for p in pictures]


def test_every_place_takes_its_detail_from_the_picture_that_fits() -> None:
    first, second = picture(seed=1), picture(seed=2)
    frame = torch.cat([first[..., :64], second[..., 64:]], dim=-1)
    carry = fixed_carry(0.5, 0.99)
    both = carry_from(carry, round_trip(frame), references(carry, first, second))
    halves = (slice(8, 48), slice(80, 120))
    for half in halves:
        place = (..., slice(8, 120), half)
        single = [carry_from(carry, round_trip(frame), references(carry, p)) for p in (first, second)]
        best = max(psnr(found[place], frame[place]) for found in single)
        assert psnr(both[place], frame[place]) > best - 1


def test_a_picture_of_something_else_does_no_harm() -> None:
    portrait, other = picture(seed=1), picture(seed=2)
    frame, carry = round_trip(moved(portrait, 2)), fixed_carry(0.5, 0.99)
    alone, with_other = (carry_from(carry, frame, references(carry, *p)) for p in ((portrait,), (portrait, other)))
    assert torch.equal(alone, carry(frame, *references(carry, portrait)))
    assert psnr(with_other, alone) > 40


@pytest.mark.parametrize("count", [1, 2])
def test_frames_do_not_depend_on_their_neighbours(count: int) -> None:
    pictures = [picture(seed=n) for n in range(count)]
    frames = round_trip(torch.cat([moved(pictures[n % count], n - 4) for n in range(10)]))
    carry = fixed_carry(0.5, 0.9)
    known = references(carry, *pictures)
    whole = carry_from(carry, frames, known)  # in chunks of 8
    for part in (slice(0, 3), slice(3, 10), slice(5, 6)):
        torch.testing.assert_close(carry_from(carry, frames[part], known), whole[part], atol=1e-5, rtol=0)
    larger = [carry.prepare(p, round_trip(p), size=(192, 192)) for p in pictures]
    assert carry_from(carry, frames, larger).shape == (10, 3, 192, 192)
