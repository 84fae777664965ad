"""Audio encoders, ours and ComfyUI's, and what they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import pytest
import torch
from graph_setup import DEMO_FOLDER
from safetensors.torch import save_file


@pytest.fixture
def adapter(sub: Any) -> Any:
    return sub("nodes.adapters.audio")


@pytest.fixture
def encoder(adapter: Any) -> Any:
    return adapter.load_audio_encoder(DEMO_FOLDER / "audio_encoder.safetensors")


def make_audio(seconds: float = 2.0, rate: int = 16000, channels: int = 1) -> dict[str, Any]:
    time = torch.arange(round(seconds * rate)) / rate
    wave = 0.3 * torch.sin(6.283 * 220 * time) * torch.sin(5 * time) + 0.01 * torch.randn(len(time))
    return {"waveform": wave.repeat(1, channels, 1), "sample_rate": rate}


class LazyAudio(Mapping[str, Any]):
    """AUDIO as video loaders of other packs give it: decoded when it is first asked for."""

    def __init__(self, audio: dict[str, Any] | None) -> None:
        self.audio = audio

    def __getitem__(self, key: str) -> Any:
        if self.audio is None:
            raise RuntimeError("Output file does not contain any stream")
        return self.audio[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("waveform", "sample_rate"))

    def __len__(self) -> int:
        return 2


SETTINGS = {"fps": 25.0, "silence_threshold": -100.0, "start_seconds": 0.0, "length_seconds": 0.0}


def native_wav2vec2(layers: int = 2) -> Any:
    """ComfyUI's own base-sized wav2vec2 with fewer layers and random weights."""
    from comfy.audio_encoders.audio_encoders import AudioEncoderModel

    shape = {"embed_dim": 768, "num_heads": 12, "num_layers": layers, "conv_norm": False, "conv_bias": False}
    switches = {"do_normalize": False, "do_stable_layer_norm": False}
    encoder = AudioEncoderModel({"model_type": "wav2vec2", **shape, **switches})
    for parameter in encoder.model.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.02 if parameter.ndim > 1 else torch.ones(parameter.shape))
    return encoder


def test_a_sound_may_be_any_mapping(comfy_nodes: Any, encoder: Any, sub: Any) -> None:
    node, audio = comfy_nodes["LetsTalkEncodeAudio"], make_audio(1.0)
    lazy = node.execute(LazyAudio(audio), audio_encoder=encoder, **SETTINGS).args
    plain = node.execute(audio, audio_encoder=encoder, **SETTINGS).args
    assert torch.equal(lazy[0]["encoded_audio"], plain[0]["encoded_audio"]) and lazy[1] == plain[1] == 25
    assert torch.equal(lazy[2]["waveform"], plain[2]["waveform"])
    with pytest.raises(
        sub("letstalk_core.errors").MediaError, match="audio: its sound cannot be read .*any stream"
    ):
        node.execute(LazyAudio(None), audio_encoder=encoder, **SETTINGS)


def test_states_equal_those_of_the_library(adapter: Any, encoder: Any) -> None:
    audio = make_audio()
    output, frames = adapter.encode_audio(audio, encoder, **SETTINGS)
    expected = encoder.model.features(audio["waveform"][0, 0], 50)
    track = output["letstalk_track"]
    assert frames == track.frames == 50 and (track.layers, track.dim) == (3, 128)
    torch.testing.assert_close(track.states, expected, rtol=1e-3, atol=1e-3)  # group norm from its own statistics
    assert output["audio_samples"] == 32000
    assert torch.equal(output["encoded_audio"], output["encoded_audio_all_layers"][-1])
    assert tuple(output["encoded_audio"].shape) == (1, 50, 128)
    assert torch.equal(track.waveform, audio["waveform"][0])


def test_as_the_authors_do_every_started_frame_counts_and_zeros_follow(
    encoder: Any, sub: Any, comfy_nodes: dict[str, Any]
) -> None:
    node, audio = comfy_nodes["LetsTalkEncodeAudio"], make_audio(0.65)  # 16.25 frames
    output, frames, _ = node.execute(audio, audio_encoder=encoder, as_authors=True, **SETTINGS).args
    track = output["letstalk_track"]
    source = sub("letstalk_core.media.audio.decode").WaveformSource(audio["waveform"][0], 16000)
    padded = sub("letstalk_core.media.audio.padding").PaddedSource(source, 25.0, 16)
    expected = torch.cat(list(sub("letstalk_core.media.audio.features").encode_audio(encoder.model, padded, 25.0)))
    assert frames == track.frames == 17 and len(track.states) == 32
    torch.testing.assert_close(track.states, expected)  # as the standalone pipeline hears it
    assert torch.equal(track.windows(16, 16, 1)[:, 0], track.states[16:])  # a clip sees the zeros behind the end
    assert torch.equal(track.waveform, audio["waveform"][0])
    for wrong in ({"audio_encoder": object()}, {"encoder_output": output}):
        with pytest.raises(sub("letstalk_core.errors").ConfigError, match="^as_authors: needs"):
            node.execute(audio, as_authors=True, **wrong, **SETTINGS)


def test_the_native_node_accepts_our_encoder_and_ours_its_output(
    adapter: Any, encoder: Any, comfy_nodes: dict[str, Any]
) -> None:
    audio = make_audio(3.0, 44100, 2)
    native = comfy_nodes["AudioEncoderEncode"].execute(encoder, audio).args[0]
    direct, _ = adapter.encode_audio(audio, encoder, **SETTINGS)
    cut = {"fps": 25.0, "start_seconds": 0.0, "length_seconds": 0.0}
    again, frames = adapter.reuse_output(native, audio, **cut)
    assert frames == 75
    torch.testing.assert_close(again["letstalk_track"].states, direct["letstalk_track"].states)
    part, frames = adapter.reuse_output(native, audio, fps=25.0, start_seconds=1.0, length_seconds=1.0)
    assert frames == 25 and part["letstalk_track"].waveform.shape == (2, 44100)
    torch.testing.assert_close(part["letstalk_track"].states, direct["letstalk_track"].states[25:50])
    assert {o["letstalk_track"].encoder_file for o in (native, direct, again)} == {encoder.path}
    with pytest.raises(ValueError, match="encoder_output: was made of 3.00 s"):
        adapter.reuse_output(native, make_audio(1.0), **cut)


def test_start_and_length_cut_before_encoding(adapter: Any, encoder: Any) -> None:
    audio = make_audio(3.0)
    part = {"waveform": audio["waveform"][..., 8000:24000], "sample_rate": 16000}
    expected, _ = adapter.encode_audio(part, encoder, **SETTINGS)
    found, frames = adapter.encode_audio(
        audio, encoder, **{**SETTINGS, "start_seconds": 0.5, "length_seconds": 1.0}
    )
    assert frames == 25
    assert torch.equal(found["letstalk_track"].states, expected["letstalk_track"].states)


@pytest.mark.parametrize("through", ["audio_encoder", "encoder_output"])
def test_the_sound_is_that_of_the_frames_and_not_gated(
    encoder: Any, comfy_nodes: dict[str, Any], through: str
) -> None:
    audio = make_audio(3.0, 44100, 2)
    audio["waveform"][..., 60000:90000] = 1e-4
    values = {"audio_encoder": encoder}
    if through == "encoder_output":
        values = {"encoder_output": comfy_nodes["AudioEncoderEncode"].execute(encoder, audio).args[0]}
    settings = {**SETTINGS, "silence_threshold": -60.0, "start_seconds": 0.5, "length_seconds": 1.01}
    output, frames, sound = comfy_nodes["LetsTalkEncodeAudio"].execute(audio, **values, **settings).args
    assert frames == 25 and sound["sample_rate"] == 44100
    assert torch.equal(sound["waveform"], audio["waveform"][..., 22050 : 22050 + 44100])
    assert output["letstalk_track"].start_seconds == 0.5


def test_pauses_are_gated_for_the_encoder_but_not_in_the_sound(adapter: Any, encoder: Any) -> None:
    audio = make_audio(3.0)
    audio["waveform"][..., 16000:32000] = 1e-4 * torch.randn(16000)
    found, _ = adapter.encode_audio(audio, encoder, **{**SETTINGS, "silence_threshold": -60.0})
    plain, _ = adapter.encode_audio(audio, encoder, **SETTINGS)
    assert torch.equal(found["letstalk_track"].waveform, audio["waveform"][0])
    assert not torch.equal(found["letstalk_track"].states, plain["letstalk_track"].states)


def test_a_quiet_recording_is_heard_as_loud_speech_unless_it_is_to_be_heard_as_recorded(
    comfy_nodes: dict[str, Any], encoder: Any
) -> None:
    loud = make_audio(2.0)
    quiet = {**loud, "waveform": 0.02 * loud["waveform"]}
    settings = {**SETTINGS, "silence_threshold": -40.0, "audio_encoder": encoder}

    def heard(audio: dict[str, Any], **more: bool) -> torch.Tensor:
        output, _, sound = comfy_nodes["LetsTalkEncodeAudio"].execute(audio, **settings, **more).args
        assert torch.equal(sound["waveform"], audio["waveform"])
        states: torch.Tensor = output["letstalk_track"].states
        return states

    torch.testing.assert_close(heard(quiet), heard(loud), rtol=1e-2, atol=1e-2)
    as_recorded = heard(quiet, normalize=False) - heard(loud, normalize=False)
    assert as_recorded.abs().mean() > 0.1, "all of it lies below the threshold"


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_a_native_wav2vec2_is_timed_to_frames(adapter: Any, fps: float, sub: Any) -> None:
    encoder, audio = native_wav2vec2(), make_audio(2.0)
    output, frames = adapter.encode_audio(audio, encoder, **{**SETTINGS, "fps": fps})
    track = output["letstalk_track"]
    assert frames == 2 * fps and (track.layers, track.dim) == (2, 768)
    native = encoder.encode_audio(audio["waveform"], 16000)
    states = torch.stack([layer[0] for layer in native["encoded_audio_all_layers"][1:]], 1)
    expected = sub("letstalk_core.media.audio.alignment").resample_states(states, frames)
    torch.testing.assert_close(track.states, expected, rtol=1e-3, atol=1e-3)
    cut = {"fps": fps, "start_seconds": 0.0, "length_seconds": 0.0}
    again, _ = adapter.reuse_output(native, audio, **cut)
    torch.testing.assert_close(again["letstalk_track"].states, expected, rtol=1e-3, atol=1e-3)


def test_long_sound_goes_through_a_native_encoder_in_windows(
    adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Positions:
        """Its states are the times of its steps, so that every frame must get its own."""

        longest = 0

        def encode_audio(self, waveform: torch.Tensor, rate: int) -> dict[str, Any]:
            self.longest = max(self.longest, waveform.shape[-1])
            steps = (waveform.shape[-1] - 400) // 320 + 1
            times = waveform[0, 0, 200 : 200 + 320 * steps : 320]
            return {"encoded_audio_all_layers": (times[None, :, None],) * 2}

    encoder = Positions()
    monkeypatch.setattr(adapter, "WINDOW_SECONDS", 2.0)
    monkeypatch.setattr(adapter, "CONTEXT_SECONDS", 0.5)
    ramp = torch.arange(10 * 16000) / 160000.0
    audio = {"waveform": ramp[None, None], "sample_rate": 16000}
    output, frames = adapter.encode_audio(audio, encoder, **SETTINGS)
    found = output["letstalk_track"].states[:, 0, 0] * 160000
    expected = torch.arange(250) * 640 + 200.0
    assert frames == 250 and encoder.longest < 4 * 16000
    assert (found - expected).abs().max() < 1


@pytest.mark.parametrize("steps", [1500, 0])
def test_an_encoder_of_another_kind_is_named_with_what_it_gave(adapter: Any, steps: int) -> None:
    class Whisper:
        def encode_audio(self, waveform: torch.Tensor, rate: int) -> dict[str, Any]:
            layers = (torch.zeros(1, steps, 1280),) * 33
            return {"encoded_audio_all_layers": layers if steps else ()}

    with pytest.raises(ValueError, match="audio_encoder: gave (33 layers|no layers).*wav2vec2"):
        adapter.encode_audio(make_audio(), Whisper(), **SETTINGS)


@pytest.mark.parametrize(
    "waveform, changes, words",
    [
        (None, {}, "audio: there is no sound"),  # as of a video without any
        (torch.zeros(2, 1, 16000), {}, "audio: .*batch"),
        (torch.zeros(1, 1, 100), {}, "audio: 100 samples"),
        (torch.full((1, 1, 16000), torch.nan), {}, "audio: has NaN"),
        (torch.zeros(1, 1, 16000), {"start_seconds": 1.0}, "start_seconds: 1 s"),
        (torch.zeros(1, 1, 16000), {"length_seconds": 0.01}, "length_seconds"),
    ],
)
def test_unusable_sound_is_named(adapter: Any, encoder: Any, waveform: Any, changes: Any, words: str) -> None:
    audio = None if waveform is None else {"waveform": waveform, "sample_rate": 16000}
    with pytest.raises(Exception, match=words):
        adapter.encode_audio(audio, encoder, **{**SETTINGS, **changes})


def test_surround_becomes_mono(adapter: Any, encoder: Any) -> None:
    output, _ = adapter.encode_audio(make_audio(1.0, channels=6), encoder, **SETTINGS)
    assert output["letstalk_track"].waveform.shape == (1, 16000)


def test_a_cancelled_prompt_stops_between_windows(adapter: Any, encoder: Any) -> None:
    mm.interrupt_current_processing(True)
    with pytest.raises(mm.InterruptProcessingException):
        adapter.encode_audio(make_audio(), encoder, **SETTINGS)


def test_a_public_single_file_loads(adapter: Any, tmp_path: Path) -> None:
    import transformers

    shape = {"conv_dim": [32] * 7, "num_hidden_layers": 1, "intermediate_size": 64, "num_conv_pos_embeddings": 16}
    model = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**shape))
    save_file({f"wav2vec2.{k}": v.clone() for k, v in model.state_dict().items()}, tmp_path / "w.safetensors")
    encoder = adapter.load_audio_encoder(tmp_path / "w.safetensors")
    output = encoder.encode_audio(**{k: v for k, v in make_audio(1.0).items()})
    assert output["letstalk_track"].dim == 768


def test_all_of_it_is_where_it_was_loaded_when_comfyui_loads_in_part(encoder: Any) -> None:
    """Plain layers cannot fetch what stays behind. A weight norm would leave the bias beside it."""
    encoder.patcher.load(torch.device("meta"), lowvram_model_memory=2 * encoder.patcher.model_size())
    assert {t.device.type for t in encoder.model.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("cured", [True, False])
def test_a_native_encoder_that_gives_nan_is_run_again_in_float32(adapter: Any, sub: Any, cured: bool) -> None:
    encoder, audio = native_wav2vec2(), make_audio(1.0)
    clean, _ = adapter.encode_audio(audio, encoder, **SETTINGS)
    original = encoder.model

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        states, layers = output
        bad = module is original or not cured
        return (states, tuple(layer * float("nan") for layer in layers)) if bad else None

    original.register_forward_hook(spoil)
    if cured:
        found, _ = adapter.encode_audio(audio, encoder, **SETTINGS)
        torch.testing.assert_close(found["encoded_audio"], clean["encoded_audio"], atol=1e-4, rtol=1e-4)
        assert encoder.model is original
    else:
        with pytest.raises(sub("letstalk_core.errors").NumericalError, match="audio encoder gave NaN"):
            adapter.encode_audio(audio, encoder, **SETTINGS)
