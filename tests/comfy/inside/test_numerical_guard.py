"""NaN and infinity put into every stage inside ComfyUI: cured in float32, or an error that names the stage."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_setup import DEMO_FOLDER
from sampling_setup import prepare, temp_files

FOREVER = 10**9
# As a file: the root of the repository is never on sys.path here.
SPOIL = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "passes.py"))["spoil"]
STAGES: dict[str, tuple[Any, int, str]] = {  # layer, calls of it before the bad one, message
    "audio projection": (lambda kit: network(kit).audio_projection.norm, 1, r"clip 2 of 3: the audio projection"),
    "step": (lambda kit: network(kit).final, 3, r"clip 2 of 3: the model returned"),
    "decoding": (lambda kit: kit.vae.first_stage_model.decoder, 2, r"clip 2 of 3: the autoencoder gave"),
}


def network(kit: Any) -> Any:
    return kit.patcher.model.diffusion_model


@pytest.fixture
def spoil() -> Iterator[Callable[..., None]]:
    """`spoil(layer, first, how, count)`: so many results hold a bad number, from call `first` (0-based) on."""
    hooks: list[Any] = []
    yield lambda layer, first, how, count=FOREVER: hooks.append(SPOIL(layer, first, how, False, count))
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("how", ["nan", "inf"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_stays_bad_is_named_and_leaves_no_file(
    kit: Any, base: Path, spoil: Any, stage: str, how: str
) -> None:
    layer, first, message = STAGES[stage]
    run, before = prepare(kit, 37, steps=2), temp_files(base)
    spoil(layer(kit), first, how)
    with pytest.raises(kit.errors.NumericalError, match=message + r".*NaN.*float32"):
        kit.render.render_video(run, kit.vae, node_id="bad")
    assert temp_files(base) <= before
    assert run.bank.clips_written == 1


@pytest.mark.parametrize("stage", STAGES)
def test_an_accident_is_repaired_without_a_trace(kit: Any, spoil: Any, stage: str, caplog: Any) -> None:
    layer, first, _ = STAGES[stage]
    clean = kit.render.render_video(prepare(kit, 37, steps=2), kit.vae, node_id="a", images="all frames")
    spoil(layer(kit), first, "nan", count=1)
    found = kit.render.render_video(prepare(kit, 37, steps=2), kit.vae, node_id="a", images="all frames")
    torch.testing.assert_close(found.images, clean.images, atol=2e-3, rtol=0)
    assert "again in float32" in caplog.text


@pytest.mark.parametrize("count", [1, FOREVER])
def test_audio_features(kit: Any, sub: Any, spoil: Any, count: int) -> None:
    audio = sub("nodes.adapters.audio")
    encoder = audio.load_audio_encoder(DEMO_FOLDER / "audio_encoder.safetensors")
    sound = {"waveform": 0.1 * torch.randn(1, 1, 16_000), "sample_rate": 16_000}
    cut = {"fps": 25.0, "silence_threshold": -100.0, "start_seconds": 0.0, "length_seconds": 0.0}
    clean, _ = audio.encode_audio(sound, encoder, **cut)
    spoil(encoder.model.encoder.layers[0], 0, "nan", count)
    if count == FOREVER:
        with pytest.raises(kit.errors.NumericalError, match=r"audio features of frames 0 to 24.*float32"):
            audio.encode_audio(sound, encoder, **cut)
        return
    found, _ = audio.encode_audio(sound, encoder, **cut)
    torch.testing.assert_close(found["encoded_audio"], clean["encoded_audio"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, FOREVER])
def test_encoding_of_the_portrait(kit: Any, sub: Any, spoil: Any, count: int) -> None:
    encode = sub("nodes.adapters.conditioning").encode_portrait
    picture = kit.portrait[None].float() / 255
    clean = encode(picture, kit.vae, 64, 64)["samples"]
    spoil(kit.vae.first_stage_model.encoder, 0, "inf", count)
    if count == 1:
        torch.testing.assert_close(encode(picture, kit.vae, 64, 64)["samples"], clean, atol=1e-4, rtol=1e-4)
        return
    with pytest.raises(
        kit.errors.NumericalError, match=r"vae: encoding of the portrait: gave NaN.*float32.*, too"
    ):
        encode(picture, kit.vae, 64, 64)
