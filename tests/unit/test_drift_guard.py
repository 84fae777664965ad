"""How much clips are like the portrait, and what follows where they are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from einops import repeat
from torch import Tensor

from letstalk_core.generate.drift_plot import drift_plot
from letstalk_core.sampling.clip import Blend, Clip
from letstalk_core.sampling.drift import DriftLog, drift_score
from letstalk_core.sampling.long_video import generate_clips, plan_clips
from letstalk_core.sampling.memory_bank import MemoryBank, MemorySettings

SHAPE = (1, 8, 12, 12)
FRAMES = 6


def smooth(seed: int) -> Tensor:
    """Latents that look like those of a picture: patterns of several positions. (1, c, h, w)."""
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return 3 * torch.nn.functional.avg_pool2d(noise, 3, 1, 1) + torch.arange(8.0).view(1, 8, 1, 1)


PORTRAIT = smooth(0)


def clip_of(portrait: Tensor) -> Tensor:
    return repeat(portrait, "b c h w -> b f c h w", f=FRAMES).clone()


def talking() -> Tensor:
    """The portrait with a mouth of a ninth of the picture that moves a lot, and a little noise everywhere."""
    generator = torch.Generator().manual_seed(1)
    clip = clip_of(PORTRAIT) + 0.1 * torch.randn((1, FRAMES, *SHAPE[1:]), generator=generator)
    clip[..., 7:11, 4:8] += 3 * torch.randn((1, FRAMES, 8, 4, 4), generator=generator)
    return clip


def blurred(clip: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(clip.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(clip)


def test_the_portrait_itself_scores_one() -> None:
    score = drift_score(clip_of(PORTRAIT), PORTRAIT)
    assert (score.identity, score.colour, score.sharpness) == pytest.approx((1, 1, 1), abs=1e-4)


def test_a_moving_mouth_hardly_counts() -> None:
    score = drift_score(talking(), PORTRAIT)
    assert score.identity > 0.97 and score.colour > 0.95 and score.sharpness > 0.5


@pytest.mark.parametrize(
    ("change", "falls"),
    [
        (lambda clip: clip + 0.8, "colour"),
        (lambda clip: 0.6 * blurred(blurred(clip)) + 0.4 * clip.mean((-2, -1), keepdim=True), "sharpness"),
        (lambda clip: clip_of(smooth(5)), "identity"),
    ],
)
def test_each_kind_of_drift_lowers_its_own_score_most(change: Callable[[Tensor], Tensor], falls: str) -> None:
    before, after = drift_score(talking(), PORTRAIT), drift_score(change(talking()), PORTRAIT)
    lost = {name: getattr(before, name) - getattr(after, name) for name in ("identity", "colour", "sharpness")}
    assert max(lost, key=lambda name: lost[name]) == falls and lost[falls] > 0.1


def test_scores_stay_in_their_range_for_any_latents() -> None:
    for clip in (torch.zeros(1, 1, *SHAPE[1:]), 1e6 * torch.randn(1, 3, *SHAPE[1:]), clip_of(-PORTRAIT)):
        for portrait in (PORTRAIT, torch.zeros(SHAPE)):
            score = drift_score(clip, portrait)
            assert all(0 <= v <= 1 for v in (score.identity, score.colour, score.sharpness))
    assert drift_score(torch.ones(1, 1, 4, 1, 1), torch.ones(1, 4, 1, 1)).colour == pytest.approx(1)


# ---- re-anchoring


def test_re_anchoring_pulls_the_recent_frames_half_of_the_way() -> None:
    bank = MemoryBank(2, 1)
    bank.reset(PORTRAIT)
    bank.write(clip_of(2 * PORTRAIT + 1))
    anchors, before = bank.read()[:, :1], bank.read()[:, 1:]
    bank.re_anchor()
    after = bank.read()
    assert torch.equal(after[:, :1], anchors)
    distance = (after[:, 1:] - PORTRAIT.unsqueeze(1)).norm() / (before - PORTRAIT.unsqueeze(1)).norm()
    assert distance < 0.5
    torch.testing.assert_close(after[:, 1:].mean((1, 3, 4)), PORTRAIT.mean((2, 3)), atol=1e-4, rtol=1e-4)


def drifting(noise: Tensor, memory: Tensor, clip: Clip, blend: Blend | None = None) -> Tensor:
    """Every clip goes a step further away from the memory that it is given."""
    return (0.9 * memory[:, -1:] + 0.25).expand(-1, noise.shape[1], -1, -1, -1) + 0.01 * noise


def run(level: float, clips: int = 8) -> tuple[list[Tensor], DriftLog]:
    log = DriftLog()
    found = generate_clips(
        drifting,
        plan_clips(clips * FRAMES, FRAMES),
        portrait=PORTRAIT,
        bank=MemoryBank(2, 1, settings=MemorySettings(drift_level=level)),
        clip_frames=FRAMES,
        drift=log,
    )
    return [latents for _, latents in found], log


def test_no_clip_is_more_like_the_portrait_than_what_was_encoded_of_it() -> None:
    _, log = run(0.0)
    free, scores = log.to_dict(), log.rows()
    log.likeness = 0.25
    capped = log.to_dict()
    assert free["likeness"] is None and capped["likeness"] == 0.25
    assert capped["lowest"] == min(free["lowest"], 0.25) and capped["mean"] < free["mean"]
    assert [log.lowest(i) for i in range(8)] == [min(score.lowest, 0.25) for score in log.scores]
    assert log.rows() == scores and log.since(4).likeness == 0.25  # the scores of latents are what they were
    assert not torch.equal(drift_plot(log), drift_plot(DriftLog(log.clips, log.scores)))


def test_a_level_keeps_a_drifting_video_closer_to_its_portrait() -> None:
    (free, free_log), (held, held_log) = run(0.0), run(0.8)
    assert free_log.re_anchored == [] and held_log.re_anchored
    assert held_log.scores[-1].lowest > free_log.scores[-1].lowest
    first = held_log.re_anchored[0]
    assert all(torch.equal(a, b) for a, b in zip(free[: first + 1], held[: first + 1], strict=True))
    assert not torch.equal(free[first + 1], held[first + 1])


def test_the_log_and_its_picture_say_what_happened() -> None:
    _, log = run(0.8)
    told = log.to_dict(0.8)
    assert told["re_anchored"] == [clip + 1 for clip in log.re_anchored]
    assert len(told["identity"]) == len(told["colour"]) == len(told["sharpness"]) == 8
    assert told["lowest"] == pytest.approx(min(score.lowest for score in log.scores), abs=1e-4)
    assert DriftLog().to_dict() == {}
    image = drift_plot(log, 0.8)
    assert image.shape == (360, 960, 3) and image.dtype == torch.uint8
    assert not torch.equal(image, drift_plot(log, 0.0)) and drift_plot(DriftLog()).shape == image.shape
