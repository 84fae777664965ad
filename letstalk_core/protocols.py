"""The seams of the package: small interfaces through which hosts and tests put in their own parts."""

from __future__ import annotations

from typing import Any, Protocol, Union, runtime_checkable

import torch
from torch import Tensor

Device = Union[torch.device, str, None]
DType = Union[torch.dtype, None]


class Operations(Protocol):
    """Where layers with weights come from: `torch.nn`, or ComfyUI's `comfy.ops` classes of the same names.

    Each attribute is called like the `torch.nn` class of its name, with `device` and `dtype` keywords. ComfyUI's
    classes skip weight initialisation, so a module initialises its weights in `init_weights`, never here.
    """

    @property
    def Linear(self) -> Any: ...
    @property
    def Conv1d(self) -> Any: ...
    @property
    def Conv2d(self) -> Any: ...
    @property
    def LayerNorm(self) -> Any: ...


class Denoiser(Protocol):
    """A model as solvers see it: noisy sample and noise level in, estimate of the clean sample out (k-diffusion).

    Shapes: x (b, f, c, h, w), sigma (b,) -> (b, f, c, h, w).
    """

    def __call__(self, x: Tensor, sigma: Tensor, **extra_args: Any) -> Tensor: ...


class FaceDetector(Protocol):
    """Finds faces in one image.

    Shapes: image (h, w, 3) uint8 RGB -> boxes (n, 5) float32: x0, y0, x1, y1 in pixels, and confidence in 0..1.
    """

    def __call__(self, image: Tensor) -> Tensor: ...


@runtime_checkable
class FrameSink(Protocol):
    """Takes finished frames one batch at a time; nothing is visible under the final name before `close`."""

    def write(self, frames: Tensor) -> None:
        """Append frames (t, h, w, 3) uint8 RGB."""

    def close(self, partial: bool = False) -> None:
        """Finish the result and move it to its final name. `partial`: fewer frames came than were planned."""

    def abort(self) -> None:
        """Drop what was written."""


@runtime_checkable
class ResumableSink(FrameSink, Protocol):
    """A FrameSink whose frames outlive the process."""

    @property
    def held(self) -> int:
        """Frames that are safe already, those of earlier runs included; asked for when the run may begin."""

    def resume_at(self, frame: int) -> None:
        """The next frame written is this one, which is at most `held`."""
