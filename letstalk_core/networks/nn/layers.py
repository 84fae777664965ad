"""Where layers with weights come from: `torch.nn`, or a host's classes of the same names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from ...protocols import Device, DType, Operations


@dataclass(frozen=True)
class Layers:
    """Makes layers of one host, on one device and in one dtype."""

    operations: Operations = nn
    device: Device = None
    dtype: DType = None

    @property
    def place(self) -> dict[str, Any]:
        """Keywords of every layer and parameter."""
        return {"device": self.device, "dtype": self.dtype}

    def linear(self, into: int, out: int, bias: bool = True) -> Any:
        return self.operations.Linear(into, out, bias=bias, **self.place)

    def conv2d(self, into: int, out: int, kernel: int, **options: Any) -> Any:
        return self.operations.Conv2d(into, out, kernel, **options, **self.place)

    def layer_norm(self, dim: int) -> Any:
        return self.operations.LayerNorm(dim, eps=1e-5, **self.place)


PLAIN = Layers()
