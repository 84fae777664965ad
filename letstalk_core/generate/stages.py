"""What a standalone run computes with the networks of a bundle, each result finite (`numerical_guard`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ..media.audio.features import AudioFeatures
from ..media.portrait.crop import fit_to
from ..networks.autoencoder.dc_ae import AutoencoderDC
from ..networks.autoencoder.tiling import Tiling
from ..networks.load import ModelBundle
from ..networks.numerical_guard import NumericalGuard
from ..networks.transformer.conditions import Conditions
from ..networks.transformer.dit import LetsTalkDiT
from ..pixels import from_unit, to_unit
from ..sampling.clip import Blend, Clip, ConditionedSampler
from ..sampling.motion import Movement
from .detail import PortraitDetail
from .face_motion import FaceMotion

WHOLE_FRAME_PIXELS = 1024 * 1024  # larger frames go through the autoencoder in tiles


class Stages:
    """Portrait, conditions, latents and pictures of one run. `decode_batch` frames are decoded at once.

    Raises: NumericalError.
    """

    def __init__(self, bundle: ModelBundle, decode_batch: int = 8) -> None:
        self.bundle, self.decode_batch, self.guard = bundle, decode_batch, NumericalGuard()
        self._detail: PortraitDetail | None = None

    def encode(self, image: Tensor) -> Tensor:
        """(h, w, 3) uint8 -> the portrait latent in model space (1, c, h/f, w/f), float32."""
        x = to_unit(image[None].to(self.bundle.device))
        tiling = _tiling(image.shape[0] * image.shape[1])

        def encode(network: AutoencoderDC) -> Tensor:
            latents = network.encode_frames(x.to(_dtype(network)), tiling=tiling)
            return latents.float() * network.config.scaling_factor

        return self.guard("encoding of the portrait", self.bundle.autoencoder, encode)

    def round_trip(self, latents: Tensor) -> Tensor:
        """What the autoencoder makes of the portrait: (1, 3, H, W) float32, from its latent."""
        return self._pictures(latents, "decoding of the portrait")

    def carry_detail(
        self,
        portrait: Tensor,
        decoded: Tensor,
        size: tuple[int, int],
        face: FaceMotion | None = None,
        others: Sequence[Tensor] = (),
    ) -> None:
        """From now on frames have `size` and the detail of the portrait (H, W, 3) uint8, decoded as given.

        face: the motion of a photograph's face, which is then drawn from the portrait. others: more pictures of
        the person, framed like the portrait.
        """
        assert self.bundle.carry is not None
        sampled = decoded.shape[-2], decoded.shape[-1]
        more = [(picture, self.round_trip(self.encode(fit_to(picture, sampled)))) for picture in others]
        self._detail = PortraitDetail(self.bundle.carry, portrait, decoded, size, more, face)

    @property
    def draws_face(self) -> bool:
        """Whether the face is the puppet's, not the denoiser's."""
        return self._detail is not None and self._detail.face is not None

    def conditions(
        self, portrait: Tensor, features: AudioFeatures, moves: Movement
    ) -> Callable[[Tensor, Clip], Conditions]:
        """What a clip is conditioned on after `memory`, at the full length that the model knows; float32."""
        projection, count = self.bundle.audio_projection, self.bundle.dit.config.clip_frames

        def conditions(memory: Tensor, clip: Clip) -> Conditions:
            windows = features.windows(clip.first, count, projection.config.window)[None]
            audio = self.guard(
                f"audio projection of clip {clip.index + 1}",
                projection,
                lambda network: network(windows.to(self.bundle.device, _dtype(network))).float(),
            )
            rows = moves.rows(clip.first, count)[None].to(self.bundle.device)
            return Conditions(portrait, audio, memory, projection.movement_of(rows))

        return conditions

    def guarded(
        self, own: ConditionedSampler, exact: Callable[[LetsTalkDiT], ConditionedSampler]
    ) -> ConditionedSampler:
        """A sampler that is `own`, and for clips that it spoils `exact(network)` on the network in float32."""
        dit = self.bundle.dit

        def sample(noise: Tensor, conditions: Conditions, clip: Clip, blend: Blend | None = None) -> Tensor:
            def run(network: LetsTalkDiT) -> Tensor:
                sampler = own if network is dit else exact(network)
                return sampler(noise, conditions, clip, blend)

            return self.guard(f"sampling of clip {clip.index + 1}", dit, run)

        return sample

    @torch.no_grad()  # in each thread
    def decode(self, latents: Tensor, clip: Clip) -> Tensor:
        """Model-space latents (1, f, c, h, w) -> frames (f, h, w, 3) uint8 on the CPU."""
        parts, name = latents[0].split(self.decode_batch), f"decoding of clip {clip.index + 1}"
        detail = self._detail
        if detail is None:
            return torch.cat([_bytes(self._pictures(part, name)) for part in parts])
        firsts = range(clip.first, clip.first + latents.shape[1], self.decode_batch)
        with ThreadPoolExecutor(1) as beside:  # faces are drawn and detail is carried while the decoder runs
            found: list[Future[Tensor]] = []
            for first, part in zip(firsts, parts, strict=True):
                layers = beside.submit(detail.layers, first, len(part))
                pictures = self._pictures(part, name)
                found.append(beside.submit(lambda x, faces: _bytes(detail(x, faces.result())), pictures, layers))
            return torch.cat([one.result() for one in found])

    def _pictures(self, latents: Tensor, name: str) -> Tensor:
        """Model-space latents (f, c, h, w) -> (f, 3, H, W) float32."""
        config = self.bundle.autoencoder.config
        tiling = _tiling(latents.shape[-1] * latents.shape[-2] * config.spatial_factor**2)

        def decode(network: AutoencoderDC) -> Tensor:
            z = (latents.to(self.bundle.device) / config.scaling_factor).to(_dtype(network))
            return network.decode_frames(z, batch=len(z), tiling=tiling).float()

        return self.guard(name, self.bundle.autoencoder, decode)


def _bytes(images: Tensor) -> Tensor:
    return from_unit(images).cpu().contiguous()


def _tiling(pixels: int) -> Tiling | None:
    return Tiling() if pixels > WHOLE_FRAME_PIXELS else None


def _dtype(network: torch.nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype
