"""Audio states in windows against one pass of transformers' Wav2Vec2Model over the whole sound.

Shapes are those of wav2vec2-base-960h with fewer layers. The reference re-times the convolutional features between
the two halves of the public model, as docs/model.md says, and computes in float64: in float32 the public model is
itself 4e-5 from that, four times as far as ours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from letstalk_core.media.audio.features import AudioFeatures
from letstalk_core.networks.audio_encoder import AudioEncoder, wav2vec2_keys
from letstalk_core.networks.checkpoint import load_into
from letstalk_core.networks.configs import AudioEncoderConfig

LAYERS, SECONDS, RATE = 2, 8.33, 16000
RATES = [25.0, 30.0, 24.0]
WINDOWS = {"window_seconds": 2.0, "context_seconds": 0.5}
TOLERANCE = {"rtol": 5e-5, "atol": 5e-5}
OnePass = Callable[..., Tensor]


@pytest.fixture(scope="module")
def reference() -> Any:
    """base-960h but for its depth."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(num_hidden_layers=LAYERS)  # its defaults are base-960h
    return transformers.Wav2Vec2Model(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def encoder(reference: Any) -> AudioEncoder:
    """Ours with the weights of the public model."""
    ours = AudioEncoder(AudioEncoderConfig(num_hidden_layers=LAYERS)).eval().requires_grad_(False)
    load_into(ours, wav2vec2_keys(reference.state_dict()), "memory")
    return ours


@pytest.fixture(scope="module")
def sound() -> Tensor:
    """Speech-like: pitch and loudness change, with a constant offset as cheap microphones add."""
    generator = torch.Generator().manual_seed(1)
    time = torch.arange(round(SECONDS * RATE)) / RATE
    pitch = torch.sin(6.283 * (140 + 30 * torch.sin(2 * time)) * time)
    loudness = 0.1 + torch.sin(4 * time).square() * torch.sin(0.7 * time).abs()
    return 0.3 * loudness * pitch + 0.02 * torch.randn(time.shape, generator=generator) + 0.05


@pytest.fixture(scope="module")
def one_pass(reference: Any, sound: Tensor) -> OnePass:
    """one_pass(fps, attention=True): states (frames, layers, d) of the public model over the whole sound."""
    extractor = pytest.importorskip("transformers").Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extractor(sound.numpy(), sampling_rate=RATE, return_tensors="pt").input_values
    model = copy.deepcopy(reference).double()
    features = model.feature_extractor(values.double())

    @cache
    def run(fps: float, attention: bool = True) -> Tensor:
        timed = F.interpolate(features, size=round(SECONDS * fps), mode="linear", align_corners=True)
        used = model
        if not attention:
            used = copy.deepcopy(model)
            for layer in used.encoder.layers:
                layer.attention.out_proj.weight.zero_()
        with mock.patch.object(used.feature_extractor, "forward", lambda values: timed):
            hidden = used(torch.zeros(1, 400).double(), output_hidden_states=True).hidden_states
        return torch.stack(hidden[1:], dim=2)[0].float()

    return run


@pytest.mark.parametrize("fps", RATES)
def test_states_of_a_sound_that_fits_one_window_are_those_of_one_pass(
    encoder: AudioEncoder, one_pass: OnePass, sound: Tensor, fps: float
) -> None:
    found = AudioFeatures.encode(encoder, sound, fps)
    frames = round(SECONDS * fps)
    assert found.all().shape == (frames, LAYERS, 768)
    torch.testing.assert_close(found.all(), one_pass(fps), **TOLERANCE)
    windows = found.windows(frames - 3, 5, 5)  # two of them reach beyond the end
    for i, frame in enumerate(range(frames - 3, frames + 2)):
        for j, offset in enumerate((-2, -1, 0, 1, 2)):
            state = one_pass(fps)[min(max(frame + offset, 0), frames - 1)]
            torch.testing.assert_close(windows[i, j], state, **TOLERANCE)


def test_windows_are_close_to_one_pass_and_equal_to_it_without_attention(
    encoder: AudioEncoder, one_pass: OnePass, sound: Tensor
) -> None:
    """Random weights attend to everything alike; those of speech models look near, and come closer to one pass."""
    found = AudioFeatures.encode(encoder, sound, 30.0, **WINDOWS).all()
    error = (found - one_pass(30.0)).square().mean((0, 2)).sqrt() / one_pass(30.0).std((0, 2))
    assert 1e-3 < error.max() < 0.03
    local = copy.deepcopy(encoder)
    for layer in local.encoder.layers:  # type: ignore[union-attr]
        torch.nn.init.zeros_(layer.attention.out_proj.weight)
    found = AudioFeatures.encode(local, sound, 30.0, **WINDOWS).all()
    torch.testing.assert_close(found, one_pass(30.0, attention=False), **TOLERANCE)
