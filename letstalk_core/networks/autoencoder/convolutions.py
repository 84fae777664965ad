"""Convolutions of DC-AE that are cheaper to compute in another form, with the weights of the plain one.

Both are subclasses of the host's `Conv2d` and replace the step in which it has its weights at hand, so casting,
offloading and patching of weights work as for any layer, and so do their keys.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PhaseConv:
    """A 3x3 convolution whose output is twice as high and wide, as the four phases of that output.

    Phase (i, j) is the pixels of rows 2y + i and columns 2x + j. Without gradients the result is a tuple of the
    four in the order (0, 0), (0, 1), (1, 0), (1, 1), each (b, out, h, w); with gradients it is that of the plain
    convolution, and the caller enlarges.

    interpolate: the convolution is one of a picture enlarged by nearest interpolation. Two or three of three taps
    then fall on the same pixel, so 2x2 kernels of their sums at the small size give the same: 16 products for 36.
    Otherwise it is one before a pixel shuffle.
    """

    interpolate: bool

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            return super()._conv_forward(x, weight, bias)  # type: ignore[misc]
        if not self.interpolate:
            channels = None if bias is None else _phases_first(bias)
            return F.conv2d(x, _phases_first(weight), channels, padding=1).chunk(4, dim=1)
        height, width = x.shape[-2:]
        kernels = _phase_kernels(weight)
        # Padded on both sides, each kernel gives one row and one column more than its phase has.
        return tuple(
            F.conv2d(x, kernels[2 * i + j], bias, padding=1)[..., i : i + height, j : j + width]
            for i in (0, 1)
            for j in (0, 1)
        )


def _phase_kernels(weight: Tensor) -> Tensor:
    """Kernels (out, in, 3, 3) as those of the phases (4, out, in, 2, 2), sums taken in float32."""
    out, channels = weight.shape[:2]
    wide = weight if weight.dtype == torch.float64 else weight.float()
    # Which of three taps each of two taps sums, for even and for odd outputs.
    axis = wide.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
    sums = torch.einsum("iay,jbx->ijabyx", axis, axis).reshape(16, 9)
    kernels = sums @ wide.reshape(out * channels, 9).T
    return kernels.to(weight.dtype).view(4, 2, 2, out, channels).permute(0, 3, 4, 1, 2)


def _phases_first(x: Tensor) -> Tensor:
    """(c * 4, ...) -> (4 * c, ...): the channels of a pixel shuffle are (c, i, j)."""
    return x.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)


class PointwiseGroups:
    """A grouped 1x1 convolution as one batched matrix product: (b, g * c, h, w) -> (b, g, h * w, out).

    Most libraries compute many narrow groups one by one.
    """

    groups: int

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(-1, (self.groups, -1)).transpose(1, 2)
        y = tokens @ weight.view(self.groups, -1, tokens.shape[-1]).mT
        return y if bias is None else y + bias.view(self.groups, 1, -1)


@lru_cache(maxsize=32)
def phase_conv(conv: Any, interpolate: bool) -> Any:
    """The host's Conv2d class with the computation of PhaseConv; something else than a class is left as it is."""
    if not (isinstance(conv, type) and issubclass(conv, nn.Conv2d)):
        return conv
    return type("PhaseConv2d", (PhaseConv, conv), {"interpolate": interpolate})


@lru_cache(maxsize=32)
def grouped_conv(conv: Any) -> Any:
    """The host's Conv2d class with the computation of PointwiseGroups."""
    if not (isinstance(conv, type) and issubclass(conv, nn.Conv2d)):
        return conv
    return type("PointwiseGroups2d", (PointwiseGroups, conv), {})
