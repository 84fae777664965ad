"""Single-file wav2vec2 models against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from letstalk_core.errors import CheckpointError
from letstalk_core.networks.audio_encoder import normalise_waveform, wav2vec2_keys
from letstalk_core.networks.wav2vec2_files import infer_wav2vec2_config, load_wav2vec2_file

BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def reference(hidden_size: int = 768, **changes: Any) -> Any:
    """A random model with the width of a public one, but few layers and narrow convolutions."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads={768: 12, 1024: 16}.get(hidden_size, 4),
        intermediate_size=64,
        conv_dim=[32] * 7,
        num_conv_pos_embeddings=16,
        **changes,
    )
    return transformers.Wav2Vec2Model(config).eval()


def write(path: Path, model: Any, prefix: str = "", old: bool = False) -> Path:
    tensors = {k: v.clone().contiguous() for k, v in model.state_dict().items()}
    if old:
        tensors = wav2vec2_keys(tensors, old_weight_norm=True)
    save_file({prefix + k: v for k, v in tensors.items()} | {"lm_head.weight": torch.zeros(1)}, path)
    return path


@pytest.mark.parametrize(
    "width, changes, prefix, old",
    [(768, BASE, "", False), (768, BASE, "wav2vec2.", True), (1024, LARGE, "wav2vec2.", False)],
)
def test_a_single_file_gives_the_states_of_transformers(
    width: int, changes: dict[str, Any], prefix: str, old: bool, tmp_path: Path
) -> None:
    model = reference(width, **changes)
    encoder = load_wav2vec2_file(write(tmp_path / "w2v.safetensors", model, prefix, old))
    waveform = torch.randn(16000)
    with torch.no_grad():
        expected = model(normalise_waveform(waveform)[None], output_hidden_states=True)
        found = encoder.features(waveform, 49)  # its own number of steps: nothing is resampled
    assert encoder.config.num_hidden_layers == 2
    torch.testing.assert_close(found[:, -1], expected.last_hidden_state[0], rtol=1e-4, atol=1e-4)  # order of sums
    torch.testing.assert_close(found[:, 0], expected.hidden_states[1][0], rtol=1e-4, atol=1e-4)


def test_a_config_beside_the_file_goes_first(tmp_path: Path) -> None:
    model = reference(64)
    path = write(tmp_path / "w2v.safetensors", model)
    with pytest.raises(CheckpointError, match="hidden_size=64.*config.json"):
        load_wav2vec2_file(path)
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    assert load_wav2vec2_file(path).config.num_attention_heads == 4


def test_another_models_config_beside_the_file_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "w2v.safetensors", reference())
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    assert load_wav2vec2_file(path).config.hidden_size == 768


def test_a_file_of_something_else_is_named() -> None:
    with pytest.raises(CheckpointError, match="some.safetensors: is not a wav2vec2 model"):
        infer_wav2vec2_config({"model.encoder.conv1.weight": torch.zeros(1)}, "some.safetensors")
