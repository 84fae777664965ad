"""Portrait and speech in ComfyUI's types: the portrait's LATENT, and CONDITIONING that our MODEL understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management as mm
import torch
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.generate.detail import own_size
from ...letstalk_core.media.portrait.crop import fit_to
from ...letstalk_core.media.portrait.find import portrait_notes
from ...letstalk_core.media.portrait.likeness import compare_portrait, far_from_portrait
from ...letstalk_core.networks.autoencoder.preview import fit_latent_preview
from ...letstalk_core.networks.numerical_guard import NumericalGuard
from ...letstalk_core.pixels import from_bytes, to_bytes, to_unit
from ...letstalk_core.sampling.motion import check_amount
from ...letstalk_core.sampling.motion_curves import MotionCurves
from .faces import good_frame
from .pictures import rgb_image
from .progress import warn
from .vae import float32_vae


def encode_portrait(
    image: Tensor, vae: Any, width: int, height: int, frame: int = 0, as_authors: bool = False
) -> dict[str, Any]:
    """LATENT (1, C, 1, h, w) of the middle of an IMAGE, and the colours of its channels for previews.

    Of several pictures `frame` is encoded, counted from 1; 0 is the first with a good face. A VAE that gives NaN
    or infinity is tried once more in float32. The user is warned if little of the picture is left in the latent.
    Raises: ConfigError naming the input, NumericalError.
    """
    image = rgb_image(image, "image")
    if not 0 <= frame <= len(image):
        raise ConfigError(
            f"frame: {frame} is none of the {len(image)} pictures of image; 0 chooses one by its face"
        )
    number = frame - 1 if frame else good_frame(image)
    factor = vae.spacial_compression_encode()
    for name, size in (("width", width), ("height", height)):
        if size % factor:
            raise ConfigError(
                f"{name}: {size} pixels is not a multiple of {factor}, which this VAE needs; use"
                f" {max(1, round(size / factor)) * factor}"
            )
    whole = to_bytes(image[number]).cpu()
    picture = fit_to(whole, (height, width), "bilinear" if as_authors else "bicubic")[None]
    fitted = from_bytes(picture)
    for note in portrait_notes(fit_to(whole, own_size(whole, (height, width)))):
        warn(f"image: {note}")
    guard = NumericalGuard(float32_vae)
    stage, remedy = "vae: encoding of the portrait", "check the autoencoder's file"
    latents = guard(stage, vae, lambda vae: vae.encode(fitted), remedy=remedy)
    decoded = guard("vae: decoding of the portrait", vae, lambda vae: vae.decode(latents), remedy=remedy)
    seen = fit_to(to_bytes(decoded.reshape(-1, *decoded.shape[-3:])[0, ..., :3]).cpu(), (height, width))
    if (warning := far_from_portrait(compare_portrait(picture[0], seen).score)) is not None:
        warn(f"image: {warning}")
    latents = latents if latents.ndim == 5 else latents.unsqueeze(2)
    config = getattr(vae, "autoencoder_config", None)
    colours: Any = (config.latent_rgb_factors, config.latent_rgb_bias) if config is not None else ()
    if not all(colours) or not colours:
        colours = fit_latent_preview(latents[:, :, 0].float().cpu(), to_unit(picture))
    result: dict[str, Any] = {"samples": latents, "letstalk_rgb": colours, "letstalk_picture": whole}
    if config is not None:
        result["letstalk_autoencoder"] = f"f{config.spatial_factor}c{config.latent_channels}"
    return result


def make_conditioning(
    portrait: Mapping[str, Any],
    audio: Mapping[str, Any],
    first_frame: int,
    clip_frames: int,
    movement: float = 1.0,
    motion: MotionCurves | None = None,
) -> tuple[Any, Any, dict[str, Any], int]:
    """CONDITIONING positive and negative, an empty LATENT of one clip, and the frames from `first_frame` on.

    The negative is the same without sound. Raises: ConfigError naming the input.
    """
    samples: Tensor = portrait["samples"]
    if samples.ndim == 4:
        samples = samples.unsqueeze(2)
    if samples.ndim != 5 or samples.shape[0] != 1 or samples.shape[2] != 1:
        raise ConfigError(
            f"portrait: has shape {list(portrait['samples'].shape)}; needs one picture (1, channels, 1, h, w), as"
            " LetsTalk Encode Portrait gives it"
        )
    check_amount(movement)
    track = audio.get("letstalk_track")
    if track is None:
        raise ConfigError("audio: was not timed to video frames; send it through LetsTalk Encode Audio")
    if not 0 <= first_frame < track.frames:
        raise ConfigError(
            f"first_frame: {first_frame} lies beyond the end of the sound, which has {track.frames} frames"
        )
    common = {
        "reference_latents": [samples],
        "letstalk_audio": track,
        "letstalk_first_frame": first_frame,
        "letstalk_portrait_gain": 1.0,
        "letstalk_movement": movement,
        **({"letstalk_motion": motion} if motion else {}),
        **{
            key: portrait[key]
            for key in ("letstalk_rgb", "letstalk_autoencoder", "letstalk_picture")
            if key in portrait
        },
    }
    positive, negative = ([[torch.zeros(1, 1, 1), {**common, "letstalk_audio_gain": gain}]] for gain in (1.0, 0.0))
    _, channels, _, height, width = samples.shape
    empty = torch.zeros(1, channels, clip_frames, height, width, device=mm.intermediate_device())
    return positive, negative, {"samples": empty}, track.frames - first_frame
