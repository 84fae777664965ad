from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError, NumericalError
from letstalk_core.sampling.clip import Blend
from letstalk_core.sampling.long_video import Clip, clip_noise, generate_clips, plan_clips
from letstalk_core.sampling.memory_bank import MemoryBank

PORTRAIT = torch.full((1, 2, 2, 2), -1.0)


@given(frames=st.integers(1, 500), clip=st.integers(1, 64))
def test_a_plan_delivers_every_frame_exactly_once(frames: int, clip: int) -> None:
    plan = plan_clips(frames, clip)
    assert [f for c in plan for f in range(c.first, c.first + c.count)] == list(range(frames))
    assert [c.index for c in plan] == list(range(len(plan)))
    assert all(c.count == clip for c in plan[:-1]) and 0 < plan[-1].count <= clip


@pytest.mark.parametrize(("frames", "clip"), [(0, 16), (-1, 16), (5, 0)])
def test_an_impossible_plan_is_refused(frames: int, clip: int) -> None:
    with pytest.raises(ConfigError, match="> 0"):
        plan_clips(frames, clip)


def test_noise_repeats_for_the_same_seed_and_clip_only() -> None:
    shape = (1, 4, 2, 2, 2)
    assert torch.equal(clip_noise(3, 5, shape), clip_noise(3, 5, shape))
    draws = [clip_noise(s, i, shape).sum().item() for s in range(4) for i in range(4)]
    assert len(set(draws)) == 16
    assert clip_noise(0, 0, (1, 16, 32, 8, 8)).std().item() == pytest.approx(1, abs=0.02)


class Counter:
    """A fake sampler: frame i of the video comes out with the value i; remembers what it was given."""

    def __init__(self) -> None:
        self.memories: list[Tensor] = []
        self.noises: list[Tensor] = []
        self.indices: list[int] = []

    def __call__(self, noise: Tensor, memory: Tensor, clip: Clip, blend: Blend | None = None) -> Tensor:
        self.memories.append(memory)
        self.noises.append(noise)
        self.indices.append(clip.index)
        frames = torch.arange(clip.first, clip.first + noise.shape[1]).float()
        return frames.view(1, -1, 1, 1, 1).expand_as(noise).clone()


def run(frames: int, sampler: Counter, **options: Any) -> list[tuple[Clip, Tensor]]:
    options = {"bank": MemoryBank(2, 1), "portrait": PORTRAIT, "clip_frames": 6, **options}
    return list(generate_clips(sampler, plan_clips(frames, 6), **options))


@given(frames=st.integers(1, 40))
def test_the_loop_delivers_exactly_the_planned_frames_in_order(frames: int) -> None:
    video = torch.cat([latents for _, latents in run(frames, Counter())], dim=1)
    assert video[0, :, 0, 0, 0].tolist() == list(range(frames))


def test_every_clip_has_its_full_length_its_own_noise_and_the_end_of_the_one_before_it() -> None:
    sampler, bank = Counter(), MemoryBank(2, 1)
    run(13, sampler, seed=9, bank=bank)
    assert sampler.indices == [0, 1, 2]
    for i, noise in enumerate(sampler.noises):
        assert torch.equal(noise, clip_noise(9, i, (1, 6, 2, 2, 2)))
    memories = [[-1, -1, -1], [-1, 4, 5], [-1, 10, 11]]
    assert [m[0, :, 0, 0, 0].tolist() for m in sampler.memories] == memories
    assert bank.read()[0, :, 0, 0, 0].tolist() == [-1, 11, 12]  # the last that was delivered


def test_a_bank_that_is_not_empty_is_continued() -> None:
    bank, sampler = MemoryBank(2), Counter()
    bank.reset(PORTRAIT)
    bank.write(torch.full((1, 2, 2, 2, 2), 99.0))
    run(6, sampler, bank=bank)
    assert (sampler.memories[0] == 99).all()


def test_nan_stops_the_loop_and_names_the_clip() -> None:
    def broken(noise: Tensor, memory: Tensor, clip: Clip, blend: Blend | None = None) -> Tensor:
        return noise * (float("nan") if clip.index == 1 else 1)

    clips = generate_clips(broken, plan_clips(20, 6), portrait=PORTRAIT, bank=MemoryBank(2), clip_frames=6)
    next(clips)
    with pytest.raises(NumericalError, match="clip 2"):
        next(clips)
