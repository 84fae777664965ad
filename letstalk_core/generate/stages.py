"""The stages of a run around its clip loop, each of whose results is finite (`numerical_guard`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..media.audio.features import AudioFeatures
from ..networks.autoencoder.dc_ae import AutoencoderDC
from ..networks.autoencoder.tiling import Tiling
from ..networks.load import ModelBundle
from ..networks.numerical_guard import NumericalGuard
from ..networks.transformer.dit import LetsTalkDiT
from ..pixels import from_unit, to_unit
from ..protocols import ClipSampler, FrameSink
from ..sampling.long_video import Clip
from ..sampling.motion import Movement

__all__ = ["DecodingSink", "GuardedSampler", "Stages"]

WHOLE_FRAME_PIXELS = 1024 * 1024  # larger frames go through the autoencoder in tiles


class Stages:
    """Portrait, speech and pictures of one run with the networks of a bundle. Raises: NumericalError."""

    def __init__(self, bundle: ModelBundle) -> None:
        self.bundle, self.guard = bundle, NumericalGuard()

    def encode(self, image: Tensor) -> Tensor:
        """(h, w, 3) uint8 -> the portrait latent in model space (1, c, h/f, w/f), float32."""
        x = to_unit(image[None].to(self.bundle.device))
        tiling = _tiling(image.shape[0] * image.shape[1])

        def encode(network: AutoencoderDC) -> Tensor:
            latents = network.encode_frames(x.to(_dtype(network)), tiling=tiling)
            return latents.float() * network.config.scaling_factor

        return self.guard("encoding of the portrait", self.bundle.autoencoder, encode)

    def tokens(self, features: AudioFeatures, first: int, count: int) -> Tensor:
        """Audio tokens of these frames, float32: (1, count, k, d)."""
        bundle = self.bundle
        windows = features.windows(first, count, bundle.audio_projection.config.window)[None]
        return self.guard(
            f"audio projection of clip {first // bundle.dit.config.clip_frames + 1}",
            bundle.audio_projection,
            lambda network: network(windows.to(bundle.device, _dtype(network))).float(),
        )

    def movement(self, moves: Movement, first: int, count: int) -> Tensor | None:
        """Tokens of how head and eyes move in these frames: (1, count, k, d); None for networks that choose it."""
        rows = moves.rows(first, count)[None].to(self.bundle.device)
        return self.bundle.audio_projection.movement_of(rows)

    @torch.no_grad()  # in each thread
    def decode(self, latents: Tensor, clip: Clip) -> Tensor:
        """Model-space latents (t, c, h, w) -> frames (t, h, w, 3) uint8 on the CPU."""
        config = self.bundle.autoencoder.config
        tiling = _tiling(latents.shape[-1] * latents.shape[-2] * config.spatial_factor**2)

        def decode(network: AutoencoderDC) -> Tensor:
            z = (latents.to(self.bundle.device) / config.scaling_factor).to(_dtype(network))
            return network.decode_frames(z, batch=len(z), tiling=tiling).float()

        images = self.guard(f"decoding of clip {clip.index + 1}", self.bundle.autoencoder, decode)
        return from_unit(images).cpu().contiguous()


class DecodingSink:
    """A sink of latents: decodes the frames of a plan in their order, and hands them to a sink of frames."""

    def __init__(
        self, sink: FrameSink, decode: Callable[[Tensor, Clip], Tensor], plan: list[Clip], first: int
    ) -> None:
        self.sink, self.decode, self.plan = sink, decode, plan
        self.frames = first  # the sink has had, also in earlier runs

    def write(self, frames: Tensor) -> None:
        """Latents (t, c, h, w) of one clip."""
        clip = self.plan[self.frames // self.plan[0].count]
        self.sink.write(self.decode(frames, clip))
        self.frames += len(frames)

    def close(self, partial: bool = False) -> None:
        self.sink.close(partial=partial)

    def abort(self) -> None:
        self.sink.abort()


class GuardedSampler:
    """A ClipSampler that is `own`, and for clips that it spoils `make(network)` on the network in float32.

    `towards` (`protocols.DrawnSampler`) holds for both.
    """

    def __init__(
        self, own: ClipSampler, make: Callable[[LetsTalkDiT], Any], dit: LetsTalkDiT, guard: NumericalGuard
    ) -> None:
        self.own, self.make, self.dit, self.guard = own, make, dit, guard
        self.towards: dict[int, tuple[Tensor, Tensor]] = getattr(own, "towards", {})

    def __call__(self, noise: Tensor, conditions: Any, *, clip_index: int) -> Tensor:
        def run(network: LetsTalkDiT) -> Tensor:
            sampler: Any = self.own
            if network is not self.dit:
                sampler = self.make(network)
                sampler.towards = self.towards
            result: Tensor = sampler(noise, conditions, clip_index=clip_index)
            return result

        return self.guard(f"sampling of clip {clip_index + 1}", self.dit, run)


def _tiling(pixels: int) -> Tiling | None:
    return Tiling() if pixels > WHOLE_FRAME_PIXELS else None


def _dtype(network: torch.nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype
