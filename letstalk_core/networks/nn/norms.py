"""Normalisation over channels, and the scale-and-shift modulation of diffusion transformers."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ...protocols import Device, DType


class RMSNorm2d(nn.Module):
    """Divide every position by the root mean square of its channels, then weight *and* bias.

    The statistics are float32 whatever the input: squares of large float16 activations overflow. The parameters
    are plain tensors because neither `torch.nn` nor `comfy.ops` has a channel-first RMSNorm with a bias. They are
    moved when they are used: ComfyUI leaves parts of a model on the CPU when memory is short.

    Shapes: x (b, c, h, w) -> the same; output dtype = input dtype.
    Source: Zhang & Sennrich 2019, eq. 4, with the bias of the public DC-AE files.
    """

    def __init__(self, dim: int, eps: float = 1e-5, *, device: Device = None, dtype: DType = None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(dim, device=device, dtype=dtype))

    def forward(self, x: Tensor, own: bool = False) -> Tensor:
        """own: x belongs to the caller, who needs it no more: without gradients it may be overwritten."""
        y = x.float()
        size = torch.linalg.vector_norm(y, dim=1, keepdim=True)  # one pass, without a tensor of squares
        scale = torch.rsqrt(size.square() / x.shape[1] + self.eps)
        y = y.mul_(scale) if not torch.is_grad_enabled() and (own or y is not x) else y * scale
        weight, bias = (rearrange(p.to(x.device, torch.float32), "c -> c 1 1") for p in (self.weight, self.bias))
        if torch.is_grad_enabled():
            return torch.addcmul(bias, y, weight).to(x.dtype)
        return torch.addcmul(bias, y, weight, out=y).to(x.dtype)
