"""Guard against NaN and infinity: every stage of a run is checked where it ends, and repeated once in float32.

Half precision overflows where float32 does not, and some fast attention kernels make NaN of inputs that the plain
one takes. What stays bad is an error that names the stage, so that no such number reaches the next one or a video.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import NumericalError

N = TypeVar("N")
REMEDY = "check the model files; use float32 (--dtype float32) or lower guidance scales"

log = logging.getLogger(__name__)


def bad_numbers(result: Tensor) -> str | None:
    """What is wrong with a result, or None."""
    return None if bool(torch.isfinite(result).all()) else "gave NaN or infinity"


def float32_copy(network: N) -> N:
    """The network in float32: itself if it is, else a copy on the same device."""
    assert isinstance(network, nn.Module)
    floats = (t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point())
    return network if all(t.dtype == torch.float32 for t in floats) else copy.deepcopy(network).float()


class NumericalGuard:
    """Runs the stages of one run. What computes in float32 is made when it is first needed, and kept.

    `exact(network)` gives the same network in float32; hosts whose networks are no `nn.Module` bring their own.
    Whether a stage is repeated depends on its inputs alone, so a resumed run repeats the same ones.
    """

    def __init__(self, exact: Callable[[Any], Any] = float32_copy) -> None:
        self._make = exact
        self._exact: dict[int, tuple[Any, Any]] = {}
        self.repeated: list[str] = []  # stages that float32 cured, in order

    def __call__(self, stage: str, network: N, run: Callable[[N], Tensor], *, remedy: str = REMEDY) -> Tensor:
        """`run(network)`, whose result is finite. Raises: NumericalError naming `stage`, which names its clip."""
        result, cause = self.attempt(stage, network, run)
        if cause is not None:
            raise NumericalError(f"{stage}: {cause}, in float32 with plain attention, too; {remedy}")
        return result

    def attempt(
        self,
        stage: str,
        network: N,
        run: Callable[[N], Tensor],
        judge: Callable[[Tensor], str | None] = bad_numbers,
    ) -> tuple[Tensor, str | None]:
        """The result, and what `judge` finds wrong with it even after a second try, in float32."""
        result, cause = _attempt(run, network, judge)
        if cause is not None:
            log.warning("%s: %s; done again in float32 with plain attention", stage, cause)
            with sdpa_kernel(SDPBackend.MATH):  # the plain product of matrices
                result, again = _attempt(run, self.exact(network), judge)
            if again is None:
                cause = None
                self.repeated.append(stage)
        return result, cause

    def exact(self, network: N) -> N:
        """The network in float32, made at the first call."""
        if id(network) not in self._exact:
            self._exact[id(network)] = (network, self._make(network))  # held on to, so that the id stays its own
        return self._exact[id(network)][1]


def _attempt(
    run: Callable[[N], Tensor], network: N, judge: Callable[[Tensor], str | None]
) -> tuple[Tensor, str | None]:
    try:
        result = run(network)
    except NumericalError as error:
        return torch.empty(0), str(error).partition(";")[0]
    return result, judge(result)
