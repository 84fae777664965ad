from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.sampling.guidance import GuidedDenoiser, as_scale, scales_at


class Counting:
    """D = x + 2 portrait + 3 audio + 0.5 memory, counting calls and batch rows."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, *, portrait: Tensor, audio: Tensor, memory: Tensor) -> Tensor:
        self.batches.append(x.shape[0])
        assert len({x.shape[0], sigma.shape[0], portrait.shape[0], audio.shape[0], memory.shape[0]}) == 1
        return x + (
            2 * portrait.mean((1, 2, 3)) + 3 * audio.mean((1, 2, 3)) + 0.5 * memory.mean((1, 2, 3, 4))
        ).view(-1, 1, 1, 1, 1)


def inputs() -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(2, 3, 4, 2, 2, generator=g),
        "sigma": torch.tensor([0.5, 0.7]),
        "portrait": torch.randn(2, 4, 2, 2, generator=g),
        "audio": torch.randn(2, 3, 5, 6, generator=g),
        "memory": torch.randn(2, 1, 4, 2, 2, generator=g),
    }


@given(audio=st.floats(0, 8), portrait=st.floats(0, 8))
def test_guidance_is_the_documented_formula(audio: float, portrait: float) -> None:
    values, model = inputs(), Counting()

    def at(keep_portrait: bool, keep_audio: bool) -> Tensor:
        changed = dict(values)
        if not keep_portrait:
            changed["portrait"] = torch.zeros_like(values["portrait"])
        if not keep_audio:
            changed["audio"] = torch.zeros_like(values["audio"])
        return model(**changed)

    none, only_portrait, both = at(False, False), at(True, False), at(True, True)
    expected = none + portrait * (only_portrait - none) + audio * (both - only_portrait)
    torch.testing.assert_close(GuidedDenoiser(model, audio, portrait)(**values), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("audio", "portrait", "passes"),
    [(1, 1, 1), (2, 1, 2), (2, 2, 2), (1, 2, 3), (3, 2, 3), (0, 1, 1), (0, 0, 1), (0, 2, 2)],
)
def test_only_needed_passes_run_and_in_one_batch(audio: float, portrait: float, passes: int) -> None:
    model = Counting()
    GuidedDenoiser(model, audio, portrait)(**inputs())
    assert model.batches == [2 * passes]


def test_variance_comes_from_the_pass_with_all_conditions() -> None:
    class Learned(Counting):
        def with_variance(self, x: Tensor, sigma: Tensor, **conditions: Any) -> tuple[Tensor, Tensor]:
            return self(x, sigma, **conditions), conditions["audio"].mean((1, 2, 3))

    values, model = inputs(), Learned()
    denoised, variance = GuidedDenoiser(model, 2.0, 1.5).with_variance(**values)
    torch.testing.assert_close(denoised, GuidedDenoiser(model, 2.0, 1.5)(**values))
    torch.testing.assert_close(variance, values["audio"].mean((1, 2, 3)))
    assert not hasattr(GuidedDenoiser(Counting()), "with_variance")


SIGMAS = torch.tensor([1.0, 0.9, 0.6, 0.1, 0.0])  # four steps of unequal height


def each_step(scale: Any) -> list[float]:
    return [scales_at((scale, 1.0), sigma.expand(2), SIGMAS)[0] for sigma in SIGMAS[:-1]]


def test_values_of_a_scale_are_spread_over_the_steps_whatever_their_noise() -> None:
    assert each_step(as_scale("4:1")) == pytest.approx([4, 3, 2, 1])
    assert each_step(as_scale("1:2:1")) == pytest.approx([1, 5 / 3, 5 / 3, 1])
    assert each_step(as_scale([1.5, 1.0, 1.0, 2.25])) == [1.5, 1.0, 1.0, 2.25]  # exactly, so that 1 costs no pass
    assert each_step(as_scale("2.5")) == [2.5] * 4
    assert scales_at(((3.0, 1.0), 1.0), SIGMAS[:1], torch.tensor([1.0, 0.0])) == (3.0, 1.0)  # a single step


@given(st.floats(0, 1))
def test_between_two_levels_a_scale_lies_between_those_of_the_two_steps(share: float) -> None:
    sigma = torch.lerp(SIGMAS[1], SIGMAS[2], share)
    assert scales_at(((4.0, 3.0, 2.0, 1.0), 1.0), sigma[None], SIGMAS)[0] == pytest.approx(3 - share, abs=1e-6)
    beyond = torch.tensor([7.0]), torch.tensor([0.05])  # of solvers that add noise, and below the last step
    assert [scales_at(((4.0, 1.0), 1.0), sigma, SIGMAS)[0] for sigma in beyond] == [4.0, 1.0]


def test_a_step_runs_the_passes_of_its_own_scales() -> None:
    model, values = Counting(), inputs()
    guided = GuidedDenoiser(model, (1.0, 2.0, 2.0, 1.0), (1.0, 1.0, 1.5, 1.0), SIGMAS)
    steps = []
    for sigma in SIGMAS[:-1]:
        steps.append(guided(**{**values, "sigma": sigma.expand(2)}))
    assert model.batches == [2, 4, 6, 2]
    constant = GuidedDenoiser(model, 2.0, 1.5)(**{**values, "sigma": SIGMAS[2].expand(2)})
    assert torch.equal(steps[2], constant)


@pytest.mark.parametrize("text", ["", "high", "1.6:", "1.6:x", [], None])
def test_what_is_no_scale_is_refused_with_an_example(text: Any) -> None:
    for scale in (-1.0, float("nan"), float("inf"), (1.0, -1.0)):
        with pytest.raises(ConfigError, match="guidance"):
            GuidedDenoiser(Counting(), audio_scale=scale)
    with pytest.raises(ConfigError, match="guidance scale .* as in 1.6:1.0"):
        as_scale(text)
