"""The denoiser against the slow reference beside this file, and conversion of whole official-style checkpoints.

The reference computes in float64; ours in float32, hence 1e-5 of the largest output.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from letstalk_core.cli.__main__ import main
from letstalk_core.errors import ConfigError
from letstalk_core.networks.configs import DiTConfig
from letstalk_core.networks.nn.attention import LinearAttention
from letstalk_core.networks.presets import AUDIO_PROJECTION, DIT
from letstalk_core.networks.projection import AudioProjection
from letstalk_core.networks.transformer import convert
from letstalk_core.networks.transformer.dit import LetsTalkDiT
from tests.golden.reference_dit import Reference

FUSIONS = ("direct", "siamese", "symbiotic")
TINY = DiTConfig(
    hidden_size=32,
    depth=2,
    num_heads=2,
    in_channels=4,
    linear_head_dim=16,
    mlp_ratio=2.0,
    audio_token_dim=12,
    anchor_frames=1,
)


def random_dit(config: DiTConfig) -> LetsTalkDiT:
    """Every weight random, of a size that keeps activations near 1: no branch is switched off."""
    dit = LetsTalkDiT(config, device="meta").to_empty(device="cpu").requires_grad_(False)
    for name, value in dit.named_parameters():
        value.normal_(std=value[0].numel() ** -0.5 if value.ndim > 1 else 0.2)
        if name.endswith("norm.weight"):
            value.add_(1)
    return dit.eval()


def assert_equals_reference(
    config: DiTConfig, *, grid: tuple[int, int] = (3, 2), frames: int = 2, memory: int = 2, tokens: int = 3
) -> None:
    dit = random_dit(config)
    c, (h, w) = config.in_channels, grid
    inputs = {
        "x": torch.randn(frames, c, h, w),
        "portrait": torch.randn(c, h, w),
        "memory": torch.randn(memory, c, h, w),
        "audio": torch.randn(frames, tokens, config.audio_token_dim),
    }
    expected = Reference({k: v.numpy() for k, v in dit.state_dict().items()}, config)(
        t=417.25, **{k: v.double().numpy() for k, v in inputs.items()}
    )
    found = dit(timestep=torch.tensor([417.25]), **{k: v[None] for k, v in inputs.items()})[0]
    assert found.shape == expected.shape
    assert (found.double() - torch.from_numpy(expected)).abs().max() < 1e-5 * abs(expected).max()


@pytest.mark.parametrize("preset", DIT)
def test_every_preset_equals_the_reference(preset: str) -> None:
    depth = 2 if DIT[preset].hidden_size < 512 else 1  # in the last block carried tokens are only read
    config = dataclasses.replace(DIT[preset], depth=depth)
    assert_equals_reference(config, memory=config.bank_frames)


@pytest.mark.parametrize(("portrait", "audio"), list(itertools.product(FUSIONS, FUSIONS)))
def test_every_pair_of_fusions_equals_the_reference(portrait: str, audio: str) -> None:
    assert_equals_reference(
        dataclasses.replace(TINY, portrait_fusion=portrait, audio_fusion=audio), grid=(3, 4), frames=3, memory=3
    )


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"spatial_attention": "softmax"}, {}),
        ({"patch_size": 2}, {"grid": (4, 6)}),
        ({}, {"memory": 1, "frames": 5}),  # fewer memory frames than trained lie just before the clip
        ({"learned_variance": True, "prediction": "epsilon"}, {"memory": 0, "frames": 9}),  # as in the paper
        ({"depth": 3, "linear_head_dim": 32}, {"grid": (1, 7), "frames": 1}),
    ],
    ids=["softmax", "patches", "short memory", "no memory", "one row"],
)
def test_variants_equal_the_reference(changes: dict[str, Any], shape: dict[str, Any]) -> None:
    assert_equals_reference(dataclasses.replace(TINY, **changes), **{"memory": 3, **shape})


@pytest.mark.parametrize(("dim", "tokens"), [(160, 128), (384, 512), (768, 512), (1024, 512), (1152, 512)])
@torch.no_grad()
def test_linear_attention_equals_its_quadratic_form_at_the_width_of_every_preset(dim: int, tokens: int) -> None:
    """512 tokens are a frame of 512 px and its portrait; float64 decides which of two float32 sums is right."""
    layer = LinearAttention(dim)
    x = torch.randn(1, tokens, dim)
    q, k, v = layer.qkv(x).double().chunk(3, dim=-1)
    expected = torch.empty(1, tokens, dim, dtype=torch.float64)
    for first in range(0, dim, 32):
        part = slice(first, first + 32)
        weights = q[..., part].relu() @ k[..., part].relu().transpose(1, 2)
        expected[..., part] = weights @ v[..., part] / (weights.sum(-1, keepdim=True) + 1e-8)
    torch.testing.assert_close(layer(x), layer.out(expected.float()), rtol=1e-5, atol=1e-6)


def official_file(path: Path, preset: str, depth: int) -> tuple[LetsTalkDiT, AudioProjection]:
    """A checkpoint as the authors would save it, in half precision, with the prefix of distributed training."""
    config = dataclasses.replace(DIT[preset], depth=depth, prediction="epsilon", learned_variance=True)
    dit = random_dit(config).half()
    small = dataclasses.replace(AUDIO_PROJECTION["base"], hidden_size=8, tokens=2)
    projection = AudioProjection(small).eval()
    content = {
        "model": {},
        "ema": {f"module.{k}": v for k, v in convert.dit_to_official(dit.state_dict(), config).items()},
        "audioproj": convert.projection_to_official(projection.state_dict()),
        "args": argparse.Namespace(lr=1e-4),
    }
    torch.save(content, path)
    return dit, projection


def equal(found: dict[str, Tensor] | None, expected: dict[str, Tensor]) -> bool:
    if found is None or found.keys() != expected.keys():
        return False
    return all(torch.equal(found[k], expected[k]) for k in found)


@pytest.mark.parametrize("preset", ["S", "B", "L", "XL"])
def test_an_official_checkpoint_of_every_size_keeps_every_weight(preset: str, tmp_path: Path) -> None:
    dit, projection = official_file(tmp_path / "official.pt", preset, depth=1)
    found = convert.load_official(tmp_path / "official.pt")
    assert found.dit_config == dit.config  # the number of heads follows from the width
    assert equal(found.dit, dict(dit.state_dict()))
    assert found.projection_config == projection.config
    assert equal(found.projection, dict(projection.state_dict()))


@pytest.mark.parametrize("kind", ["extra", "relative"])
def test_a_foreign_checkpoint_is_refused_with_its_first_five_names(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dit = random_dit(TINY)
    state = convert.dit_to_official(dit.state_dict(), TINY)
    if kind == "extra":
        state |= {f"blocks.0.motion_attn.{i}.weight": torch.zeros(1) for i in range(7)}
        message = "7 names are foreign: " + ", ".join(f"blocks.0.motion_attn.{i}.weight" for i in range(5))
    else:  # as of a DiT with text: its names begin like ours
        state = {k: v for k, v in state.items() if "cross_attn" not in k}
        message = f"first names: {sorted(state)[:5]}"
    source, target = tmp_path / "other.pt", tmp_path / "other.safetensors"
    torch.save({"ema": state}, source)
    assert main(["convert", str(source), "-o", str(target), "--num-heads", "2", "--kind", "dit"]) == 2
    assert message in capsys.readouterr().err
    assert not target.exists()


def tiny_parts(*, memory: int = 2, clip: int = 16, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Denoiser and projection under the authors' names."""
    config = dataclasses.replace(
        TINY, anchor_frames=0, in_channels=32, memory_frames=memory, clip_frames=clip, **changes
    )
    projection = AudioProjection(dataclasses.replace(AUDIO_PROJECTION["base"], hidden_size=8, tokens=2))
    theirs = convert.dit_to_official(random_dit(config).state_dict(), config)
    return theirs, convert.projection_to_official(projection.state_dict())


@pytest.mark.parametrize("layout", ["lightning", "compiled", "bare", "safetensors"])
def test_files_of_training_frameworks_give_the_weights_of_plain_ones(layout: str, tmp_path: Path) -> None:
    (dit, projection), (other, _) = tiny_parts(), tiny_parts()
    path = tmp_path / f"a.{'safetensors' if layout == 'safetensors' else 'ckpt'}"
    flat = {f"ema.{k}": v for k, v in dit.items()} | {f"model.{k}": v for k, v in other.items()}
    flat |= {f"audioproj.{k}": v for k, v in projection.items()}
    if layout == "lightning":
        torch.save({"state_dict": flat, "epoch": 3, "optimizer_states": [{"state": {0: torch.zeros(2)}}]}, path)
    elif layout == "compiled":
        inner = {k.replace("blocks.0.", "blocks.0._orig_mod."): v for k, v in dit.items()}
        ema = {f"_orig_mod.module.{k}": v for k, v in inner.items()}
        torch.save({"ema": ema, "audioproj": {f"_orig_mod.{k}": v for k, v in projection.items()}}, path)
    elif layout == "bare":
        torch.save({"state_dict": dit, "opt": {"state": {"x": torch.zeros(2)}}}, path)
    else:
        save_file(flat, str(path))
    found = convert.load_official(path, num_heads=2)
    assert equal(found.dit, convert.dit_from_official(dit))
    if layout == "bare":
        assert found.projection is None
    else:
        assert equal(found.projection, convert.projection_from_official(projection))
    if layout in ("lightning", "safetensors"):
        raw = convert.load_official(path, num_heads=2, weights="model")
        assert equal(raw.dit, convert.dit_from_official(other))


@pytest.mark.parametrize(
    ("rows", "changes", "expected"),
    [
        ((2, 16), {}, (2, 16)),
        ((4, 16), {}, (4, 16)),  # the clip of the paper, whatever the memory
        ((2, 4), {}, (2, 4)),
        ((2, 18), {"memory_frames": 2}, (2, 18)),
        ((8, 12), {"clip_frames": 12}, (8, 12)),
    ],
)
def test_the_rows_of_the_time_table_divide_as_told_or_by_the_papers_clip(
    rows: tuple[int, int], changes: dict[str, int], expected: tuple[int, int], tmp_path: Path
) -> None:
    dit, _ = tiny_parts(memory=rows[0], clip=rows[1])
    torch.save({"ema": dit}, tmp_path / "a.pt")
    found = convert.load_official(tmp_path / "a.pt", num_heads=2, **changes)
    assert (found.dit_config.memory_frames, found.dit_config.clip_frames) == expected
    assumed = f"taken as {expected[0]} memory frames and {expected[1]} of a clip (otherwise: --memory-frames"
    assert any(assumed in note for note in found.notes) == (not changes)


@pytest.mark.parametrize("changes", [{"memory_frames": 20}, {"memory_frames": 2, "clip_frames": 16}])
def test_frames_that_the_time_table_has_no_rows_for_are_refused(changes: dict[str, int], tmp_path: Path) -> None:
    dit, _ = tiny_parts(memory=4)
    torch.save({"ema": dit}, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="time table has 20 rows.*--memory-frames.*--clip-frames"):
        convert.load_official(tmp_path / "a.pt", num_heads=2, **changes)


def test_what_cannot_work_is_named_when_converting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def command(state: dict[str, Tensor]) -> tuple[int, str]:
        torch.save({"ema": state}, tmp_path / "a.pt")
        code = main(["convert", str(tmp_path / "a.pt"), "-o", str(tmp_path / "a.safetensors"), "--num-heads", "2"])
        return code, capsys.readouterr().err

    four, _ = tiny_parts()
    four |= {"x_embedder.proj.weight": torch.zeros(32, 4, 2, 2), "blocks.0.mlp.fc1.weight": torch.zeros(128, 32)}
    code, message = command(four)
    assert code == 2 and "softmax / SD-VAE family (4 latent channels, patches of 2)" in message
    config = dataclasses.replace(TINY, anchor_frames=0, prediction="epsilon")
    code, message = command(convert.dit_to_official(random_dit(config).state_dict(), config))
    assert code == 0 and "warning: the denoiser takes 4 latent channels" in message and "32, 64" in message
