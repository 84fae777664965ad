"""The bundled model, as every user meets it."""

from pathlib import Path

import pytest
import torch

from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.generate.stages import Stages
from letstalk_core.generate.talking_portrait import GenerateSettings, TalkingPortrait
from letstalk_core.media.audio.decode import WaveformSource, load_waveform
from letstalk_core.media.portrait.crop import fit_to, resize
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.portrait.likeness import compare_portrait, far_from_portrait
from letstalk_core.networks.load import ModelBundle, load_bundle
from letstalk_core.pixels import from_unit, to_unit
from letstalk_core.sampling.drift import DriftScore, drift_score

DEMO = Path(__file__).resolve().parents[2] / "letstalk_core" / "demo"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return load_bundle(None, device="cpu", dtype=torch.float32)


def test_the_bundle_is_at_most_40_megabytes() -> None:
    files = list(DEMO.rglob("*.*"))
    assert {"autoencoder.safetensors", "audio_encoder.safetensors", "dit.safetensors"} <= {f.name for f in files}
    assert sum(f.stat().st_size for f in files) <= 40 * MEGABYTE


def test_a_bundled_portrait_speaks_and_stays_itself(bundle: ModelBundle) -> None:
    portrait = load_portrait(DEMO / "portraits" / "ada.png")
    speech = torch.as_tensor(load_waveform(DEMO / "speech" / "hello.wav"))[: 16_000 * 2]
    sink = KeptFrames()
    settings = GenerateSettings(steps=4, seed=1)
    summary = TalkingPortrait(bundle).generate(portrait, WaveformSource(speech), sink, settings)
    frames = sink.video.float()
    assert summary.frames == len(frames) == 50
    difference = (frames - portrait.float()).abs().mean(-1)
    corners = torch.cat([difference[:, :24, :24], difference[:, :24, -24:]])
    assert corners.mean() < 12  # background: grey levels out of 255
    mouth = frames[:, 150:220, 85:171].mean(-1)
    brow = frames[:, 60:85, 20:60].mean(-1)
    assert mouth.std(0).mean() > 1.5 * brow.std(0).mean()  # what moves most is the mouth


@pytest.mark.parametrize("name", ["ada.png", "eva.jpg", "goro.jpg", "imani.jpg"])
def test_little_is_lost_of_the_bundled_portraits(bundle: ModelBundle, name: str) -> None:
    portrait = fit_to(load_portrait(DEMO / "portraits" / name), (256, 256))
    stages = Stages(bundle)
    with torch.no_grad():
        decoded = from_unit(stages.round_trip(stages.encode(portrait)))[0]
    score = compare_portrait(portrait, decoded).score
    assert far_from_portrait(score) is None and score > 0.4
    quarter = resize(resize(decoded, (32, 32)), (256, 256))  # as an autoencoder that never saw such faces
    assert compare_portrait(portrait, quarter).score < score / 2


def test_drift_scores_tell_persons_apart_and_bear_small_movements(bundle: ModelBundle) -> None:
    """With the bundled autoencoder: what `--drift-level 0.5` rests on."""
    pictures = {
        name: fit_to(load_portrait(DEMO / "portraits" / f"{name}.png"), (256, 256))
        for name in ("ada", "bo", "dev")
    }

    @torch.no_grad()
    def latents(image: torch.Tensor) -> torch.Tensor:
        encoded: torch.Tensor = bundle.autoencoder.encode(to_unit(image[None]))
        return encoded

    def score(image: torch.Tensor) -> DriftScore:
        return drift_score(latents(image)[:, None], portrait)

    ada = pictures["ada"]
    portrait = latents(ada)
    assert score(torch.roll(ada, 2, 1)).lowest > 0.9
    assert score(torch.roll(ada, 6, 1)).lowest > 0.5
    darker = score((0.8 * ada.float()).to(torch.uint8))
    assert darker.identity > 0.95 and darker.colour < 0.93
    assert all(score(pictures[name]).identity < 0.5 for name in ("bo", "dev"))
