"""ComfyUI's IMAGE as it comes and as it goes: one or four channels in, frames that are read when needed out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...letstalk_core.errors import ConfigError

_PROPERTIES = ("shape", "dtype", "device", "layout", "ndim", "is_cuda", "requires_grad")
_NEED_NO_PIXELS = frozenset(
    {
        *(getattr(Tensor, name).__get__ for name in _PROPERTIES),
        *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.nelement, Tensor.element_size, Tensor.__len__),
        Tensor.is_floating_point,
    }
)


def rgb_image(image: Any, name: str) -> Tensor:
    """IMAGE (n, h, w, 3): a single channel is grey, what follows the third is not used. Raises: ConfigError."""
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[-1] < 1 or image.numel() == 0:
        shape = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ConfigError(f"{name}: is {shape}; needs an IMAGE (n, height, width, 3) with at least one picture")
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(-1, -1, -1, 3)


class LazyFrames(Tensor):
    """An IMAGE (n, h, w, 3) float32 whose frames are read when something first looks at them, and then kept.

    ComfyUI passes every output on, wired or not, and keeps it in its cache: until a node uses the pixels, this
    costs nothing but its shape. `read` yields at least one frame (h, w, 3), in 0..1; where they end early, the
    last one is repeated, because the shape was already told.
    """

    _read: Callable[[], Iterable[Tensor]]
    _frames: Tensor | None

    @staticmethod
    def __new__(cls, shape: tuple[int, int, int, int], read: Callable[[], Iterable[Tensor]]) -> LazyFrames:
        cpu = torch.device("cpu")
        made: LazyFrames = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32, device=cpu)
        made._read, made._frames = read, None
        return made

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def frames(self) -> Tensor:
        """All frames as a plain tensor. Raises: MediaError."""
        if self._frames is None:
            with torch._C.DisableTorchFunctionSubclass():
                shape = tuple(self.shape)
            frames, count = torch.empty(shape), 0
            for frame in self._read():
                if count == len(frames):
                    break
                frames[count] = frame
                count += 1
            frames[count:] = frames[count - 1]
            self._frames = frames
        return self._frames

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.frames().numpy()
        return array if dtype is None else array.astype(dtype, copy=bool(copy))

    def __repr__(self, **_: Any) -> str:
        return f"LazyFrames({list(self.shape)}, {'not read yet' if self._frames is None else 'read'})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.frames().__reduce_ex__(protocol)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _NEED_NO_PIXELS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return func(*_plain(args), **_plain(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*_plain(args), **_plain(kwargs or {}))


def _plain(values: Any) -> Any:
    """The same arguments with frames in place of those that read them."""
    return pytree.tree_map_only(LazyFrames, LazyFrames.frames, values)
