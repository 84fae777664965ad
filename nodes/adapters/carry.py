"""The portrait's own detail behind ComfyUI's VAEs: for finished frames, and for each clip of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from comfy.sd import VAE
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.files import while_unchanged
from ...letstalk_core.generate.detail import PortraitDetail, own_size
from ...letstalk_core.generate.face_motion import FaceMotion
from ...letstalk_core.media.portrait.crop import fit_to
from ...letstalk_core.media.portrait.references import align_references
from ...letstalk_core.networks.carry import Carry
from ...letstalk_core.networks.lips import Lips
from ...letstalk_core.networks.load import DEMO_FOLDER, load_optional
from ...letstalk_core.pixels import from_bytes, to_bytes
from .clip_run import ClipRun
from .pictures import rgb_image
from .progress import watched

SIZES = ("frame size", "double size", "portrait size")
OFF = "off"
FRAMES = 8  # between looks for a cancelled run


def masks_of(vae: VAE, anyone: bool = False) -> Carry | None:
    """The masks in the folder of a VAE's file; with `anyone` those of the bundled model for others. None: none."""
    return _beside(vae, "carry", anyone)


def face_motion(vae: VAE, run: ClipRun) -> FaceMotion | None:
    """How a portrait's face speaks, by lips.safetensors beside the VAE's file. None: as the model makes it."""
    lips: Lips | None = _beside(vae, "lips")
    if lips is None or (run.track.layers, run.track.dim) != (lips.config.layers, lips.config.encoder_dim):
        return None
    return FaceMotion(lips, run.track, run.moves)


def _beside(vae: VAE, kind: str, anyone: bool = False) -> Any:
    path = getattr(vae, "path", None)
    folders = [path.parent] if path is not None else []
    for folder in [*folders, *([DEMO_FOLDER] if anyone else [])]:
        file = folder / f"{kind}.safetensors"
        if file.is_file():
            return _load(file)
    return None


@while_unchanged(8)
def _load(file: Path) -> Any:
    return load_optional(file.parent, file.stem)


def result_size(choice: str, frames: tuple[int, int], portrait: Tensor) -> tuple[int, int]:
    """Height and width of the result for frames of a size and a portrait (H, W, 3). Raises: ConfigError."""
    if choice not in SIZES:
        raise ConfigError(f"size: {choice!r} is not one of {', '.join(SIZES)}")
    if choice == SIZES[2]:
        return own_size(portrait, frames)
    return frames if choice == SIZES[0] else (2 * frames[0], 2 * frames[1])


def aligned(references: Tensor | None, portrait: Tensor) -> list[Tensor]:
    """IMAGE of more pictures of the person, each framed as the portrait (H, W, 3) uint8. Raises: LetsTalkError."""
    if references is None:
        return []
    pictures = to_bytes(rgb_image(references, "references")).cpu()
    return align_references({f"references: picture {i}": p for i, p in enumerate(pictures, 1)}, portrait)


def with_detail(
    carry: Carry,
    vae: VAE,
    portrait: Tensor,
    frames: tuple[int, int],
    choice: str,
    references: Sequence[Tensor] = (),
    motion: FaceMotion | None = None,
) -> PortraitDetail:
    """What brings a portrait (H, W, 3) uint8, and references framed like it, into frames of a size that `vae`
    decoded. `motion`: of a photograph's face, which is drawn from it, too. Raises: ConfigError."""
    size = result_size(choice, frames, portrait)
    moved = carry.to(comfy.model_management.get_torch_device())
    others = [(other, _round_trip(vae, other, frames)) for other in references]
    return PortraitDetail(moved, portrait, _round_trip(vae, portrait, frames), size, others, motion)


def _round_trip(vae: VAE, picture: Tensor, frames: tuple[int, int]) -> Tensor:
    """What a VAE makes of a picture at the size of the frames: (1, 3, h, w) in [-1, 1]."""
    decoded: Tensor = vae.decode(vae.encode(from_bytes(fit_to(picture, frames))[None]))
    decoded = decoded.reshape(-1, *decoded.shape[-3:])[:1].float()
    if tuple(decoded.shape[1:3]) != frames:
        raise ConfigError(
            f"vae: makes {decoded.shape[2]}x{decoded.shape[1]} of a picture of {frames[1]}x{frames[0]}; give"
            " frames of a size that this VAE decodes to, before any upscaling"
        )
    return decoded.movedim(-1, 1) * 2 - 1


def carry_frames(frames: Tensor, portrait: Tensor, vae: VAE, choice: str) -> Tensor:
    """IMAGE (t, h, w, 3) and the IMAGE of its portrait -> IMAGE (t, *size, 3). Raises: ConfigError."""
    frames, portrait = rgb_image(frames, "frames"), rgb_image(portrait, "portrait")
    if len(portrait) != 1:
        raise ConfigError(
            f"portrait: holds {len(portrait)} pictures; connect one, for example through ImageFromBatch"
        )
    carry = masks_of(vae, anyone=True)
    if carry is None:
        raise ConfigError("vae: there is no carry.safetensors beside its file; use a model folder that has one")
    detail = with_detail(carry, vae, to_bytes(portrait[0]).cpu(), (frames.shape[1], frames.shape[2]), choice)
    result = torch.empty(len(frames), *detail.size, 3)
    for part, place in zip(watched(frames.split(FRAMES)), result.split(FRAMES), strict=True):
        place.copy_(apply(detail, part))
    return result


def apply(detail: PortraitDetail, frames: Tensor, first: int = 0) -> Tensor:
    """IMAGE to IMAGE, (t, h, w, 3) in 0..1 on the CPU; first: the number of the first frame in its video."""
    found: Any = detail(frames.movedim(-1, 1) * 2 - 1, detail.layers(first, len(frames)))
    return ((found + 1) / 2).movedim(1, -1).clamp(0, 1).cpu()
