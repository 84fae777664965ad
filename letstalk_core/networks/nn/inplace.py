"""Elementwise operations that reuse memory where no gradient is recorded.

New memory is the larger part of their cost on a CPU: the system maps and clears each large tensor again. The
caller must own the tensor that is overwritten, which a layer's result is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def silu_of_own(x: Tensor) -> Tensor:
    """SiLU; without gradients it overwrites x."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add_residual(x: Tensor, y: Tensor) -> Tensor:
    """x + y; without gradients the sum takes the place of y."""
    if torch.is_grad_enabled() or x.dtype != y.dtype or x.shape != y.shape:
        return x + y
    return y.add_(x)
