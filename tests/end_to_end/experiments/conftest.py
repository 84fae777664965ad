"""A tiny encoded folder, its tiny models, and people at 64 px."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.tiny import tiny_autoencoder, tiny_encoder
from letstalk_core.files import file_sha256
from letstalk_core.networks.audio_encoder import AudioEncoder, save_audio_encoder
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_research.data.manifest import ClipRecord, append_records
from letstalk_research.experiments.variants import Budget, DataFacts, measure_data

CHANNELS, SIDE, SIZE, LAYERS, DIM = 4, 8, 64, 2, 16
AUTOENCODER = tiny_autoencoder((8, 8, 8, 16), (0, 0, 0, 1), channels=CHANNELS, size=SIZE)
ENCODER = tiny_encoder(DIM, LAYERS)
BOXES = torch.tensor([[20, 36, 44, 52], [10, 16, 28, 26], [36, 16, 54, 26]])  # mouth and eyes
TINY = {
    "hidden_size": 32,
    "depth": 1,
    "batch_size": 2,
    "people": 2,
    "seconds": 0.64,
    "sampling_steps": 2,
    "poses": 24,
    "long_people": 2,
    "long_clips": 10,
    "long_steps": 2,
    "slow_people": 1,
    "device": "cpu",
    "precision": "fp32",
}


@dataclass(frozen=True)
class World:
    data: Path
    autoencoder: Path
    audio_encoder: Path

    @property
    def facts(self) -> DataFacts:
        return measure_data(self.data, 16)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Clips of noise, as `letstalk encode` leaves them, and the models that they claim to come from."""
    folder = tmp_path_factory.mktemp("experiments")
    torch.manual_seed(0)
    autoencoder, audio_encoder = folder / "autoencoder.safetensors", folder / "audio_encoder.safetensors"
    net = AutoencoderDC(AUTOENCODER)
    save_checkpoint(autoencoder, {"autoencoder": (AUTOENCODER, net.state_dict())})
    save_audio_encoder(audio_encoder, AudioEncoder(ENCODER))
    hashes = {"autoencoder": file_sha256(autoencoder), "audio_encoder": file_sha256(audio_encoder)}
    data = folder / "data"
    (data / "latents").mkdir(parents=True)
    for i in range(5):
        portrait = torch.randn(1, CHANNELS, SIDE, SIDE)
        frames = portrait + 0.5 * torch.randn(22, CHANNELS, SIDE, SIDE)
        tensors = {
            "frames": frames.half(),
            "portraits": portrait.half(),
            "audio": torch.randn(22, LAYERS, DIM).half(),
            "regions": BOXES.repeat(22, 1, 1).short(),
        }
        save_file(tensors, str(data / f"latents/{i}.safetensors"), metadata={**hashes, "image_size": str(SIZE)})
        clip, latents = (f"{folder}/{i}.safetensors" for folder in ("clips", "latents"))
        split = "val" if i < 2 else "train"
        append_records(data, [ClipRecord(id=str(i), clip=clip, latents=latents, frames=22, split=split)])
    return World(data, autoencoder, audio_encoder)


@pytest.fixture(scope="session")
def budget() -> Budget:
    return Budget(steps=4, **TINY)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def encoder() -> AudioEncoder:
    return AudioEncoder(ENCODER).eval()
