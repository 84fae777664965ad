from typing import Any

import pytest
import torch
from torch import Tensor, nn

from letstalk_core.errors import NumericalError
from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.transformer.conditions import Conditions
from letstalk_core.sampling.clip import Blend, Clip, SolverClipSampler, seeded_generator
from letstalk_core.sampling.denoisers import make_denoiser
from letstalk_core.sampling.schedules import make_sigmas

SHAPE = (1, 3, 4, 2, 2)


class Half(nn.Module):
    """A network whose output depends on everything it is given; NaN from the third call on when asked."""

    def __init__(self, prediction: str = "flow", breaks: bool = False) -> None:
        super().__init__()
        self.config = DiTConfig(hidden_size=32, depth=1, num_heads=1, in_channels=4, prediction=prediction)
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.calls, self.breaks = 0, breaks

    def forward(
        self, x: Tensor, timestep: Tensor, *, portrait: Tensor, audio: Tensor, memory: Tensor, **_: Any
    ) -> Tensor:
        self.calls += 1
        bias = portrait.mean((1, 2, 3)) + audio.mean((1, 2, 3)) + memory.mean((1, 2, 3, 4))
        result = self.weight * x + bias.view(-1, 1, 1, 1, 1)
        return result * float("nan") if self.breaks and self.calls >= 3 else result


def conditions() -> Conditions:
    return Conditions(
        portrait=torch.ones(1, 4, 2, 2), audio=torch.ones(1, 3, 2, 5), memory=torch.ones(1, 2, 4, 2, 2)
    )


def sampler(model: nn.Module, solver: str = "euler", **options: Any) -> SolverClipSampler:
    return SolverClipSampler(make_denoiser(model), solver, make_sigmas(model.config.prediction, 5), **options)


def test_a_clip_is_sampled_without_gradients_and_reports_its_steps() -> None:
    seen: list[tuple[int, int, int]] = []
    clip = sampler(Half(), on_step=lambda *step: seen.append(step))
    result = clip(torch.randn(SHAPE, generator=seeded_generator(0)), conditions(), Clip(2, 6, 3))
    assert result.shape == SHAPE and not result.requires_grad and torch.isfinite(result).all()
    assert seen == [(2, i, 5) for i in range(5)]


@pytest.mark.parametrize(("solver", "prediction"), [("euler", "flow"), ("dpmpp_2m", "v")])
def test_a_blend_gives_known_frames_and_changes_the_others(solver: str, prediction: str) -> None:
    noise = torch.randn(SHAPE, generator=seeded_generator(0))
    clip, known = Clip(0, 0, 3), torch.full(SHAPE, 2.0)
    blend = Blend(clip, known, torch.tensor([0.0, 0.5, 1.0]))
    plain = sampler(Half(prediction), solver)(noise, conditions(), clip)
    drawn = sampler(Half(prediction), solver)(noise, conditions(), clip, blend)
    torch.testing.assert_close(drawn[:, 2], known[:, 2])
    assert torch.equal(drawn[:, 0], plain[:, 0])  # this network does not look at neighbours
    assert ((drawn - plain)[:, 1].abs() > 1e-3).all()


def test_ancestral_noise_depends_on_seed_and_clip_only() -> None:
    noise = torch.randn(SHAPE, generator=seeded_generator(0))

    def run(seed: int, clip: int) -> Tensor:
        return sampler(Half("epsilon"), "ddpm", seed=seed)(noise, conditions(), Clip(clip, 3 * clip, 3))

    assert torch.equal(run(1, 0), run(1, 0))
    assert not torch.equal(run(1, 0), run(1, 1)) and not torch.equal(run(1, 0), run(2, 0))


def test_nan_is_reported_with_clip_and_step() -> None:
    with pytest.raises(NumericalError, match="clip 8, step 3 of 5"):
        sampler(Half(breaks=True))(torch.zeros(SHAPE), conditions(), Clip(7, 21, 3))


def test_generators_of_different_parts_are_unrelated() -> None:
    draws = {
        tuple(torch.randn(3, generator=seeded_generator(*p)).tolist())
        for p in [(0, 1), (1, 0), (0, 1, "a"), (10,)]
    }
    assert len(draws) == 4
