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
from torch import Tensor

FRAMES = 37  # two whole clips and a part
SIZE = 4  # latent positions along a side


@pytest.fixture(scope="module")
def demo(sub: Any) -> Any:
    """The bundled model as a MODEL, and what belongs to it."""
    folder = sub("letstalk_core.networks.load").DEMO_FOLDER
    with torch.inference_mode():
        patcher = sub("nodes.adapters.model").load_dit(folder / "dit.safetensors")
    return SimpleNamespace(
        patcher=patcher,
        run=sub("nodes.adapters.clip_run"),
        render=sub("nodes.adapters.render"),
        clip_sampler=sub("nodes.adapters.clip_sampler"),
        errors=sub("letstalk_core.errors"),
        bundle=sub("letstalk_core.networks.load").load_bundle(),
        AudioTrack=sub("letstalk_core.media.audio.track").AudioTrack,
    )


def conditioning(
    demo: Any, frames: int = FRAMES, size: tuple[int, int] = (SIZE, SIZE), layers: int = 3, **values: Any
) -> Any:
    """A positive CONDITIONING with random portrait and speech."""
    generator = torch.Generator().manual_seed(frames)
    track = demo.AudioTrack(torch.randn(frames, layers, 128, generator=generator), 25.0)
    portrait = torch.randn(1, values.pop("channels", 64), 1, *size, generator=generator)
    entry = {"reference_latents": [portrait], "letstalk_audio": track, "letstalk_first_frame": 0, **values}
    return [[torch.zeros(1, 1, 1), {"letstalk_audio_gain": 1.0, "letstalk_portrait_gain": 1.0, **entry}]]


def prepare(demo: Any, positive: Any = None, **inputs: Any) -> Any:
    """A run of the demo model with few steps."""
    defaults = {"seed": 7, "steps": 2, "schedule": "model", "audio_scale": 2.0, "portrait_scale": 1.0}
    if "guider" not in inputs:
        defaults |= {"model": demo.patcher, "positive": positive if positive is not None else conditioning(demo)}
    return demo.run.prepare_run(**{**defaults, **inputs})


def latents(demo: Any, run: Any) -> Tensor:
    return demo.render.render_latents(run, None).transpose(1, 2)


@pytest.mark.parametrize("scales", [(2.0, 1.0), (1.5, 1.3)])
def test_latents_equal_those_of_the_standalone_pipeline(demo: Any, sub: Any, scales: tuple[float, float]) -> None:
    """Both run the same float32 network; only the order of sums in guidance and solver differs."""
    positive = conditioning(demo)
    ours = latents(demo, prepare(demo, positive, audio_scale=scales[0], portrait_scale=scales[1]))
    pipeline, long_video = sub("letstalk_core.generate.talking_portrait"), sub("letstalk_core.sampling.long_video")
    settings = pipeline.GenerateSettings(steps=2, seed=7, cfg_audio=scales[0], cfg_portrait=scales[1])
    settings = settings.resolve(demo.bundle)
    sample = pipeline.TalkingPortrait(demo.bundle).solver_sampler(settings, lambda *_: None)
    track, window = positive[0][1]["letstalk_audio"], demo.bundle.audio_projection.config.window
    config = demo.bundle.dit.config
    projection, count = demo.bundle.audio_projection, config.clip_frames
    moves = sub("letstalk_core.sampling.motion").Movement(projection.config.movement, seed=7)
    portrait = positive[0][1]["reference_latents"][0][:, :, 0]

    def conditions(memory: Tensor, clip: Any) -> Any:
        return sub("letstalk_core.networks.transformer.conditions").Conditions(
            portrait=portrait,
            audio=projection(track.windows(clip.first, count, window)[None]),
            memory=memory,
            movement=projection.movement_of(moves.rows(clip.first, count)[None]),
        )

    clips = long_video.generate_clips(
        sub("letstalk_core.sampling.clip").conditioned(sample, conditions),
        long_video.plan_clips(FRAMES, count),
        portrait=portrait,
        bank=sub("letstalk_core.sampling.memory_bank").MemoryBank.for_model(
            config, settings=settings.memory, seed=7
        ),
        clip_frames=config.clip_frames,
        seed=7,
    )
    torch.testing.assert_close(ours, torch.cat([clip for _, clip in clips], dim=1), atol=2e-4, rtol=1e-4)


def test_two_chained_runs_equal_one_long_run_bit_for_bit(demo: Any, sub: Any, tmp_path: Any) -> None:
    whole = latents(demo, prepare(demo))
    first = prepare(demo, max_frames=16)
    start = latents(demo, first)
    first.bank.save(tmp_path / "bank.safetensors")
    loaded = sub("letstalk_core.sampling.memory_bank").MemoryBank.load(tmp_path / "bank.safetensors")
    for bank in (first.bank, loaded):
        before = copy.deepcopy(bank.state_dict())
        rest = latents(demo, prepare(demo, conditioning(demo, letstalk_first_frame=16), memory=bank))
        assert torch.equal(torch.cat([start, rest], dim=1), whole)
        assert all(
            torch.equal(torch.as_tensor(before[k]), torch.as_tensor(v)) for k, v in bank.state_dict().items()
        )


def test_the_seed_decides_and_nothing_else_does(demo: Any) -> None:
    once = latents(demo, prepare(demo, max_frames=20))
    assert torch.equal(once, latents(demo, prepare(demo, max_frames=20)))
    assert not torch.allclose(once, latents(demo, prepare(demo, max_frames=20, seed=8)))


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m", "heun"])
def test_any_sampler_and_scheduler_repeat_themselves_with_other_noise_in_each_clip(demo: Any, name: str) -> None:
    sampler = comfy.samplers.sampler_object(name)
    inputs = {"sampler": sampler, "schedule": "beta", "max_frames": 32, "steps": 2}
    once = latents(demo, prepare(demo, **inputs))
    assert once.isfinite().all()
    assert torch.equal(once, latents(demo, prepare(demo, **inputs)))
    assert not torch.allclose(once[:, :16], once[:, 16:])


def test_native_guiders_and_noise_objects_work(demo: Any) -> None:
    positive = conditioning(demo)
    negative = [[positive[0][0], {**positive[0][1], "letstalk_audio_gain": 0.0}]]
    guider = comfy.samplers.CFGGuider(demo.patcher)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    kept = {name: [dict(cond) for cond in conds] for name, conds in guider.original_conds.items()}
    native = latents(demo, prepare(demo, guider=guider, max_frames=32))
    torch.testing.assert_close(native, latents(demo, prepare(demo, positive, max_frames=32)), atol=2e-4, rtol=1e-4)
    assert {name: [c.keys() for c in conds] for name, conds in guider.original_conds.items()} == {
        name: [c.keys() for c in conds] for name, conds in kept.items()
    }
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    noise = Noise_RandomNoise(3)
    with_noise = latents(demo, prepare(demo, positive, max_frames=32, noise=noise))
    assert noise.seed == 3
    assert not torch.allclose(with_noise[:, :16], with_noise[:, 16:])


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_defaults_for_diffusion_models_are_those_of_the_standalone_pipeline(
    demo: Any, sub: Any, tmp_path: Any, prediction: str
) -> None:
    configs, models = sub("letstalk_core.networks.configs"), sub("letstalk_core.networks.load")
    dit = models.build_model(
        configs.DiTConfig(
            hidden_size=32, depth=1, num_heads=1, in_channels=8, audio_token_dim=16, clip_frames=4,
            prediction=prediction, grid_size=(SIZE, SIZE),
        )
    )  # fmt: skip
    projection = models.build_model(
        configs.AudioProjectionConfig(layers=3, encoder_dim=128, hidden_size=16, tokens=2, token_dim=16)
    )
    for parameter in [*dit.parameters(), *projection.parameters()]:
        parameter.copy_(0.1 * torch.randn_like(parameter))
    path = tmp_path / "dit.safetensors"
    parts = {
        "dit": (dit.config, dit.state_dict()),
        "audio_projection": (projection.config, projection.state_dict()),
    }
    sub("letstalk_core.networks.checkpoint").save_checkpoint(path, parts)
    patcher = sub("nodes.adapters.model").load_dit(path)
    positive = conditioning(demo, 6, channels=8)
    run = prepare(demo, positive, model=patcher, steps=4, audio_scale=1.0)
    solvers, clip = sub("letstalk_core.sampling.solvers"), sub("letstalk_core.sampling.clip")
    bundle = SimpleNamespace(dit=dit, pixels_per_token=32, carry=None)
    settings = sub("letstalk_core.generate.talking_portrait").GenerateSettings(steps=4).resolve(bundle)
    assert settings.solver == "dpmpp_2m"
    assert solvers.get_solver(settings.solver)
    denoiser = sub("letstalk_core.sampling.denoisers").make_denoiser(dit)
    sigmas = sub("letstalk_core.sampling.schedules").make_sigmas(prediction, 4)
    sample = clip.SolverClipSampler(denoiser, settings.solver, sigmas)
    track = positive[0][1]["letstalk_audio"]
    portrait = positive[0][1]["reference_latents"][0][:, :, 0]

    def conditions(memory: Tensor, clip: Any) -> Any:
        audio = projection(track.windows(clip.first, 4, 5)[None])
        return sub("letstalk_core.networks.transformer.conditions").Conditions(portrait, audio, memory)

    clips = sub("letstalk_core.sampling.long_video").generate_clips(
        clip.conditioned(sample, conditions),
        sub("letstalk_core.sampling.long_video").plan_clips(6, 4),
        portrait=portrait,
        bank=sub("letstalk_core.sampling.memory_bank").MemoryBank.for_model(dit.config, seed=7),
        clip_frames=4,
        seed=7,
    )
    torch.testing.assert_close(latents(demo, run), torch.cat([c for _, c in clips], dim=1), atol=2e-3, rtol=1e-3)


def test_the_models_own_schedule_follows_a_shift_node(demo: Any) -> None:
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    patched = ModelSamplingSD3().patch(demo.patcher, 3.0)[0]
    assert prepare(demo, model=patched).sigmas.tolist() == pytest.approx([1.0, 0.75, 0.0])
    assert prepare(demo).sigmas[1].item() != pytest.approx(0.75)


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


def test_a_bad_clip_is_sampled_again_in_float32(demo: Any, caplog: pytest.LogCaptureFixture) -> None:
    spoiled = Spoiled({2})
    result = latents(demo, prepare(demo, sampler=comfy.samplers.KSAMPLER(spoiled)))
    assert spoiled.exact == [False, False, True, False]  # only the second try of clip 2 is plain
    assert "clip 2 of 3" in caplog.text
    torch.testing.assert_close(result, latents(demo, prepare(demo)), atol=1e-4, rtol=1e-4)
    assert demo.patcher.object_patches == {}


def test_whether_a_clip_is_sampled_in_float32_does_not_depend_on_the_clips_before_it(demo: Any) -> None:
    spoiled = Spoiled({1, 3, 5})
    latents(demo, prepare(demo, conditioning(demo, 5 * 16), sampler=comfy.samplers.KSAMPLER(spoiled)))
    assert spoiled.exact == [False, True, False, True, False, True, False, False]


def test_a_clip_that_stays_bad_is_an_error_with_its_cause(demo: Any) -> None:
    run = prepare(demo, sampler=comfy.samplers.KSAMPLER(Spoiled({2, 3})))
    with pytest.raises(demo.errors.NumericalError, match=r"clip 2 of 3.*NaN.*float32.*, too"):
        latents(demo, run)
    assert run.bank.clips_written == 1


def test_clips_are_counted_in_their_own_run(demo: Any) -> None:
    first = prepare(demo, max_frames=16)
    latents(demo, first)
    rest = prepare(
        demo,
        conditioning(demo, letstalk_first_frame=16),
        memory=first.bank,
        sampler=comfy.samplers.KSAMPLER(Spoiled({1, 2})),
    )
    with pytest.raises(demo.errors.NumericalError, match="clip 1 of 2"):
        latents(demo, rest)


def test_room_is_made_for_float32_before_the_model_computes_in_it(
    demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    load = comfy.model_management.load_models_gpu

    def loaded(*args: Any, memory_required: float, **kwargs: Any) -> None:
        asked.append(memory_required)
        load(*args, memory_required=memory_required, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", loaded)
    half = demo.patcher.clone()
    half.set_model_compute_dtype(torch.bfloat16)
    latents(demo, prepare(demo, model=half, sampler=comfy.samplers.KSAMPLER(Spoiled({1})), max_frames=32))
    low, high, low_again = asked
    assert low == low_again and high > 1.5 * low


def test_not_square_pictures_and_a_single_frame_of_sound_work(demo: Any) -> None:
    assert latents(demo, prepare(demo, conditioning(demo, 1, (4, 6)))).shape == (1, 1, 64, 4, 6)


def test_inputs_that_do_not_fit_are_named(demo: Any, sub: Any) -> None:
    def fails(match: str, **inputs: Any) -> None:
        with pytest.raises(demo.errors.ConfigError, match=match):
            prepare(demo, **inputs)

    fails("guider, or model and positive", model=None)
    fails("model.*LetsTalk", model=SimpleNamespace(model=torch.nn.Linear(1, 1)))
    fails("layers", positive=conditioning(demo, layers=4))
    fails("4 latent channels.*64", positive=conditioning(demo, channels=4))
    fails("first_frame=37", positive=conditioning(demo, letstalk_first_frame=37))
    fails("guider", guider=object())
    fails("schedule", schedule="none of these")
    fails("sigmas", sigmas=torch.tensor([]))
    bank = prepare(demo, max_frames=1)
    latents(demo, bank)
    fails("channels", positive=conditioning(demo, size=(4, 6)), memory=bank.bank)
    settings = demo.run.BankSettings(recent_frames=3)
    fails("recent", memory=bank.bank, memory_settings=settings)
    assert prepare(demo, memory_settings=settings).bank.recent == 3
