"""A bundle of models as the suites see it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from letstalk_core.errors import ConfigError
from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.generate.talking_portrait import GenerateSettings, TalkingPortrait
from letstalk_core.generate.work_folder import WorkFolder
from letstalk_core.networks.load import ModelBundle
from letstalk_core.pixels import from_unit, to_unit
from letstalk_core.protocols import FrameSink


class BundleSubject:
    """A model bundle as the suite sees it. Raises: ConfigError for a model of frames that are not square."""

    def __init__(self, bundle: ModelBundle, settings: GenerateSettings) -> None:
        self.bundle, self.settings = bundle, settings.resolve(bundle)
        assert self.settings.size is not None and self.settings.fps is not None
        height, width = self.settings.size
        if height != width:
            raise ConfigError(f"the test faces are square, but the model makes frames of {width}x{height} pixels")
        self.fps, self.size, self.clip_frames = self.settings.fps, height, bundle.dit.config.clip_frames
        self._pipeline = TalkingPortrait(bundle)

    def generate(self, portrait: Tensor, waveform: Tensor, seed: int, steps: int | None = None) -> Tensor:
        frames = KeptFrames()
        settings = replace(self.settings, seed=seed, steps=steps or self.settings.steps)
        self._pipeline.generate(portrait, waveform, frames, settings)
        if frames.state == "partial":  # Ctrl-C: half a clip is no result
            raise KeyboardInterrupt
        return frames.video

    def stream(self, portrait: Tensor, sound: Path, sink: FrameSink, seed: int, work: Path) -> None:
        self._pipeline.generate(portrait, sound, sink, replace(self.settings, seed=seed), work=WorkFolder(work))

    @torch.no_grad()
    def _decoded(self, frames: Tensor) -> Tensor:
        autoencoder, x = self.bundle.autoencoder, to_unit(frames.to(self.bundle.device)).to(self.bundle.dtype)
        return autoencoder.decode(autoencoder.encode(x))

    def round_trip(self, frames: Tensor) -> Tensor:
        parts = frames.split(self.settings.decode_batch)
        return torch.cat([from_unit(self._decoded(part)).cpu() for part in parts])

    @torch.no_grad()
    def carried(self, portrait: Tensor, frames: Tensor) -> Tensor | None:
        carry, parts = self.bundle.carry, frames.split(self.settings.decode_batch)
        if carry is None:
            return None
        own = to_unit(portrait[None].to(self.bundle.device))
        reference = carry.prepare(own, self._decoded(portrait[None]).float())
        return torch.cat([from_unit(carry(self._decoded(part).float(), reference)).cpu() for part in parts])
