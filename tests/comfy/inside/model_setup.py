"""A small random model in ComfyUI and in core, and one clip sampled with either."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.samplers
import torch
from einops import rearrange
from torch import Tensor

TINY = {"hidden_size": 32, "depth": 2, "num_heads": 2, "in_channels": 4, "linear_head_dim": 16, "mlp_ratio": 2.0}
TRAINED = {"audio_token_dim": 12, "grid_size": (4, 4), "clip_frames": 5, "memory_noise": 0.1, "anchor_frames": 1}
PROJECTION = {"window": 3, "layers": 2, "encoder_dim": 6, "hidden_size": 16, "tokens": 3, "token_dim": 12}
MOVEMENT = ("yaw", "blink", "scale")
SEED = 7
CLOSE = {"rtol": 1e-5, "atol": 2e-5}


@dataclasses.dataclass
class Setup:
    """One model file loaded both ways, one portrait, one recording."""

    sub: Callable[[str], ModuleType]
    path: Path
    patcher: Any
    dit: Any
    projection: Any
    portrait: Tensor
    track: Any
    samplers: Any = comfy.samplers

    @property
    def guider(self) -> ModuleType:
        return self.sub("nodes.adapters.guider")

    @property
    def positive(self) -> list[Any]:
        values = {"reference_latents": [self.portrait.unsqueeze(2)], "letstalk_audio": self.track}
        return [[torch.zeros(1, 1, 1), {**values, "letstalk_first_frame": 2}]]

    @property
    def negative(self) -> list[Any]:
        return [[slot, {**values, "letstalk_audio_gain": 0.0}] for slot, values in self.positive]

    @property
    def frames(self) -> int:
        return int(self.dit.config.clip_frames)

    @property
    def noise(self) -> Tensor:
        """Noise of the first clip, (1, c, f, h, w)."""
        _, c, h, w = self.portrait.shape
        noise = self.sub("letstalk_core.sampling.long_video").clip_noise(SEED, 0, (1, self.frames, c, h, w))
        return rearrange(noise, "b f c h w -> b c f h w")

    def sigmas(self, steps: int = 2) -> Tensor:
        found: Tensor = self.guider.make_model_sigmas(self.patcher, steps)
        return found

    def standalone(self, sigmas: Tensor, audio: Any = 1.0, portrait: Any = 1.0) -> Tensor:
        """The first clip, sampled without ComfyUI: (1, c, f, h, w)."""
        clip, denoisers = self.sub("letstalk_core.sampling.clip"), self.sub("letstalk_core.sampling.denoisers")
        bank = self.sub("letstalk_core.sampling.memory_bank").MemoryBank.for_model(self.dit.config, seed=SEED)
        bank.reset(self.portrait)
        windows = self.track.windows(2, self.frames, self.projection.config.window)
        movement = self.sub("letstalk_core.sampling.motion").Movement(self.projection.config.movement, seed=SEED)
        conditions = self.sub("letstalk_core.networks.transformer.conditions").Conditions(
            portrait=self.portrait,
            audio=self.projection(windows[None]),
            memory=bank.read(),
            movement=self.projection.movement_of(movement.rows(2, self.frames)[None]),
        )
        guidance = clip.Guidance(audio=audio, portrait=portrait)
        sampler = clip.SolverClipSampler(denoisers.make_denoiser(self.dit), "euler", sigmas, guidance)
        latents = sampler(
            rearrange(self.noise, "b c f h w -> b f c h w"), conditions, clip.Clip(0, 2, self.frames)
        )
        return rearrange(latents, "b f c h w -> b c f h w")


def make_setup(
    sub: Callable[[str], ModuleType], folder: Path, weight_dtype: str = "default", **changes: Any
) -> Setup:
    """A file of random weights in `folder`, loaded."""
    configs, models = sub("letstalk_core.networks.configs"), sub("letstalk_core.networks.load")
    dit_config = configs.DiTConfig(**{**TINY, **TRAINED, **changes})
    projection_config = configs.AudioProjectionConfig(**PROJECTION, movement=MOVEMENT)
    parts = {}
    for name, config in (("dit", dit_config), ("audio_projection", projection_config)):
        network = models.build_model(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        parts[name] = (config, network.state_dict())
    path = folder / "dit.safetensors"
    sub("letstalk_core.networks.checkpoint").save_checkpoint(path, parts)
    return load_setup(sub, path, (4, 4), weight_dtype)


def load_setup(
    sub: Callable[[str], ModuleType], path: Path, grid: tuple[int, int], weight_dtype: str = "default"
) -> Setup:
    """A model file with a portrait and speech of random numbers."""
    models = sub("letstalk_core.networks.load")
    dit, projection = (models.load_model(path, kind) for kind in ("dit", "audio_projection"))
    states = torch.randn(9, projection.config.layers, projection.config.encoder_dim)
    return Setup(
        sub=sub,
        path=path,
        patcher=sub("nodes.adapters.model").load_dit(path, weight_dtype),
        dit=dit,
        projection=projection,
        portrait=torch.randn(1, dit.config.in_channels, *grid),
        track=sub("letstalk_core.media.audio.track").AudioTrack(states, 25.0),
    )


def euler() -> Any:
    return comfy.samplers.sampler_object("euler")


def sample(setup: Setup, guider: Any, sampler: Any = None, sigmas: Tensor | None = None) -> Tensor:
    """The first clip through ComfyUI's sampling: (1, c, f, h, w)."""
    noise = setup.noise
    sigmas = setup.sigmas() if sigmas is None else sigmas
    found: Tensor = guider.sample(
        noise, torch.zeros_like(noise), sampler or euler(), sigmas, disable_pbar=True, seed=SEED
    )
    return found


@contextlib.contextmanager
def count_passes(patcher: Any) -> Iterator[list[int]]:
    """Batch sizes of the calls of the network inside the block."""
    batches: list[int] = []
    handle = patcher.model.diffusion_model.register_forward_pre_hook(
        lambda module, inputs: batches.append(inputs[0].shape[0])
    )
    try:
        yield batches
    finally:
        handle.remove()


def basic(setup: Setup, patcher: Any = None) -> Any:
    """A native guider without guidance."""
    guider = setup.samplers.CFGGuider(patcher or setup.patcher)
    guider.set_conds(setup.positive, setup.negative)
    return guider


def guided(setup: Setup, patcher: Any = None) -> Any:
    guider = basic(setup, patcher)
    guider.set_cfg(2.0)
    return guider


def changed(found: Tensor, other: Tensor) -> bool:
    return bool(found.isfinite().all()) and float((found - other).abs().max()) > 1e-3
