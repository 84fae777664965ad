from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from letstalk_core.errors import CheckpointError, ConfigError
from letstalk_core.networks.audio_encoder import (
    AudioEncoder,
    load_wav2vec2_folder,
    normalise_waveform,
    save_audio_encoder,
    wav2vec2_keys,
)
from letstalk_core.networks.checkpoint import load_into, load_tensors, read_header
from letstalk_core.networks.wav2vec2_files import infer_wav2vec2_config, load_wav2vec2_file

from .conftest import SMALL, small


def reference(**changes: Any) -> Any:
    """Hugging Face's CTC model, whose files are the public ones."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(1)
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in {**SMALL, **changes}.items()}
    return Wav2Vec2ForCTC(Wav2Vec2Config(**values, vocab_size=8)).eval()


def test_sizes_are_those_of_wav2vec2_base() -> None:
    encoder = small()
    assert (encoder.hop, encoder.receptive_field) == (320, 400)
    for samples in (400, 719, 720, 16000):
        assert encoder.conv_features(torch.randn(1, samples)).shape[1] == encoder.conv_length(samples)


def test_sound_shorter_than_the_receptive_field_is_padded() -> None:
    encoder = small()
    assert encoder.conv_length(1) == 1
    assert torch.isfinite(encoder.features(torch.randn(1), 1)).all()


def test_gradients_reach_the_first_convolution_and_training_mode_is_deterministic() -> None:
    encoder = small().train()
    waveform = torch.randn(1, 4000)
    loss = encoder(waveform, 6).pow(2).mean()
    loss.backward()
    assert encoder.feature_extractor.conv_layers[0].conv.weight.grad.abs().sum() > 0  # type: ignore[index,union-attr]
    torch.testing.assert_close(encoder(waveform, 6), encoder.eval()(waveform, 6))


def test_features_normalise_loudness_and_offset_away() -> None:
    encoder = small()
    waveform = torch.randn(4000)
    changed = encoder.features(0.5 * waveform + 0.1, 6)
    torch.testing.assert_close(encoder.features(waveform, 6), changed, rtol=1e-3, atol=1e-4)


def test_double_precision_sound_becomes_float_before_it_moves_to_the_device() -> None:
    class WithoutDoubles(TorchFunctionMode):
        """As a device such as MPS."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is Tensor.to and args[0].dtype == torch.float64:
                raise TypeError("the device has no float64")
            return func(*args, **(kwargs or {}))

    encoder, waveform = small(), torch.randn(4000)
    with WithoutDoubles():
        found = encoder.features(waveform.double(), 6)
    torch.testing.assert_close(found, encoder.features(waveform, 6))


def test_batched_recordings_do_not_influence_each_other() -> None:
    encoder = small()
    waveform = torch.randn(2, 4000)
    with torch.no_grad():
        torch.testing.assert_close(encoder(waveform, 6)[1:], encoder(waveform[1:], 6), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "frames", "message"),
    [((100,), 4, "batch, samples"), ((1, 1, 100), 4, "batch, samples"), ((1, 1000), 0, "frames=0")],
)
def test_what_is_no_batch_of_waveforms_is_refused(shape: tuple[int, ...], frames: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small()(torch.zeros(shape), frames)


def _folder(path: Path, tensors: dict[str, Tensor], pickled: bool = False, **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in SMALL.items()}
    (path / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "vocab_size": 8, **values, **config}))
    if pickled:
        torch.save(tensors, path / "pytorch_model.bin")
    else:
        save_file({k: v.contiguous() for k, v in tensors.items()}, path / "model.safetensors")
    return path


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_a_public_folder_loads_with_old_and_new_names(tmp_path: Path, pickled: bool, old: bool) -> None:
    theirs = reference()
    tensors = theirs.state_dict()
    if old:
        body = wav2vec2_keys(tensors, old_weight_norm=True)
        assert any(k.endswith("weight_g") for k in body)
        tensors = {f"wav2vec2.{k}": v for k, v in body.items()} | {"wav2vec2.masked_spec_embed": torch.zeros(32)}
    encoder = load_wav2vec2_folder(_folder(tmp_path / "m", tensors, pickled))
    waveform = torch.randn(1, 4000)
    with torch.no_grad():
        expected = theirs.wav2vec2(waveform).last_hidden_state
        torch.testing.assert_close(encoder(waveform, 12)[:, :, -1], expected, rtol=1e-5, atol=1e-5)


def test_an_exported_encoder_loads_from_our_own_format(tmp_path: Path) -> None:
    encoder = small()
    save_audio_encoder(tmp_path / "audio_encoder.safetensors", encoder)
    name, config = read_header(tmp_path / "audio_encoder.safetensors").part("audio_encoder")
    other = AudioEncoder(config).eval()
    load_into(other, load_tensors(tmp_path / "audio_encoder.safetensors", prefix=f"{name}."), "file")
    torch.testing.assert_close(other.features(torch.ones(900), 2), encoder.features(torch.ones(900), 2))


def test_damaged_and_foreign_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    tensors = reference().state_dict()
    cases = {
        "config.json": tmp_path / "missing",
        "hubert": _folder(tmp_path / "hubert", tensors, model_type="hubert"),
        "relu": _folder(tmp_path / "relu", tensors, hidden_act="relu"),
        "hidden_size": _folder(tmp_path / "width", tensors, hidden_size=33),
        "wrong shape": _folder(tmp_path / "shape", tensors, hidden_size=64),
        "missing": _folder(tmp_path / "part", {"wav2vec2.encoder.layer_norm.bias": torch.zeros(32)}),
        "no dictionary": _folder(tmp_path / "number", {"a": 1}, pickled=True),  # type: ignore[dict-item]
    }
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "config.json").write_text("{")
    cases["cannot be read"] = tmp_path / "json"
    empty = _folder(tmp_path / "empty", tensors)
    (empty / "model.safetensors").unlink()
    cases["has no model.safetensors"] = empty
    for message, folder in cases.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            load_wav2vec2_folder(folder)
        assert "\n" not in str(caught.value)


# models in one file

BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def public_model(hidden_size: int = 768, **changes: Any) -> Any:
    """A random model with the width of a public one, but few layers and narrow convolutions."""
    heads = {768: 12, 1024: 16}.get(hidden_size, 4)
    shape = {"hidden_size": hidden_size, "num_attention_heads": heads, "num_hidden_layers": 2}
    return reference(**shape, conv_dim=[32] * 7, num_conv_pos_embedding_groups=16, **changes).wav2vec2


def write_file(path: Path, model: Any, prefix: str = "", old: bool = False) -> Path:
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
    model = public_model(width, **changes)
    encoder = load_wav2vec2_file(write_file(tmp_path / "w2v.safetensors", model, prefix, old))
    waveform = torch.randn(16000)
    with torch.no_grad():
        expected = model(normalise_waveform(waveform)[None], output_hidden_states=True)
        found = encoder.features(waveform, 49)  # its own number of steps: nothing is resampled
    assert encoder.config.num_hidden_layers == 2
    torch.testing.assert_close(found[:, -1], expected.last_hidden_state[0], rtol=1e-4, atol=1e-4)  # order of sums
    torch.testing.assert_close(found[:, 0], expected.hidden_states[1][0], rtol=1e-4, atol=1e-4)


def test_a_config_beside_the_file_goes_first(tmp_path: Path) -> None:
    model = public_model(64)
    path = write_file(tmp_path / "w2v.safetensors", model)
    with pytest.raises(CheckpointError, match="hidden_size=64.*config.json"):
        load_wav2vec2_file(path)
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    assert load_wav2vec2_file(path).config.num_attention_heads == 4


def test_another_models_config_beside_the_file_is_left_alone(tmp_path: Path) -> None:
    path = write_file(tmp_path / "w2v.safetensors", public_model())
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    assert load_wav2vec2_file(path).config.hidden_size == 768


def test_a_file_of_something_else_is_named() -> None:
    with pytest.raises(CheckpointError, match="some.safetensors: is not a wav2vec2 model"):
        infer_wav2vec2_config({"model.encoder.conv1.weight": torch.zeros(1)}, "some.safetensors")
