"""Good files to damage: tiny networks, a memory bank, sound, video, pictures, recipes; made once in a folder."""

from __future__ import annotations

import io
import json
import math
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.tiny import save_models, tiny_configs
from letstalk_core.media.video.writer import VideoWriter
from letstalk_core.networks.load import build_model
from letstalk_core.sampling.memory_bank import MemoryBank

CONFIGS = tiny_configs(levels=2, width=8, layers=1, grid=4, scaling_factor=1.0)
AUTOENCODER, ENCODER, _, _ = CONFIGS


def tone(seconds: float, rate: int = 16_000) -> bytes:
    """A 16-bit WAV file."""
    samples = [int(9000 * math.sin(0.05 * i) * math.sin(0.0007 * i)) for i in range(round(seconds * rate))]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return buffer.getvalue()


def make_seeds(folder: Path) -> None:
    """Fill `folder` with one good file of each kind."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    _models(folder)
    _media(folder)
    _tables(folder)


def _models(folder: Path) -> None:
    models: dict[str, Any] = {config.kind: build_model(config) for config in CONFIGS}
    for network in models.values():
        network.init_weights()
    save_models(folder, models, {"note": "a free text"})
    bank = MemoryBank(2, 1, seed=3)
    bank.reset(torch.randn(1, 4, 4, 4))
    bank.write(torch.randn(1, 4, 4, 4, 4))
    bank.save(folder / "bank.safetensors")
    torch.save({"state_dict": dict(models["autoencoder"].state_dict()), "epoch": 3}, folder / "weights.pt")


def _media(folder: Path) -> None:
    (folder / "sound.wav").write_bytes(tone(0.5))
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), np.uint8))
    with VideoWriter(folder / "video.mp4", 25, (32, 48), audio=folder / "sound.wav") as writer:
        writer.write(frames)
    for codec, name in (("mp3", "sound.mp3"), ("flac", "sound.flac")):
        _encode(folder / "sound.wav", folder / name, codec)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8))
    plain = dict.fromkeys(("gif", "tiff", "bmp", "ppm", "tga", "ico", "jp2"), {})
    special = {"png": {"icc_profile": _profile()}, "jpg": {"quality": 90, "exif": _exif()}}
    for suffix, options in {**special, "webp": {"lossless": True}, **plain}.items():
        picture.save(folder / f"picture.{suffix}", **options)
    picture.convert("I;16").save(folder / "deep.png")
    picture.convert("P").save(folder / "palette.png", transparency=3)
    picture.convert("RGBA").save(folder / "alpha.png")


def _profile() -> bytes:
    from PIL import ImageCms

    return bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def _exif() -> Any:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _encode(source: Path, target: Path, codec: str) -> None:
    """The sound in another format; left out where this build of FFmpeg cannot write it."""
    import av

    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        try:
            stream: Any = write.add_stream(codec, rate=16_000)
        except (ValueError, av.error.FFmpegError):
            return
        for frame in read.decode(audio=0):
            frame.pts = None
            write.mux(stream.encode(frame))
        write.mux(stream.encode(None))


def _tables(folder: Path) -> None:
    regions = torch.zeros(9, 3, 4, dtype=torch.int16)
    pictures = torch.zeros(9, 8, 8, 3, dtype=torch.uint8)
    clip = {"frames": pictures, "audio": torch.zeros(5760, dtype=torch.int16), "regions": regions}
    save_file(clip, str(folder / "clips.safetensors"), metadata={"lead_frames": "0"})
    latents = torch.zeros(9, 4, 2, 2, dtype=torch.float16)
    states = torch.zeros(9, 2, 8, dtype=torch.float16)
    tensors = {"frames": latents, "portraits": latents[:1].clone(), "audio": states, "regions": regions}
    metadata = {"autoencoder": "a", "audio_encoder": "b", "image_size": "64"}
    save_file(tensors, str(folder / "latents.safetensors"), metadata=metadata)
    records = [
        {"id": f"clip{i}", "frames": 9, "fps": 25.0, "split": split}
        | {kind: f"{place}/clip{i}.safetensors" for kind, place in (("clip", "clips"), ("latents", "latents"))}
        for i, split in enumerate(("train", "val", "train"))
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    wav2vec2 = {"model_type": "wav2vec2", "hidden_act": "gelu", **ENCODER.to_dict()}
    (folder / "wav2vec2.json").write_text(json.dumps(wav2vec2), encoding="utf-8")
    from letstalk_core.networks.autoencoder.convert import config_to_diffusers

    (folder / "dc_ae.json").write_text(json.dumps(config_to_diffusers(AUTOENCODER)), encoding="utf-8")
