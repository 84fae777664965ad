"""Guard against NaN and infinity: every stage of a run is checked where it ends, and repeated once in float32.

Half precision overflows where float32 does not, and some fast attention kernels make NaN of inputs that the plain
one takes. What stays bad is an error that names the stage, so that no such number reaches the next one or a video.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import NumericalError

__all__ = ["NumericalGuard", "plain_attention"]

M = TypeVar("M", bound=nn.Module)
REMEDY = "check the model files; use float32 (--dtype float32) or lower guidance scales"

log = logging.getLogger(__name__)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Inside the block, torch's softmax attention is the plain product of matrices."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield


class NumericalGuard:
    """Runs the stages of one run. Float32 copies of networks are made when they are first needed, and kept.

    Whether a stage is repeated depends on its inputs alone, so a resumed run repeats the same ones.
    """

    def __init__(self) -> None:
        self._exact: dict[int, tuple[nn.Module, nn.Module]] = {}
        self.repeated: list[str] = []  # stages that float32 cured, in order

    def __call__(self, stage: str, network: M, run: Callable[[M], Tensor], *, remedy: str = REMEDY) -> Tensor:
        """`run(network)`, whose result is finite. Raises: NumericalError naming `stage`, which names its clip."""
        result, cause = _attempt(run, network)
        if result is not None:
            return result
        log.warning("%s: %s; done again in float32 with plain attention", stage, cause)
        with plain_attention():
            result, _ = _attempt(run, self.exact(network))
        if result is None:
            raise NumericalError(f"{stage}: {cause}, in float32 with plain attention, too; {remedy}")
        self.repeated.append(stage)
        return result

    def exact(self, network: M) -> M:
        """The network in float32: itself if it is, else a copy on the same device."""
        if all(t.dtype == torch.float32 for t in _floats(network)):
            return network
        if id(network) not in self._exact:
            self._exact[id(network)] = (network, copy.deepcopy(network).float())
        found: Any = self._exact[id(network)][1]
        return found


def _attempt(run: Callable[[M], Tensor], network: M) -> tuple[Tensor | None, str]:
    """A finite result, or what is wrong."""
    try:
        result = run(network)
    except NumericalError as error:
        return None, str(error).partition(";")[0]
    return (result, "") if bool(torch.isfinite(result).all()) else (None, "gave NaN or infinity")


def _floats(network: nn.Module) -> Iterator[Tensor]:
    yield from (t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point())
