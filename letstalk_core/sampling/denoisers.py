"""Networks as denoisers: what `LetsTalkDiT` predicts, turned into the clean sample that solvers ask for.

Shapes: x (b, f, c, h, w), sigma (b,) -> denoised, float32, of x's shape. Conditions travel as keyword arguments
(portrait, memory, audio) straight to the network. The network runs in its own dtype; everything around it in
float32.
Source: docs/model.md, Diffusion; Karras et al. 2022, sec. 2 (diffusion models in sigma form).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..networks.configs import DiTConfig
from ..protocols import DType
from .schedules import TRAIN_STEPS, sigma_to_step


class ModelDenoiser:
    """Base: scales the input, runs the network, hands its output to `combine`; all else as for diffusion models.

    `model` is called as model(x, timestep, **conditions) and returns (b, f, c or 2c, h, w). `dtype` is what its
    inputs are rounded to: that of its weights, unless those are only stored in a small dtype and cast when used.
    """

    prediction = ""

    def __init__(self, model: nn.Module, config: DiTConfig | None = None, *, dtype: DType = None) -> None:
        found: Any = config if config is not None else model.config
        if found.prediction != self.prediction:
            raise ConfigError(
                f"{type(self).__name__} needs a {self.prediction} model, this one predicts {found.prediction}"
            )
        self.model = model
        self.config: DiTConfig = found
        self.dtype = dtype
        if found.learned_variance:
            self.with_variance = self._with_variance

    def scale_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        """What the network sees of a noisy sample: one of unit deviation."""
        return x / (1 + sigma**2).sqrt()

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma_to_step(sigma)

    def combine(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        raise NotImplementedError

    def signal(self, sigma: Tensor) -> Tensor:
        """Factor of the clean sample in a sample of this noise level."""
        return torch.ones_like(sigma)

    def scale_noise(self, noise: Tensor, sigma: Tensor) -> Tensor:
        """Unit noise brought to the distribution a sample has at the first, largest sigma."""
        return noise * (1 + sigma**2).sqrt()

    def _run(self, x: Tensor, sigma: Tensor, **conditions: Any) -> tuple[Tensor, Tensor]:
        """Denoised sample and the raw variance channels (b, f, 0 or c, h, w)."""
        x, sigma = x.float(), sigma.float()
        wide = sigma.view(-1, *[1] * (x.ndim - 1))
        weights = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        dtype = self.dtype or next(weights, torch.float32)
        base: Tensor | float = 0.0
        scale = 1.0
        if self.config.portrait_residual:  # the network works on the difference to the portrait
            base = conditions["portrait"].float().unsqueeze(1)  # before it is rounded to the network's dtype
            x = x - self.signal(wide) * base
            scale = self.config.residual_scale
            size = self.signal(wide) * scale + (wide if self.prediction == "flow" else 0.0)
            x, wide = x / size, wide / size  # a unit-sized difference on the same kind of path, at its own level
            sigma = wide.reshape(sigma.shape)
        conditions = {
            k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in conditions.items()
        }
        output = self.model(self.scale_input(x, wide).to(dtype), self.timestep(sigma), **conditions).float()
        channels = x.shape[2]
        denoised = self.combine(x, output[:, :, :channels], wide)
        return denoised * scale + base, output[:, :, channels:]

    def __call__(self, x: Tensor, sigma: Tensor, **extra_args: Any) -> Tensor:
        return self._run(x, sigma, **extra_args)[0]

    def _with_variance(self, x: Tensor, sigma: Tensor, **extra_args: Any) -> tuple[Tensor, Tensor]:
        """Denoised sample and where in 0..1 its variance lies between posterior variance and beta."""
        denoised, variance = self._run(x, sigma, **extra_args)
        return denoised, (variance + 1) / 2


class FlowDenoiser(ModelDenoiser):
    """Rectified flow: x = (1 - sigma) x0 + sigma n, the network predicts n - x0 at time 1000 sigma.

    With `output = "sample"` in the config it estimates x0 instead, which a narrow network does better: noise need
    not pass through it. Source: Li & He 2025 (arXiv 2511.13720), x-prediction.
    """

    prediction = "flow"

    def scale_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma * TRAIN_STEPS

    def combine(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        return output if self.config.output == "sample" else x - sigma * output

    def signal(self, sigma: Tensor) -> Tensor:
        return 1 - sigma

    def scale_noise(self, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise * sigma


class EpsilonDenoiser(ModelDenoiser):
    """DDPM: the network sees x / sqrt(1 + sigma^2) and predicts the noise.

    Learned variance channels are split off.
    """

    prediction = "epsilon"

    def combine(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        return x - sigma * output


class VDenoiser(ModelDenoiser):
    """v prediction, v = cos(phi) n - sin(phi) x0 with tan(phi) = sigma. Source: Salimans & Ho 2022, app. D."""

    prediction = "v"

    def combine(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + sigma**2) - output * sigma / (1 + sigma**2).sqrt()


def make_denoiser(model: nn.Module, config: DiTConfig | None = None, *, dtype: DType = None) -> ModelDenoiser:
    """The denoiser for what this network predicts (its `config.prediction`). Raises: ConfigError."""
    prediction = (config if config is not None else model.config).prediction  # type: ignore[union-attr]
    for kind in (FlowDenoiser, EpsilonDenoiser, VDenoiser):
        if kind.prediction == prediction:
            return kind(model, config, dtype=dtype)
    raise ConfigError(f"prediction={prediction!r} has no denoiser")
