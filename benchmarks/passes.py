"""Something done in a chosen pass of a network, bad numbers put into its layers, and what a process holds on to.

Imports nothing of this repository, so that tests inside ComfyUI can load it as a file.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Passes:
    """Calls `act` just before a chosen pass of any of the networks, and counts the passes after that one."""

    def __init__(self, act: Callable[[], object], *networks: nn.Module) -> None:
        self.act, self.at, self.passes, self.after = act, 0, 0, 0
        for network in networks:
            network.register_forward_pre_hook(self._pass)

    def arm(self, at: int) -> None:
        """Count anew, and act in pass `at`; 0 is never."""
        self.at, self.passes, self.after = at, 0, 0

    def _pass(self, module: Any, inputs: Any) -> None:
        self.passes += 1
        if self.at and self.passes > self.at:
            self.after += 1
        if self.passes == self.at:
            self.act()


def footprint() -> dict[str, int]:
    """Threads and tensors of this process, and its open files where the system tells."""
    gc.collect()
    found = {"threads": threading.active_count()}
    found["tensors"] = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
    if sys.platform.startswith("linux"):
        found["open files"] = len(list(Path("/proc/self/fd").iterdir()))
    return found


def resident(process: int | str = "self") -> int:
    """Bytes of memory of a process; 0 for one that has ended, and where this system does not say."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


# stage -> the layer to spoil, its first bad call in a run of two steps, and what the message has to say; `last` is
# the number of the last frame
STAGES: dict[str, tuple[Callable[[Any], nn.Module], int, str]] = {
    "audio features": (lambda b: b.audio_encoder.encoder.layers[0], 0, r"audio features of frames 0 to {last}"),
    "audio projection": (lambda b: b.audio_projection.norm, 1, r"audio projection of clip 2"),
    "portrait encoding": (lambda b: b.autoencoder.encoder, 0, r"encoding of the portrait"),
    "first step": (lambda b: b.dit.final, 0, r"sampling of clip 1: .*clip 1, step 1 of 2"),
    "later step": (lambda b: b.dit.final, 3, r"sampling of clip 2: .*clip 2, step 2 of 2"),
    "decoding": (lambda b: b.autoencoder.decoder, 3, r"decoding of clip 3"),  # call 0 is of the portrait
}


def spoil(layer: nn.Module, first: int, how: str, only_half: bool, count: int = 10**9) -> RemovableHandle:
    """From call `first` on, `count` results of a layer hold a bad number; of half precision only, if so wished.

    `how`: "nan", "inf" or "-inf" in one place, or "overflow" everywhere.
    """
    calls = [0]

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        result = output[0] if isinstance(output, tuple) else output
        calls[0] += 1
        exact = next(module.parameters()).dtype == torch.float32
        if not first < calls[0] <= first + count or (only_half and exact):
            return None
        result = result.clone()
        if how == "overflow":
            result = result.sign() * 1e38 * 1e38
        else:
            result[(-1,) * result.ndim] = float(how)
        return (result, *output[1:]) if isinstance(output, tuple) else result

    return layer.register_forward_hook(hook)
