"""What a run tells the user while it works: ComfyUI's progress bar with previews, and events for the browser."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import comfy.model_management
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ...letstalk_core.generate.run import Watcher
from ...letstalk_core.sampling.clip import Clip
from ...letstalk_core.sampling.drift import DriftLog

CLIP_EVENT = "letstalk.clip"

Network = TypeVar("Network", bound=torch.nn.Module)

log = logging.getLogger(__name__)


def check_interrupt() -> None:
    """Raises ComfyUI's InterruptProcessingException if the user cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def watched(items: Any) -> Iterator[Any]:
    """The items of a list or a batch, with ComfyUI's progress bar; stops when the user cancels."""
    bar = comfy.utils.ProgressBar(len(items))
    for item in items:
        check_interrupt()
        yield item
        bar.update(1)


def interruptible(network: Network) -> Network:
    """The network, which now stops before any of its layers when the user cancels: a pass can take minutes.

    A compiled one stops between passes only.
    """
    for module in network.modules():
        if next(module.children(), None) is None and next(module.parameters(), None) is not None:
            module.register_forward_pre_hook(_stop_if_interrupted)
    return network


def _stop_if_interrupted(*_: Any) -> None:
    if not torch.compiler.is_compiling():
        check_interrupt()


def browser() -> Any | None:
    """The running server, or None where there is none, as in scripts and tests."""
    try:
        from server import PromptServer
    except ImportError:
        return None
    return getattr(PromptServer, "instance", None)


def warn(text: str) -> None:
    """Log a warning, and show it on the node that is running, where the browser can."""
    log.warning("LetsTalk: %s", text)
    say_on_node(f"\u26a0 {text}")


def say_on_node(text: str) -> None:
    """Show a line on the node that is running, where the browser can."""
    server, context = browser(), get_executing_context()
    show = getattr(server, "send_progress_text", None)
    if show is not None and context is not None:
        show(text, context.node_id)


class RunReport(Watcher):
    """Progress of one run over clips x steps. `step` and `sampled` also stop a cancelled run.

    `clip_done` never fails and may be called from a writer's thread: all it reads was fixed before. `rgb`
    (factors, bias) serves previews of models whose latent format has none. `decodes`: the browser is told of a
    clip when its frames are done; without, when it is sampled.
    """

    def __init__(
        self,
        node_id: str | None,
        plan: list[Clip],
        steps: int,
        fps: float,
        patcher: ModelPatcher,
        rgb: Any = None,
        decodes: bool = True,
    ) -> None:
        context = get_executing_context()
        self.node = str(node_id) if node_id is not None else getattr(context, "node_id", None)
        self.prompt = getattr(context, "prompt_id", None)
        self.server = browser()
        self.client = getattr(self.server, "client_id", None)
        self.plan, self.steps, self.fps, self.decodes = plan, steps, fps, decodes
        self.frames = sum(clip.count for clip in plan)
        self.frames_done = 0
        self._started = time.monotonic()
        self._bar = comfy.utils.ProgressBar(len(plan) * steps)
        self._previewer = _previewer(patcher, rgb)
        self._send(-1, None)

    def step(self, clip: Clip, step: int, denoised: Tensor) -> None:
        """A step (0-based) of a clip is done. Shapes: denoised (b, c, f, h, w)."""
        check_interrupt()
        image = None
        if self._previewer is not None:
            middle = denoised.shape[2] // 2
            image = self._previewer.decode_latent_to_preview_image("JPEG", denoised[:, :, middle : middle + 1])
        done = self._position(clip) * self.steps + min(step + 1, self.steps)
        self._bar.update_absolute(done, len(self.plan) * self.steps, image)

    def sampled(self, clip: Clip, drift: DriftLog) -> None:
        """The bar jumps over steps that an adaptive sampler did not need."""
        check_interrupt()
        self._bar.update_absolute((self._position(clip) + 1) * self.steps)
        if not self.decodes:
            self.clip_done(self._position(clip))

    def clip_done(self, clip: int, media: dict[str, str] | None = None) -> None:
        """Tell the browser that a clip is in the result, and in `media` if that file is complete with it.

        A server that cannot be told is not told again.
        """
        self.frames_done += self.plan[clip].count
        self._send(clip, media)

    def _position(self, clip: Clip) -> int:
        return clip.index - self.plan[0].index

    def _send(self, clip: int, media: dict[str, str] | None) -> None:
        if self.server is None or self.node is None:
            return
        elapsed = time.monotonic() - self._started
        left = elapsed / self.frames_done * (self.frames - self.frames_done) if self.frames_done else None
        detail = {
            "node": self.node,
            "prompt": self.prompt,
            "clip": clip,
            "clips": len(self.plan),
            "frames_done": self.frames_done,
            "frames": self.frames,
            "fps": self.fps,
            "seconds_left": left,
            "media": media,
        }
        try:
            self.server.send_sync(CLIP_EVENT, detail, self.client)
        except Exception as error:  # such as the loop of a server that is shutting down
            log.warning("LetsTalk: the browser is not told of clips any more: %s: %s", type(error).__name__, error)
            self.server = None


def _previewer(patcher: Any, rgb: Any) -> Any | None:
    """ComfyUI's previewer for the user's choice of method; the model, which is shared, stays as it is."""
    latent_format = patcher.model.latent_format
    if latent_format.latent_rgb_factors is None and rgb and len(rgb[0]):
        latent_format = copy.copy(latent_format)
        latent_format.latent_rgb_factors = [list(row) for row in rgb[0]]
        latent_format.latent_rgb_factors_bias = list(rgb[1]) if len(rgb[1]) else None
    return latent_preview.get_previewer(patcher.load_device, latent_format)
