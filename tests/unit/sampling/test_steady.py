"""Steady motion: what already moves evenly stays, seams close, the last frame is kept for the next clip."""

from __future__ import annotations

import pytest
import torch

from letstalk_core.generate.run import Run, generate
from letstalk_core.generate.sinks import LatentSink
from letstalk_core.sampling.clip import Blend, Clip
from letstalk_core.sampling.long_video import plan_clips
from letstalk_core.sampling.memory_bank import MemoryBank
from letstalk_core.sampling.steady import steady


def walk(first: int, count: int) -> torch.Tensor:
    """Frames (1, count, 2, 3, 3) of a steady motion."""
    start, way = torch.randn(2, 1, 1, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    return start + way * torch.arange(first, first + count).view(1, -1, 1, 1, 1)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_an_even_motion_stays_as_it_is(before: int) -> None:
    clip = walk(before, 16)
    out = steady(clip, walk(0, before) if before else None)
    torch.testing.assert_close(out, clip, atol=1e-4, rtol=1e-4)


def test_a_step_between_clips_fades_away() -> None:
    before, clip = walk(0, 2), walk(2, 16) + 1.0
    out = torch.cat([before, steady(clip, before)], 1)
    bend = out.diff(dim=1).diff(dim=1).abs().amax((0, 2, 3, 4))
    plain = torch.cat([before, clip], 1).diff(dim=1).diff(dim=1).abs().amax((0, 2, 3, 4))
    assert bend.max() < 0.12 * plain.max()
    assert torch.equal(out[:, -1], clip[:, -1])


def test_jitter_within_a_clip_is_smoothed() -> None:
    noise = torch.randn(1, 16, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    out = steady(walk(0, 16) + noise)
    assert (out - walk(0, 16)).diff(dim=1)[:, 3:-3].std() < 0.35 * noise.diff(dim=1).std()
    assert torch.equal(out[:, -1], (walk(0, 16) + noise)[:, -1])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_last_clips_work(count: int) -> None:
    out = steady(walk(5, count), walk(0, 2))
    assert out.shape[1] == count and torch.isfinite(out).all()
    if count > 1:
        assert torch.equal(out[:, -1], walk(5, count)[:, -1])


def run(wanted: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Clips that a run shows, and the memory that each was sampled with; clips are their noise."""
    remembered: list[torch.Tensor] = []

    def sample(noise: torch.Tensor, memory: torch.Tensor, clip: Clip, blend: Blend | None = None) -> torch.Tensor:
        remembered.append(memory)
        return noise

    plan, bank, portrait = plan_clips(20, 8), MemoryBank(2, 0), torch.zeros(1, 2, 3, 3)
    settings = {"clip_frames": 8, "fps": 25.0, "size": (3, 3), "seed": 4, "steady": wanted}
    sink = LatentSink()
    generate(Run(plan=plan, portrait=portrait, bank=bank, sample=sample, **settings), sink)
    return sink.clips, remembered


def test_a_run_shows_steady_clips_and_remembers_them_as_sampled() -> None:
    (plain, memories), (smooth, same) = run(False), run(True)
    assert all(torch.equal(a, b) for a, b in zip(memories, same, strict=True))
    before = None
    for sampled, shown in zip(plain, smooth, strict=True):
        assert torch.equal(shown, steady(sampled, before))
        before = sampled[:, -2:]
