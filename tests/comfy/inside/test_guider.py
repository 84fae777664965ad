"""Separate guidance scales: the same numbers as core's GuidedDenoiser, and no pass that has no weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_setup import CLOSE, Setup, count_passes, euler, make_setup, sample


@pytest.mark.parametrize(
    ("audio", "portrait", "batches"),
    [(1.0, 1.0, [1]), (2.0, 1.0, [2]), (2.0, 2.0, [2]), (1.0, 1.5, [3]), (2.5, 1.5, [3]), (0.0, 1.0, [1])],
)
def test_equals_the_standalone_guidance_with_the_fewest_passes(
    setup: Setup, audio: float, portrait: float, batches: list[int]
) -> None:
    guider = setup.guider.make_guider(setup.patcher, setup.positive)
    guider.set_scales(audio, portrait)
    with count_passes(setup.patcher) as passes:
        found = sample(setup, guider, sigmas=setup.sigmas(1))
    assert passes == batches
    # Batches are summed in another order, and the prediction is turned to and fro once more: a few ulp.
    torch.testing.assert_close(found, setup.standalone(setup.sigmas(1), audio, portrait), rtol=1e-5, atol=2e-5)


def test_a_scale_of_zero_is_the_models_own(sub: Any, tmp_path: Any) -> None:
    setup = make_setup(sub, tmp_path, audio_guidance=1.7)
    own = sample(setup, setup.guider.make_guider(setup.patcher, setup.positive, 0.0, 1.0))
    torch.testing.assert_close(own, setup.standalone(setup.sigmas(), 1.7, 1.0), **CLOSE)


@pytest.mark.parametrize("hooked", [False, True])
def test_lists_of_scales_are_spread_over_the_steps(
    setup: Setup, comfy_nodes: dict[str, Any], hooked: bool
) -> None:
    one, scales = (comfy_nodes["LetsTalkScaleSchedule"].execute(text).args[0] for text in ("1.3", "1:2.5:1"))
    assert one == 1.3 and scales == [1.0, 2.5, 1.0]
    patcher = setup.patcher.clone()
    if hooked:
        patcher.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    (guider,) = comfy_nodes["LetsTalkGuider"].execute(patcher, setup.positive, scales, [1.5, 1.0]).args
    with count_passes(patcher) as passes:
        found = sample(setup, guider, sigmas=setup.sigmas(3))
    assert passes == [3, 3, 1]  # the last step is guided by nothing
    expected = setup.standalone(setup.sigmas(3), (1.0, 2.5, 1.0), (1.5, 1.0))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("audio", "portrait"), [(1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (2.0, 1.5)])
def test_functions_that_other_nodes_set_see_the_same_sum(setup: Setup, audio: float, portrait: float) -> None:
    plain = sample(setup, setup.guider.make_guider(setup.patcher, setup.positive, audio, portrait))
    patcher, seen = setup.patcher.clone(), []
    patcher.set_model_sampler_post_cfg_function(lambda args: seen.append(set(args)) or args["denoised"])
    hooked = sample(setup, setup.guider.make_guider(patcher, setup.positive, audio, portrait))
    assert len(seen) == 2 and {"cond_denoised", "uncond_denoised", "denoised"} <= seen[0]
    torch.testing.assert_close(hooked, plain, rtol=1e-5, atol=2e-5)


def test_dual_cfg_of_comfyui_gives_the_same(setup: Setup, comfy_nodes: dict[str, Any]) -> None:
    ours = setup.guider.make_guider(setup.patcher, setup.positive, 2.0, 1.5)
    nothing = [[slot, {**values, "letstalk_portrait_gain": 0.0}] for slot, values in setup.negative]
    (dual,) = comfy_nodes["DualCFGGuider"]().get_guider(
        setup.patcher, setup.positive, setup.negative, nothing, 2.0, 1.5, "regular"
    )
    torch.testing.assert_close(sample(setup, dual), sample(setup, ours), rtol=1e-5, atol=2e-5)


def test_bad_inputs_are_named(setup: Setup) -> None:
    with pytest.raises(ValueError, match="positive: holds no speech and portrait; connect LetsTalk Conditioning"):
        setup.guider.make_guider(setup.patcher, [[torch.zeros(1, 1, 1), {}]])
    with pytest.raises(ValueError, match="audio guidance scale -1"):
        setup.guider.make_guider(setup.patcher, setup.positive, -1.0, 1.0)
    with pytest.raises(ValueError, match="model: is a Linear, not a LetsTalk model; connect LetsTalk Load DiT"):
        other = type("Patcher", (), {"model": torch.nn.Linear(1, 1)})()
        setup.guider.make_guider(other, setup.positive)


@pytest.mark.parametrize("prediction", ["flow", "epsilon", "v"])
def test_sigmas_are_those_of_the_standalone_pipeline(sub: Any, tmp_path: Any, prediction: str) -> None:
    setup = make_setup(sub, tmp_path, prediction=prediction)
    schedules = sub("letstalk_core.sampling.schedules")
    for schedule in ("model", "karras"):
        found = setup.guider.make_model_sigmas(setup.patcher, 7, schedule)
        assert torch.equal(found, schedules.make_sigmas(prediction, 7, schedule=schedule))
    assert len(setup.guider.make_model_sigmas(setup.patcher, 7, "simple")) == 8
    for bad in ({"schedule": "none"}, {"schedule": "simple", "shift": 2.0}):
        with pytest.raises(ValueError, match="schedule"):
            setup.guider.make_model_sigmas(setup.patcher, 7, **bad)


def test_no_steps_are_the_models_own_number(sub: Any, tmp_path: Any, comfy_nodes: dict[str, Any]) -> None:
    usual = make_setup(sub, tmp_path)
    (sigmas,) = comfy_nodes["LetsTalkSigmas"].execute(usual.patcher, 0, "model", 0.0).args
    assert len(sigmas) == 12 + 1
    own = make_setup(sub, tmp_path, steps=5)
    assert len(own.sigmas(0)) == 5 + 1 and len(own.sigmas(3)) == 3 + 1


def test_sigmas_follow_the_shift_of_the_model(setup: Setup, comfy_nodes: dict[str, Any], sub: Any) -> None:
    flow_sigmas = sub("letstalk_core.sampling.schedules").flow_sigmas
    (shifted,) = comfy_nodes["ModelSamplingSD3"]().patch(setup.patcher, shift=3.0)
    assert torch.equal(setup.guider.make_model_sigmas(shifted, 5), flow_sigmas(5, 3.0))
    assert torch.equal(setup.guider.make_model_sigmas(shifted, 5, shift=2.0), flow_sigmas(5, 2.0))
    assert sample(setup, setup.guider.make_guider(shifted, setup.positive, 2.0), euler()).isfinite().all()
