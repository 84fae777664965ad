"""Clips to latents and states of the audio encoder, one file a clip, for training."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from letstalk_core.errors import MediaError
from letstalk_core.media.audio.features import encode_audio
from letstalk_core.pixels import to_unit

from ..output import save_tensors
from .clips import ClipFile, open_clip
from .manifest import ClipRecord, Manifest, append_records

PIXEL_NOISE = (-3.0, 0.5)  # mean and deviation of the log of the noise's sigma; docs/model.md, Memory bank


@torch.no_grad()
def encode_clip(
    clip: ClipFile,
    autoencoder: Any,
    audio_encoder: Any,
    *,
    clip_id: str = "",
    fps: float = 25.0,
    batch: int = 8,
    noisy_copies: bool = False,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """The tensors of a latents file. Raises: MediaError if the clip has no usable sound or frames.

    The noise of the noisy copies depends on `clip_id`, the tensor and the place in it, not on the pictures.
    """

    def encode(images: Tensor, name: str, first: int, noisy: bool) -> Tensor:
        x = to_unit(images.to(device))
        if noisy:
            generator = torch.Generator().manual_seed(_noise_seed(clip_id, name, first))
            level = torch.randn(len(x), 1, 1, 1, generator=generator)
            sigma = torch.exp(PIXEL_NOISE[0] + PIXEL_NOISE[1] * level)
            x = x + (sigma * torch.randn(x.shape, generator=generator)).to(x)
        z: Tensor = autoencoder.encode(x) * autoencoder.config.scaling_factor
        return z.half().cpu()

    portraits, regions = clip.portraits(), clip.regions()
    states = torch.cat([s.half().cpu() for s in encode_audio(audio_encoder, clip.audio(), fps)])
    first = clip.lead_frames
    if len(states) < first + clip.frame_count:  # sound a little shorter than the picture: the last state stays
        missing = first + clip.frame_count - len(states)
        if missing > fps:
            raise MediaError(f"{clip.path}: its sound ends {missing} frames before its picture; make it again")
        states = torch.cat([states, states[-1:].expand(missing, -1, -1)])
    result = {
        "audio": states[first : first + clip.frame_count].contiguous(),
        "regions": regions,
        "motion": clip.motion(),
    }
    poses = clip.portrait_motion()
    if poses is not None:
        result["portrait_motion"] = poses
    for suffix, noisy in (("", False), ("_noisy", True)):
        if noisy and not noisy_copies:
            continue
        result[f"frames{suffix}"] = torch.cat(
            [encode(clip.frames(i, batch), "frames", i, noisy) for i in range(0, clip.frame_count, batch)]
        )
        result[f"portraits{suffix}"] = torch.cat(
            [encode(portraits[i : i + batch], "portraits", i, noisy) for i in range(0, len(portraits), batch)]
        )
    return result


def _noise_seed(*parts: object) -> int:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def encode_folder(
    folder: str | Path,
    autoencoder: Any,
    audio_encoder: Any,
    *,
    hashes: dict[str, str],
    batch: int = 8,
    noisy_copies: bool = False,
    device: torch.device | str = "cpu",
    first: int = 0,
    stride: int = 1,
) -> Iterator[tuple[ClipRecord, str | None]]:
    """Encode the clips of a folder that have no latents of these models yet; yields (record, None or why not).

    `hashes` names the models ("autoencoder", "audio_encoder") and is kept in each file. `first` and `stride`
    divide the work between processes. Clips that cannot be read are skipped. Raises: OutputError.
    """
    folder = Path(folder)
    for index, record in enumerate(tuple(Manifest(folder))):
        name = f"latents/{record.id}.safetensors"
        if index % stride != first or (
            record.latents == name and _same_models(folder / name, hashes, noisy_copies)
        ):
            continue
        try:
            clip = open_clip(folder, record)
            tensors = encode_clip(
                clip,
                autoencoder,
                audio_encoder,
                clip_id=record.id,
                fps=record.fps,
                batch=batch,
                noisy_copies=noisy_copies,
                device=device,
            )
        except MediaError as error:
            yield record, str(error)
            continue
        size = clip.frames(0, 1).shape[1]
        metadata = {**hashes, "image_size": str(size), "motion": ",".join(clip.motion_names)}
        save_tensors(folder / name, tensors, metadata)
        record = dataclasses.replace(record, latents=name)
        append_records(folder, [record])
        yield record, None


def _same_models(path: Path, hashes: dict[str, str], noisy_copies: bool) -> bool:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            return all(metadata.get(k) == v for k, v in hashes.items()) and (
                not noisy_copies or "frames_noisy" in file.keys()
            )
    except (OSError, SafetensorError):
        return False
