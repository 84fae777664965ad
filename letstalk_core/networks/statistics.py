"""Statistics of a recording, gathered block by block, so that pieces can be encoded as the whole would be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-7  # wav2vec2's own, so that digital silence stays silence


class WaveformMoments:
    """Running mean and variance of samples, and first and second moments of what a strided convolution sees.

    wav2vec2-base normalises the channels of its first convolution over all time (group norm). That convolution is
    linear, so the mean and variance of its output follow from those of the patches under its kernel: kernel +
    kernel**2 numbers replace a pass of the network over the recording. All sums are in float64.
    """

    def __init__(self, kernel: int = 10, stride: int = 5) -> None:
        self.kernel, self.stride = kernel, stride
        self.samples = 0
        self._padding = 0  # of them
        self._sum = 0.0
        self._squares = 0.0
        self._patches = 0
        self._patch_sum = torch.zeros(kernel, dtype=torch.float64)
        self._patch_products = torch.zeros(kernel, kernel, dtype=torch.float64)
        self._rest = torch.zeros(0, dtype=torch.float64)  # samples from the first patch not yet counted

    def update(self, block: Tensor) -> None:
        """Take the next samples (n,)."""
        block = block.double()
        self._sum += block.sum().item()
        self._squares += block.square().sum().item()
        self._see(block)

    def pad(self, count: int) -> None:
        """Take `count` last samples at the mean, which are 0 once normalised; mean and deviation stay."""
        self._see(torch.full((count,), self.mean, dtype=torch.float64))
        self._padding += count

    def _see(self, block: Tensor) -> None:
        self.samples += block.numel()
        self._rest = torch.cat([self._rest, block])
        if self._rest.numel() >= self.kernel:
            patches = self._rest.unfold(0, self.kernel, self.stride)
            self._patches += patches.shape[0]
            self._patch_sum += patches.sum(0)
            self._patch_products += patches.T @ patches
            self._rest = self._rest[patches.shape[0] * self.stride :].clone()

    @property
    def mean(self) -> float:
        return self._sum / max(1, self.samples - self._padding)

    @property
    def std(self) -> float:
        """Standard deviation with wav2vec2's floor on the variance, never 0."""
        variance = self._squares / max(1, self.samples - self._padding) - self.mean**2
        return math.sqrt(max(0.0, variance) + VARIANCE_FLOOR)

    def convolved(self, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and variance (channels,) of a convolution (channels, 1, kernel) over the *normalised* recording."""
        taps = weight.detach().double().cpu()[:, 0]
        mean = self._patch_sum / max(1, self._patches)
        covariance = self._patch_products / max(1, self._patches) - torch.outer(mean, mean)
        output_mean = taps @ ((mean - self.mean) / self.std)
        output_variance = torch.einsum("c i, i j, c j -> c", taps, covariance, taps) / self.std**2
        if bias is not None:
            output_mean = output_mean + bias.detach().double().cpu()
        return output_mean, output_variance.clamp(min=0)
