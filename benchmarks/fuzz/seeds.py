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

from letstalk_core.checkpoint import save_checkpoint
from letstalk_core.configs import AudioEncoderConfig, AudioProjectionConfig, AutoencoderConfig, DiTConfig
from letstalk_core.memory_bank import MemoryBank
from letstalk_core.models import build_model
from letstalk_core.video.writer import VideoWriter

__all__ = ["make_seeds", "tone"]

RES = ("ResBlock",) * 2
AUTOENCODER = AutoencoderConfig(
    latent_channels=4,
    encoder_block_types=RES,
    decoder_block_types=RES,
    encoder_block_out_channels=(4, 8),
    decoder_block_out_channels=(4, 8),
    encoder_layers_per_block=(0, 1),
    decoder_layers_per_block=(0, 1),
    encoder_qkv_multiscales=((), ()),
    decoder_qkv_multiscales=((), ()),
    decoder_norm_types=("rms_norm",) * 2,
    decoder_act_fns=("silu",) * 2,
    image_size=32,
)
ENCODER = AudioEncoderConfig(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    conv_dim=(4,) * 7,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
)
PROJECTION = AudioProjectionConfig(window=3, layers=1, encoder_dim=8, hidden_size=8, tokens=2, token_dim=8)
DIT = DiTConfig(
    hidden_size=16,
    depth=1,
    num_heads=2,
    in_channels=4,
    linear_head_dim=8,
    mlp_ratio=1.0,
    audio_token_dim=8,
    grid_size=(4, 4),
    clip_frames=4,
    anchor_frames=1,
)


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
    parts: dict[str, Any] = {}
    for config in (AUTOENCODER, ENCODER, PROJECTION, DIT):
        network: Any = build_model(config)
        network.init_weights()
        parts[config.kind] = (config, network.state_dict())
    save_checkpoint(folder / "autoencoder.safetensors", {"autoencoder": parts["autoencoder"]})
    save_checkpoint(folder / "audio_encoder.safetensors", {"audio_encoder": parts["audio_encoder"]})
    save_checkpoint(
        folder / "dit.safetensors", {k: parts[k] for k in ("dit", "audio_projection")}, {"note": "a free text"}
    )
    bank = MemoryBank(2, 1, seed=3)
    bank.reset(torch.randn(1, 4, 4, 4))
    bank.write(torch.randn(1, 4, 4, 4, 4))
    bank.save(folder / "bank.safetensors")
    torch.save({"state_dict": dict(parts["autoencoder"][1]), "epoch": 3}, folder / "weights.pt")


def _media(folder: Path) -> None:
    (folder / "sound.wav").write_bytes(tone(0.5))
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3), np.uint8))
    with VideoWriter(folder / "video.mp4", 25, (32, 48), audio=folder / "sound.wav") as writer:
        writer.write(frames)
    for codec, name in (("mp3", "sound.mp3"), ("flac", "sound.flac")):
        _encode(folder / "sound.wav", folder / name, codec)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8))
    for suffix, options in {
        "png": {"icc_profile": _profile()},
        "jpg": {"quality": 90, "exif": _exif()},
        "webp": {"lossless": True},
        "gif": {},
        "tiff": {},
        "bmp": {},
        "ppm": {},
        "tga": {},
        "ico": {},
        "jp2": {},
    }.items():
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
        {
            "id": f"clip{i}",
            "clip": f"clips/clip{i}.safetensors",
            "latents": f"latents/clip{i}.safetensors",
            "frames": 9,
            "fps": 25.0,
            "split": split,
        }
        for i, split in enumerate(("train", "val", "train"))
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    wav2vec2 = {"model_type": "wav2vec2", "hidden_act": "gelu", **ENCODER.to_dict()}
    (folder / "wav2vec2.json").write_text(json.dumps(wav2vec2), encoding="utf-8")
    from letstalk_core.autoencoder.convert import config_to_diffusers

    (folder / "dc_ae.json").write_text(json.dumps(config_to_diffusers(AUTOENCODER)), encoding="utf-8")
