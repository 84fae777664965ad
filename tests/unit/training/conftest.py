"""Tiny clips and recipes: 32 px frames, networks of a few thousand weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from letstalk_core.networks.audio_encoder import AudioEncoder, save_audio_encoder
from letstalk_core.networks.autoencoder.dc_ae import AutoencoderDC
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.motion_channels import LIPS
from letstalk_research.data.manifest import ClipRecord, append_records
from letstalk_research.data.synthetic.speech import Phoneme, Utterance
from letstalk_research.training import speech
from letstalk_research.training.config import AudioRecipe, AutoencoderRecipe, Recipe
from letstalk_research.training.recipe import load_recipe

MOTION = (*LIPS, "blink", "yaw")
TINY = {
    "autoencoder": """
stage = "autoencoder"
[model]
latent_channels = 4
encoder_block_types = ["ResBlock", "ResBlock", "ResBlock"]
decoder_block_types = ["ResBlock", "ResBlock", "ResBlock"]
encoder_block_out_channels = [8, 8, 16]
decoder_block_out_channels = [8, 8, 16]
encoder_layers_per_block = [0, 1, 1]
decoder_layers_per_block = [0, 1, 1]
encoder_qkv_multiscales = [[], [], []]
decoder_qkv_multiscales = [[], [], []]
decoder_norm_types = ["rms_norm", "rms_norm", "rms_norm"]
decoder_act_fns = ["silu", "silu", "silu"]
image_size = 32
""",
    "carry": """
stage = "carry"
[model]
hidden_size = 8
working_size = 32
[objective]
""",
    "dit": """
stage = "dit"
[model]
preset = "demo"
hidden_size = 32
depth = 1
num_heads = 2
in_channels = 4
clip_frames = 3
memory_frames = 1
audio_token_dim = 16
output = "prediction"
[projection]
window = 3
layers = 2
encoder_dim = 8
hidden_size = 16
tokens = 2
token_dim = 16
""",
    "lips": """
stage = "lips"
[model]
layers = 2
encoder_dim = 16
hidden_size = 16
tells_shut = true
[objective]
noise = 0.0
dropout = 0.0
""",
    "audio": """
stage = "audio"
[model]
preset = "demo"
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 16
conv_dim = [8, 8, 8, 8, 8, 8, 8]
num_conv_pos_embeddings = 4
num_conv_pos_embedding_groups = 2
""",
}


def write_clip(
    folder: Path, name: str, *, split: str = "train", frames: int = 6, size: int = 32, encoded: bool = True
) -> ClipRecord:
    """A clip of smooth noise, with latents as `letstalk encode` writes them."""
    g = torch.Generator().manual_seed(int.from_bytes(name.encode(), "little") % 2**31)
    low = torch.rand(frames + 2, 3, 4, 4, generator=g)
    pictures = (torch.nn.functional.interpolate(low, size=(size, size), mode="bilinear") * 255).to(torch.uint8)
    pictures = pictures.permute(0, 2, 3, 1).contiguous()
    boxes = torch.tensor([[10, 18, 22, 26], [6, 8, 14, 14], [18, 8, 26, 14]], dtype=torch.int16)
    tensors = {
        "frames": pictures[2:].contiguous(),
        "portraits": pictures[:2].contiguous(),
        "audio": torch.randint(-3000, 3000, (640 * frames,), generator=g).to(torch.int16),
        "regions": boxes.repeat(frames, 1, 1),
        "portrait_regions": boxes.repeat(2, 1, 1),
    }
    latents = {
        "frames": torch.randn(frames, 4, 2, 2, generator=g).half(),
        "portraits": torch.randn(2, 4, 2, 2, generator=g).half(),
        "audio": torch.randn(frames, 2, 8, generator=g).half(),
        "regions": tensors["regions"],
        "motion": torch.randn(frames, len(MOTION), generator=g).half(),
        "portrait_motion": torch.randn(2, len(MOTION), generator=g).half(),
    }
    metadata = {"image_size": str(size), "motion": ",".join(MOTION)}
    clip, cached = f"clips/{name}.safetensors", f"latents/{name}.safetensors"
    for path, content in ((clip, tensors), (cached, latents))[: 1 + encoded]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        save_file(content, str(folder / path), metadata=metadata)
    record = ClipRecord(id=name, clip=clip, latents=cached if encoded else "", frames=frames, split=split)
    append_records(folder, [record])
    return record


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for i in range(4):
        write_clip(folder, f"clip{i}", split="val" if i == 0 else "train")
    return folder


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of an autoencoder that has learned nothing."""
    folder = tmp_path_factory.mktemp("autoencoder")
    (folder / "recipe.toml").write_text(TINY["autoencoder"])
    recipe = load_recipe("autoencoder", folder / "recipe.toml", ["loop.steps=1"])
    assert isinstance(recipe, AutoencoderRecipe)
    torch.manual_seed(0)
    model = AutoencoderDC(recipe.model)
    model.init_weights()
    path = folder / "autoencoder.safetensors"
    save_checkpoint(path, {"autoencoder": (recipe.model, model.state_dict())})
    return path


@pytest.fixture(scope="session")
def audio_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of an audio encoder."""
    folder = tmp_path_factory.mktemp("audio_encoder")
    (folder / "recipe.toml").write_text(TINY["audio"])
    recipe = load_recipe("audio", folder / "recipe.toml", ["loop.steps=1"])
    assert isinstance(recipe, AudioRecipe)
    torch.manual_seed(0)
    model = AudioEncoder(recipe.model)
    model.init_weights()
    save_audio_encoder(folder / "audio_encoder.safetensors", model, {})
    return folder / "audio_encoder.safetensors"


@pytest.fixture
def make_recipe(
    tmp_path: Path, data_folder: Path, autoencoder: Path, audio_encoder: Path
) -> Callable[..., Recipe]:
    """make_recipe(stage, "loop.steps=3", …): a tiny recipe with overrides; the run folder is `tmp_path/run`."""

    def make(stage: str, *overrides: str) -> Recipe:
        path = tmp_path / f"{stage}.toml"
        path.write_text(TINY[stage])
        common = (
            f"data.folder={data_folder}",
            f"loop.run={tmp_path / 'run'}",
            *("data.batch_size=2", "data.workers=0", "data.validation_items=2", "data.reread_every=2"),
            *("loop.steps=4", "loop.precision=fp32", "loop.device=cpu", "loop.log_every=1"),
            *("loop.validate_every=0", "loop.sample_every=0", "loop.export_every=0", "loop.checkpoint_every=0"),
        )
        needed = {
            "carry": [f'objective.autoencoder="{autoencoder}"'],
            "lips": [
                f'objective.audio_encoder="{audio_encoder}"',
                *("objective.utterances=8", "objective.crop_seconds=[1.2, 1.6]", "objective.augment=0.0"),
            ],
        }
        return load_recipe(stage, path, [*common, *needed.get(stage, []), *overrides])

    return make


def hum(rng: np.random.Generator, split: str, min_seconds: float) -> Utterance:
    """Vowels and pauses as loud and soft hum."""
    seconds = min_seconds + 0.2
    times = np.arange(round(seconds * 16_000)) / 16_000
    loud = np.sin(2 * np.pi * (1 + 2 * rng.random()) * times) > 0
    wave = (np.sin(2 * np.pi * 200 * times) * loud * 0.4).astype(np.float32)
    edges = [0.0, *(times[1:][np.diff(loud.astype(int)) != 0]), seconds]
    symbols = ["a" if loud[min(len(loud) - 1, round(16_000 * (a + b) / 2))] else "" for a, b in pairwise(edges)]
    phonemes = tuple(Phoneme(s, float(a), float(b)) for s, (a, b) in zip(symbols, pairwise(edges), strict=True))
    return Utterance(wave, phonemes)


@pytest.fixture(autouse=True)
def hums(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces espeak-ng by hum and counts the utterances."""
    made: list[int] = []

    def speak(rng: np.random.Generator, split: str, min_seconds: float) -> Utterance:
        made.append(1)
        return hum(rng, split, min_seconds)

    monkeypatch.setattr(speech, "random_utterance", speak)
    return made
