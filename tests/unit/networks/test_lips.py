"""Lips by sound: windows and runs of frames, reach, range, refusals."""

from __future__ import annotations

from pathlib import Path

import torch

from letstalk_core.media.audio.alignment import SAMPLE_RATE
from letstalk_core.media.audio.features import AudioFeatures
from letstalk_core.networks.configs import LipsConfig
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.load import DEMO_FOLDER, load_model
from letstalk_core.networks.motion_channels import LIPS

CONFIG = LipsConfig(layers=2, encoder_dim=8, hidden_size=16)


def network() -> Lips:
    """Weights of chance, and states that are not yet normal."""
    torch.manual_seed(0)
    lips = Lips(CONFIG)
    lips.init_weights()
    lips.mean.normal_()
    lips.std.uniform_(0.5, 2)
    return lips.eval()


def states(frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, frames, CONFIG.layers, CONFIG.encoder_dim, generator=torch.Generator().manual_seed(seed))


def test_a_run_of_frames_gives_what_their_windows_give_one_by_one() -> None:
    lips, run = network(), states(20)
    found = lips.curves(run)
    assert found.shape == (2, 20 - lips.window + 1, len(LIPS)) and found.dtype == torch.float32
    windows = run.unfold(1, lips.window, 1).movedim(-1, 2)
    for i in range(found.shape[1]):
        torch.testing.assert_close(lips(windows[:, i]), found[:, i].clamp(0, 1))


def test_a_frame_depends_on_its_window_to_both_ends_and_on_nothing_else() -> None:
    lips, run = network(), states(40)
    changed = run.clone()
    changed[:, 20] += 1
    moved = (lips.curves(changed) - lips.curves(run)).abs().amax((0, 2)).nonzero().flatten()
    assert moved.tolist() == list(range(20 - lips.window + 1, 21))


def test_curves_stay_in_their_range() -> None:
    lips = network()
    found = lips(100 * states(lips.window))
    assert found.min() == 0 and found.max() == 1


def test_states_are_seen_in_their_own_scale() -> None:
    """States of another mean and spread, told to the network, give the same curves."""
    lips, run = network(), states(13)
    before = lips.curves(run)
    lips.mean.mul_(3).add_(5)
    lips.std.mul_(3)
    torch.testing.assert_close(lips.curves(3 * run + 5), before, atol=1e-4, rtol=1e-4)


def test_dropout_is_for_training_alone() -> None:
    lips, run = network(), states(16)
    assert torch.equal(lips.curves(run, dropout=0.5), lips.curves(run))
    lips.train()
    assert not torch.equal(lips.curves(run, dropout=0.5), lips.curves(run))


def test_the_bundled_lips_rest_in_silence_and_open_in_speech() -> None:
    path = DEMO_FOLDER / "lips.safetensors"
    assert path.stat().st_size < 500_000
    lips, encoder = load_model(path, "lips"), load_model(DEMO_FOLDER / "audio_encoder.safetensors")
    config = encoder.config
    assert (lips.config.layers, lips.config.encoder_dim) == (config.num_hidden_layers, config.hidden_size)

    def jaw(sound: torch.Tensor | Path) -> torch.Tensor:
        features = AudioFeatures.encode(encoder, sound)
        curves: torch.Tensor = lips(features.windows(0, features.frames, lips.window))
        return curves[:, LIPS.index("jaw")]

    assert jaw(torch.zeros(2 * SAMPLE_RATE)).max() < 0.03
    speech = jaw(DEMO_FOLDER / "speech/hello.wav")
    assert speech.max() > 0.4 and speech.min() < 0.03
