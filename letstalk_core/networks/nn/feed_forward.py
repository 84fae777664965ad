"""Feed-forward layers: the gated convolutional one shared by the autoencoder and the denoiser."""

from __future__ import annotations

from torch import Tensor, nn

from .inplace import silu_of_own
from .layers import PLAIN, Layers
from .norms import RMSNorm2d


class GLUMBConv(nn.Module):
    """Gated inverted bottleneck ("Mix-FFN"): 1x1 to 2 * hidden, SiLU, 3x3 depth-wise, value * SiLU(gate), 1x1.

    The depth-wise convolution also tells linear attention, which has no positions of its own, who is next to whom.
    The caller adds the residual. `norm` adds the RMSNorm that follows the last convolution in DC-AE and not in the
    denoiser; the last convolution has no bias in either.

    Shapes: x (b, dim, h, w) -> (b, dim, h, w).
    Source: Xie et al. 2024 (SANA), sec. 2.2; docs/model.md, Denoiser and Autoencoder.
    """

    def __init__(self, dim: int, hidden: int, *, norm: bool = False, layers: Layers = PLAIN) -> None:
        super().__init__()
        self.conv_inverted = layers.conv2d(dim, 2 * hidden, 1)
        self.conv_depth = layers.conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.conv_point = layers.conv2d(hidden, dim, 1, bias=False)
        self.norm = RMSNorm2d(dim, **layers.place) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv_depth(silu_of_own(self.conv_inverted(x))).chunk(2, dim=1)
        y: Tensor = self.conv_point(value * silu_of_own(gate))
        return y if self.norm is None else self.norm(y, own=True)
