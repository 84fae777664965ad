from typing import Any

import pytest
import torch
from torch import Tensor, nn

from letstalk_core.errors import ConfigError
from letstalk_core.networks.configs import DiTConfig
from letstalk_core.sampling.denoisers import EpsilonDenoiser, FlowDenoiser, VDenoiser, make_denoiser
from letstalk_core.sampling.schedules import ddpm_table, step_to_sigma

SHAPE = (2, 3, 4, 2, 2)


class Oracle(nn.Module):
    """A network that knows the clean sample and the noise, and predicts what its config says, perfectly."""

    def __init__(self, prediction: str, **changes: Any) -> None:
        super().__init__()
        self.config = DiTConfig(
            hidden_size=32, depth=1, num_heads=1, in_channels=4, prediction=prediction, **changes
        )
        generator = torch.Generator().manual_seed(0)
        self.clean = torch.randn(SHAPE, generator=generator)
        self.noise = torch.randn(SHAPE, generator=generator)
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls: list[dict[str, Any]] = []

    def forward(self, x: Tensor, timestep: Tensor, **conditions: Any) -> Tensor:
        self.calls.append({"x": x, "timestep": timestep, **conditions})
        if self.config.output == "sample":
            return self.clean
        if self.config.prediction == "flow":
            return self.noise - self.clean
        if self.config.prediction == "epsilon":
            variance = [torch.full_like(x, 0.5)] if self.config.learned_variance else []
            return torch.cat([self.noise, *variance], dim=2)
        sigma = step_to_sigma(timestep).float().view(-1, 1, 1, 1, 1)
        return (self.noise - sigma * self.clean) / (1 + sigma**2).sqrt()


TABLE = ddpm_table().float()


@pytest.mark.parametrize(
    ("prediction", "kind"), [("flow", FlowDenoiser), ("epsilon", EpsilonDenoiser), ("v", VDenoiser)]
)
def test_a_perfect_network_gives_the_clean_sample(prediction: str, kind: type) -> None:
    """The network sees its training time and unit variance."""
    model, flow = Oracle(prediction), prediction == "flow"
    sigma = torch.tensor([0.25, 1.0]) if flow else TABLE[[300, 700]]
    s = sigma.view(-1, 1, 1, 1, 1)
    x = (1 - s if flow else 1) * model.clean + s * model.noise
    denoiser = make_denoiser(model)
    assert type(denoiser) is kind
    torch.testing.assert_close(denoiser(x, sigma), model.clean, atol=2e-5, rtol=1e-4)
    (call,) = model.calls
    expected = torch.tensor([250.0, 1000.0] if flow else [300.0, 700.0])
    torch.testing.assert_close(call["timestep"], expected, atol=0.01, rtol=0)
    torch.testing.assert_close(call["x"], x if flow else x / (1 + s**2).sqrt())


def test_weights_stored_in_a_small_dtype_do_not_decide_what_the_network_sees() -> None:
    model = Oracle("flow").to(torch.float16)
    for dtype, expected in ((None, torch.float16), (torch.float32, torch.float32)):
        denoiser = make_denoiser(model, dtype=dtype)
        result = denoiser(torch.ones(SHAPE), torch.tensor([0.25, 1.0]), portrait=torch.ones(1))
        assert {model.calls[-1]["x"].dtype, model.calls[-1]["portrait"].dtype} == {expected}
        assert result.dtype == torch.float32


def test_learned_variance_is_split_off_and_mapped_to_a_fraction() -> None:
    model = Oracle("epsilon", learned_variance=True)
    denoiser = make_denoiser(model)
    sigma = TABLE[[300, 700]]
    denoised, fraction = denoiser.with_variance(torch.ones(SHAPE), sigma)
    torch.testing.assert_close(denoised, denoiser(torch.ones(SHAPE), sigma))
    torch.testing.assert_close(fraction, torch.full(SHAPE, 0.75))
    assert not hasattr(make_denoiser(Oracle("epsilon")), "with_variance")


def test_a_wrapper_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="flow"):
        EpsilonDenoiser(Oracle("flow"))


@pytest.mark.parametrize(
    ("prediction", "output"),
    [("flow", "prediction"), ("flow", "sample"), ("v", "prediction"), ("epsilon", "prediction")],
)
def test_portrait_residual_leaves_the_path_of_the_sample_as_it_is(prediction: str, output: str) -> None:
    """A network that finds the difference to the portrait exactly gives the clean clip back."""
    model = Oracle(prediction, output=output, portrait_residual=True, residual_scale=0.25)
    portrait = torch.randn(2, 4, 2, 2)
    clean = portrait.unsqueeze(1) + 0.25 * model.clean
    x = (0.6 * clean if prediction == "flow" else clean) + 0.4 * model.noise
    found = make_denoiser(model)(x, torch.full((2,), 0.4), portrait=portrait)
    torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-4)
