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
from letstalk_core.networks.configs import AudioEncoderConfig

SMALL: dict[str, Any] = dict(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    conv_dim=(16,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "large": dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
}


def small(**changes: Any) -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(AudioEncoderConfig(**{**SMALL, **changes})).eval()


def reference(**changes: Any) -> Any:
    """Hugging Face's CTC model, whose files are the public ones."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(1)
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in {**SMALL, **changes}.items()}
    return Wav2Vec2ForCTC(Wav2Vec2Config(**values, vocab_size=8)).eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_layers_agree_with_transformers_when_frames_are_its_own_steps(variant: str) -> None:
    theirs = reference(**VARIANTS[variant])
    ours = small(**VARIANTS[variant])
    load_into(ours, wav2vec2_keys(theirs.state_dict()), "memory")
    waveform = normalise_waveform(torch.randn(2, 8000))
    with torch.no_grad():
        found = ours(waveform, ours.conv_length(8000))
        expected = theirs.wav2vec2(waveform, output_hidden_states=True)
    torch.testing.assert_close(found[:, :, -1], expected.last_hidden_state, rtol=1e-5, atol=1e-5)
    for layer in range(2):  # of the last layer, transformers 4 and 5 report different sides of the final norm
        torch.testing.assert_close(found[:, :, layer], expected.hidden_states[layer + 1], rtol=1e-5, atol=1e-5)


def test_output_has_one_state_per_frame_and_layer_for_any_number_of_frames() -> None:
    encoder = small()
    with torch.no_grad():
        for frames in (1, 2, 25, 61):
            assert encoder(torch.randn(1, 16000), frames).shape == (1, frames, 3, 32)


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
    torch.testing.assert_close(
        encoder.features(waveform, 6), encoder.features(0.5 * waveform + 0.1, 6), rtol=1e-3, atol=1e-4
    )


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


def test_digital_silence_gives_finite_states() -> None:
    assert torch.isfinite(small().features(torch.zeros(8000), 12)).all()


def test_batched_recordings_do_not_influence_each_other() -> None:
    encoder = small()
    waveform = torch.randn(2, 4000)
    with torch.no_grad():
        torch.testing.assert_close(encoder(waveform, 6)[1:], encoder(waveform[1:], 6), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [torch.zeros(100), torch.zeros(1, 1, 100)])
def test_a_waveform_of_wrong_rank_is_refused(bad: Tensor) -> None:
    with pytest.raises(ConfigError, match="batch, samples"):
        small()(bad, 4)


def test_zero_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match="frames=0"):
        small()(torch.zeros(1, 1000), 0)


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


def test_names_survive_the_way_to_old_weight_norm_and_back() -> None:
    state = small().state_dict()
    assert list(wav2vec2_keys(wav2vec2_keys(state, old_weight_norm=True))) == list(state)


def test_an_exported_encoder_loads_from_our_own_format(tmp_path: Path) -> None:
    encoder = small()
    save_audio_encoder(tmp_path / "audio_encoder.safetensors", encoder)
    name, config = read_header(tmp_path / "audio_encoder.safetensors").part("audio_encoder")
    other = AudioEncoder(config).eval()
    load_into(other, load_tensors(tmp_path / "audio_encoder.safetensors", prefix=f"{name}."), "file")
    torch.testing.assert_close(other.features(torch.ones(900), 2), encoder.features(torch.ones(900), 2))


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("never"),))  # type: ignore[return-value]


def test_damaged_and_foreign_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    tensors = reference().state_dict()
    cases = {
        "config.json": tmp_path / "missing",
        "hubert": _folder(tmp_path / "hubert", tensors, model_type="hubert"),
        "relu": _folder(tmp_path / "relu", tensors, hidden_act="relu"),
        "hidden_size": _folder(tmp_path / "width", tensors, hidden_size=33),
        "wrong shape": _folder(tmp_path / "shape", tensors, hidden_size=64),
        "missing": _folder(tmp_path / "part", {"wav2vec2.encoder.layer_norm.bias": torch.zeros(32)}),
        "plain tensors": _folder(tmp_path / "evil", {"a": _Evil()}, pickled=True),  # type: ignore[dict-item]
        "holds a list": _folder(tmp_path / "list", [1], pickled=True),  # type: ignore[arg-type]
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
