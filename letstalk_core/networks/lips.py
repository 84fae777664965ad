"""Lips by sound: the audio encoder's states around a frame to how far jaw and lips are moved in it.

A few convolutions over a quarter of a second before and after. They were taught on speech whose phoneme times are
known, so they know no person: what the curves look like on a face is for others to say.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..protocols import Device, DType, Operations
from .configs import LipsConfig
from .motion_channels import LIPS

KERNEL = 5
CONVOLUTIONS = 3  # over time
# A mean over what may have been said leaves a jaw open where lips meet. A network that does not tell where they do
# loses this much of every jaw; one that does shuts it, from the first of these probabilities to the second.
SHUT = 0.06
MEETING = (0.15, 0.35)


class Lips(nn.Module):
    """Windows of audio states (n, window, layers, encoder_dim) -> curves (n, len(LIPS)) float32 in 0..1."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, config: LipsConfig, *, operations: Operations = nn, device: Device = None, dtype: DType = None
    ) -> None:
        super().__init__()
        self.config = config
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        states, width = config.layers * config.encoder_dim, config.hidden_size
        self.register_buffer("mean", torch.zeros(states, **place))  # of the states, over the training speech
        self.register_buffer("std", torch.ones(states, **place))
        sizes = [width] * CONVOLUTIONS + [len(LIPS) + config.tells_shut]
        self.conv_in = operations.Conv1d(states, width, 1, **place)
        self.convs = nn.ModuleList(operations.Conv1d(a, b, KERNEL, **place) for a, b in pairwise(sizes))

    @property
    def window(self) -> int:
        """Frames around one that its curves depend on."""
        return CONVOLUTIONS * (KERNEL - 1) + 1

    @torch.no_grad()
    def init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                module.reset_parameters()

    def curves(self, states: Tensor, *, dropout: float = 0.0) -> Tensor:
        """Runs of frames (n, frames + window - 1, layers, encoder_dim) -> (n, frames, len(LIPS)), as they come.

        With `tells_shut` there is one channel more, the logit of lips that meet.
        `dropout` is the share of hidden values that is left out in training mode.
        """
        x = (states.flatten(2).to(self.mean.dtype) - self.mean) / self.std
        x = self.conv_in(x.mT)
        for conv in self.convs:
            x = conv(nn.functional.dropout(nn.functional.silu(x), dropout, self.training))
        return x.mT.float()

    def said(self, curves: Tensor) -> Tensor:
        """What `curves` come to: (n, frames, channels) -> (n, frames, len(LIPS)) in 0..1, shut where lips meet."""
        jaw, rest = curves[..., :1], curves[..., 1 : len(LIPS)]
        if self.config.tells_shut:
            low, high = MEETING
            meeting = ((curves[..., len(LIPS) :].sigmoid() - low) / (high - low)).clamp(0, 1)
            jaw = jaw * (1 - meeting)
        else:
            jaw = (jaw - SHUT) / (1 - SHUT)
        return torch.cat([jaw, rest], -1).clamp(0, 1)

    def forward(self, windows: Tensor) -> Tensor:
        return self.said(self.curves(windows))[:, 0]
