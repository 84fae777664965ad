"""Clips sampled through ComfyUI: as the standalone pipeline does it, repeatable, never spoiled by bad numbers."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from model_setup import make_setup
from sampling_setup import standalone_conditions
from torch import Tensor

FRAMES = 37  # two whole clips and a part
SIZE = 4  # latent positions along a side


def conditioning(
    kit: Any, frames: int = FRAMES, size: tuple[int, int] = (SIZE, SIZE), layers: int = 3, **values: Any
) -> Any:
    """A positive CONDITIONING with random portrait and speech."""
    generator = torch.Generator().manual_seed(frames)
    track = kit.AudioTrack(torch.randn(frames, layers, 128, generator=generator), 25.0)
    portrait = torch.randn(1, values.pop("channels", 64), 1, *size, generator=generator)
    entry = {"reference_latents": [portrait], "letstalk_audio": track, "letstalk_first_frame": 0, **values}
    return [[torch.zeros(1, 1, 1), {"letstalk_audio_gain": 1.0, "letstalk_portrait_gain": 1.0, **entry}]]


def prepare(kit: Any, positive: Any = None, **inputs: Any) -> Any:
    """A run of the demo model with few steps."""
    defaults = {"seed": 7, "steps": 2, "schedule": "model", "audio_scale": 2.0, "portrait_scale": 1.0}
    if "guider" not in inputs:
        defaults |= {"model": kit.patcher, "positive": positive if positive is not None else conditioning(kit)}
    return kit.run.prepare_run(**{**defaults, **inputs})


def latents(kit: Any, run: Any) -> Tensor:
    return kit.render.render_latents(run, None).transpose(1, 2)


def standalone(
    sub: Any, config: Any, projection: Any, positive: Any, sample: Any, frames: int, settings: Any = None
) -> Tensor:
    """The clips of a run as the standalone pipeline makes them, with seed 7."""
    long_video, count = sub("letstalk_core.sampling.long_video"), config.clip_frames
    portrait = positive[0][1]["reference_latents"][0][:, :, 0]
    bank = sub("letstalk_core.sampling.memory_bank").MemoryBank.for_model(config, settings=settings, seed=7)
    track = positive[0][1]["letstalk_audio"]
    conditions = standalone_conditions(sub, projection, track, portrait, count, 7)
    clips = long_video.generate_clips(
        sub("letstalk_core.sampling.clip").conditioned(sample, conditions),
        long_video.plan_clips(frames, count),
        portrait=portrait,
        bank=bank,
        clip_frames=count,
        seed=7,
    )
    return torch.cat([clip for _, clip in clips], dim=1)


@pytest.mark.parametrize("scales", [(2.0, 1.0), (1.5, 1.3)])
def test_latents_equal_those_of_the_standalone_pipeline(kit: Any, sub: Any, scales: tuple[float, float]) -> None:
    """Both run the same float32 network; only the order of sums in guidance and solver differs."""
    positive, bundle = conditioning(kit), sub("letstalk_core.networks.load").load_bundle()
    ours = latents(kit, prepare(kit, positive, audio_scale=scales[0], portrait_scale=scales[1]))
    pipeline = sub("letstalk_core.generate.talking_portrait")
    settings = pipeline.GenerateSettings(steps=2, seed=7, cfg_audio=scales[0], cfg_portrait=scales[1])
    settings = settings.resolve(bundle)
    sample = pipeline.TalkingPortrait(bundle).solver_sampler(settings, lambda *_: None)
    config, projection = bundle.dit.config, bundle.audio_projection
    expected = standalone(sub, config, projection, positive, sample, FRAMES, settings.memory)
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-4)


def test_two_chained_runs_equal_one_long_run_bit_for_bit(kit: Any, sub: Any, tmp_path: Any) -> None:
    whole = latents(kit, prepare(kit))
    first = prepare(kit, max_frames=16)
    start = latents(kit, first)
    first.bank.save(tmp_path / "bank.safetensors")
    loaded = sub("letstalk_core.sampling.memory_bank").MemoryBank.load(tmp_path / "bank.safetensors")
    for bank in (first.bank, loaded):
        before = copy.deepcopy(bank.state_dict())
        rest = latents(kit, prepare(kit, conditioning(kit, letstalk_first_frame=16), memory=bank))
        assert torch.equal(torch.cat([start, rest], dim=1), whole)
        assert all(
            torch.equal(torch.as_tensor(before[k]), torch.as_tensor(v)) for k, v in bank.state_dict().items()
        )


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m", "heun"])
def test_any_sampler_and_scheduler_repeat_themselves_with_other_noise_in_each_clip(kit: Any, name: str) -> None:
    sampler = comfy.samplers.sampler_object(name)
    inputs = {"sampler": sampler, "schedule": "beta", "max_frames": 32, "steps": 2}
    once = latents(kit, prepare(kit, **inputs))
    assert once.isfinite().all()
    assert torch.equal(once, latents(kit, prepare(kit, **inputs)))
    assert not torch.allclose(once[:, :16], once[:, 16:])


def test_native_guiders_and_noise_objects_work(kit: Any) -> None:
    positive = conditioning(kit)
    negative = [[positive[0][0], {**positive[0][1], "letstalk_audio_gain": 0.0}]]
    guider = comfy.samplers.CFGGuider(kit.patcher)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    kept = {name: [dict(cond) for cond in conds] for name, conds in guider.original_conds.items()}
    native = latents(kit, prepare(kit, guider=guider, max_frames=32))
    torch.testing.assert_close(native, latents(kit, prepare(kit, positive, max_frames=32)), atol=2e-4, rtol=1e-4)
    assert {name: [c.keys() for c in conds] for name, conds in guider.original_conds.items()} == {
        name: [c.keys() for c in conds] for name, conds in kept.items()
    }
    noise = Noise_RandomNoise(3)
    with_noise = latents(kit, prepare(kit, positive, max_frames=32, noise=noise))
    assert noise.seed == 3
    assert not torch.allclose(with_noise[:, :16], with_noise[:, 16:])


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_defaults_for_diffusion_models_are_those_of_the_standalone_pipeline(
    kit: Any, sub: Any, tmp_path: Any, prediction: str
) -> None:
    setup = make_setup(sub, tmp_path, prediction=prediction)
    positive = [[slot, {**values, "letstalk_first_frame": 0}] for slot, values in setup.positive]
    run = prepare(kit, positive, model=setup.patcher, steps=4, audio_scale=1.0)
    solvers, clip = sub("letstalk_core.sampling.solvers"), sub("letstalk_core.sampling.clip")
    bundle = SimpleNamespace(dit=setup.dit, pixels_per_token=32, carry=None)
    settings = sub("letstalk_core.generate.talking_portrait").GenerateSettings(steps=4).resolve(bundle)
    assert settings.solver == "dpmpp_2m"
    assert solvers.get_solver(settings.solver)
    denoiser = sub("letstalk_core.sampling.denoisers").make_denoiser(setup.dit)
    sigmas = sub("letstalk_core.sampling.schedules").make_sigmas(prediction, 4)
    sample = clip.SolverClipSampler(denoiser, settings.solver, sigmas)
    expected = standalone(sub, setup.dit.config, setup.projection, positive, sample, setup.track.frames)
    torch.testing.assert_close(latents(kit, run), expected, atol=2e-3, rtol=1e-3)


def test_the_models_own_schedule_follows_a_shift_node(kit: Any) -> None:
    patched = ModelSamplingSD3().patch(kit.patcher, 3.0)[0]
    assert prepare(kit, model=patched).sigmas.tolist() == pytest.approx([1.0, 0.75, 0.0])
    assert prepare(kit).sigmas[1].item() != pytest.approx(0.75)


class Spoiled:
    """A sampler whose result is NaN in chosen calls."""

    def __init__(self, bad: set[int]) -> None:
        self.bad, self.calls = bad, 0
        self.exact: list[bool] = []

    def __call__(self, model: Any, x: Tensor, sigmas: Tensor, **kwargs: Any) -> Tensor:
        self.calls += 1
        options = kwargs["extra_args"]["model_options"]["transformer_options"]
        computes_in = model.inner_model.inner_model.manual_cast_dtype
        self.exact.append("optimized_attention_override" in options and computes_in == torch.float32)
        result = comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, **kwargs)
        return result * float("nan") if self.calls in self.bad else result


def test_a_bad_clip_is_sampled_again_in_float32(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    spoiled = Spoiled({2})
    result = latents(kit, prepare(kit, sampler=comfy.samplers.KSAMPLER(spoiled)))
    assert spoiled.exact == [False, False, True, False]  # only the second try of clip 2 is plain
    assert "clip 2 of 3" in caplog.text
    torch.testing.assert_close(result, latents(kit, prepare(kit)), atol=1e-4, rtol=1e-4)
    assert kit.patcher.object_patches == {}


def test_whether_a_clip_is_sampled_in_float32_does_not_depend_on_the_clips_before_it(kit: Any) -> None:
    spoiled = Spoiled({1, 3, 5})
    latents(kit, prepare(kit, conditioning(kit, 5 * 16), sampler=comfy.samplers.KSAMPLER(spoiled)))
    assert spoiled.exact == [False, True, False, True, False, True, False, False]


def test_a_clip_that_stays_bad_is_an_error_with_its_cause(kit: Any) -> None:
    run = prepare(kit, sampler=comfy.samplers.KSAMPLER(Spoiled({2, 3})))
    with pytest.raises(kit.errors.NumericalError, match=r"clip 2 of 3.*NaN.*float32.*, too"):
        latents(kit, run)
    assert run.bank.clips_written == 1


def test_clips_are_counted_in_their_own_run(kit: Any) -> None:
    first = prepare(kit, max_frames=16)
    latents(kit, first)
    rest = prepare(
        kit,
        conditioning(kit, letstalk_first_frame=16),
        memory=first.bank,
        sampler=comfy.samplers.KSAMPLER(Spoiled({1, 2})),
    )
    with pytest.raises(kit.errors.NumericalError, match="clip 1 of 2"):
        latents(kit, rest)


def test_room_is_made_for_float32_before_the_model_computes_in_it(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    load = comfy.model_management.load_models_gpu

    def loaded(*args: Any, memory_required: float, **kwargs: Any) -> None:
        asked.append(memory_required)
        load(*args, memory_required=memory_required, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", loaded)
    half = kit.patcher.clone()
    half.set_model_compute_dtype(torch.bfloat16)
    latents(kit, prepare(kit, model=half, sampler=comfy.samplers.KSAMPLER(Spoiled({1})), max_frames=32))
    low, high, low_again = asked
    assert low == low_again and high > 1.5 * low


def test_not_square_pictures_and_a_single_frame_of_sound_work(kit: Any) -> None:
    assert latents(kit, prepare(kit, conditioning(kit, 1, (4, 6)))).shape == (1, 1, 64, 4, 6)


def test_inputs_that_do_not_fit_are_named(kit: Any) -> None:
    def fails(match: str, **inputs: Any) -> None:
        with pytest.raises(kit.errors.ConfigError, match=match):
            prepare(kit, **inputs)

    fails("guider, or model and positive", model=None)
    fails("model.*LetsTalk", model=SimpleNamespace(model=torch.nn.Linear(1, 1)))
    fails("layers", positive=conditioning(kit, layers=4))
    fails("4 latent channels.*64", positive=conditioning(kit, channels=4))
    fails("first_frame=37", positive=conditioning(kit, letstalk_first_frame=37))
    fails("guider", guider=object())
    fails("schedule", schedule="none of these")
    fails("sigmas", sigmas=torch.tensor([]))
    bank = prepare(kit, max_frames=1)
    latents(kit, bank)
    fails("channels", positive=conditioning(kit, size=(4, 6)), memory=bank.bank)
    settings = kit.run.BankSettings(recent_frames=3)
    fails("recent", memory=bank.bank, memory_settings=settings)
    assert prepare(kit, memory_settings=settings).bank.recent == 3
