"""Runs that end too early and are queued again, and parts that are made anew."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.samplers
import comfy.utils
import pytest
import torch
from graph_setup import DEMO_FOLDER
from sampling_setup import prepare, standalone_conditions, streams
from torch import Tensor

FRAMES = 112  # 7 clips, 3 segments of 3 clips


@pytest.fixture
def root(base: Path) -> Path:
    """Where work folders lie; `_nothing_to_continue` empties it."""
    return base / "output" / "letstalk_work"


def render(kit: Any, *, frames: int = FRAMES, seed: int = 1, drift_level: float = 0.0, **options: Any) -> Any:
    memory = kit.run.BankSettings(drift_level=drift_level)
    run = prepare(kit, frames, seed=seed, memory_settings=memory)
    result = kit.render.render_video(run, kit.vae, node_id="a", **options)
    return run, result


def pictures(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


def told(path: Path) -> Any:
    """What a video says of how it was made."""
    with av.open(str(path)) as container:
        return json.loads(container.metadata["letstalk"])


@contextlib.contextmanager
def cancelled_after(clips: int) -> Iterator[None]:
    """Cancel is pressed in the step after so many clips of what runs inside; a clip has one step."""

    def hook(value: int, *_: Any, **__: Any) -> None:
        if value > clips:
            comfy.model_management.interrupt_current_processing()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            yield


def sampled(kit: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the index of every clip that is sampled."""
    seen: list[int] = []
    sampler = kit.render.ComfyClipSampler
    call = sampler.__call__
    monkeypatch.setattr(
        sampler,
        "__call__",
        lambda self, noise, memory, clip, blend: seen.append(clip.index) or call(self, noise, memory, clip, blend),
    )
    return seen


def test_a_finished_run_leaves_no_work_folder(kit: Any, root: Path) -> None:
    _, result = render(kit, frames=20)
    assert streams(result.path)[0] == 20 and list(root.iterdir()) == []


@pytest.mark.parametrize("images", ["last frame", "all frames"])
def test_a_cancelled_run_continues_when_it_is_queued_again(
    kit: Any, root: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_run, whole = render(kit, images=images)
    with cancelled_after(5):
        render(kit, images=images)
    (folder,) = root.iterdir()
    assert folder.name.startswith("auto-") and (folder / "so_far.mp4").exists()
    seen = sampled(kit, monkeypatch)
    run, result = render(kit, images=images)
    assert min(seen) >= 5 and pictures(result.path) == pictures(whole.path)
    assert torch.equal(result.images, whole.images)
    assert torch.equal(run.bank.read(), whole_run.bank.read()) and run.bank.clips_written == 7
    assert list(root.iterdir()) == []


def test_an_unfinished_run_is_told_with_the_graph_that_began_it(kit: Any, sub: Any, root: Path) -> None:
    unfinished = sub("nodes.adapters.unfinished")
    nodes = {
        "a": {
            "class_type": "LetsTalkTalkingVideo",
            "inputs": {"seed": 7, "vae": ["b", 0]},
            "_meta": {"title": "x"},
        },
        "b": {"class_type": "LetsTalkLoadAutoencoder", "inputs": {"autoencoder": "demo"}},
        "c": {"class_type": "SaveVideo", "inputs": {"video": ["a", 0]}},
    }
    with cancelled_after(5):
        render(kit, prompt=nodes)
    (told,) = unfinished.unfinished_runs()
    assert (told["node"], told["made"], told["seconds"]) == ("a", 5 * 16 / 25, FRAMES / 25)
    upstream = {"a": {k: v for k, v in nodes["a"].items() if k != "_meta"}, "b": nodes["b"]}
    assert told["graph"] == upstream
    assert json.dumps(told)  # what the browser gets
    render(kit, prompt=nodes)
    assert unfinished.unfinished_runs() == [] and list(root.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"frames": 1, "fps": 0, "clip_frames": 1, "first_clip": 0}', "[" * 5000]
)
def test_what_cannot_be_read_is_no_unfinished_run(sub: Any, root: Path, text: str) -> None:
    (root / "x").mkdir(parents=True)
    (root / "x" / "clip-000000.safetensors").touch()
    (root / "x.graph.json").write_text(text)
    assert sub("nodes.adapters.unfinished").unfinished_runs() == []


def overflowing(model: Any, x: Tensor, sigmas: Tensor, **kwargs: Any) -> Tensor:
    """A sampler that spoils the first two clips of seed 1, unless the network computes in float32."""
    bad = kwargs["extra_args"]["seed"] in overflowing.seeds  # type: ignore[attr-defined]
    result = comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, **kwargs)
    exact = model.inner_model.inner_model.manual_cast_dtype == torch.float32
    return result * float("nan") if bad and not exact else result


def overflow_once(decoder: torch.nn.Module) -> None:
    """Spoil what is decoded after the portrait, and the same again, unless it is done in float32."""
    seen: list[Tensor] = []

    def hook(module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if len(seen) < 2:
            seen.append(inputs[0].clone())
        bad = len(seen) == 2 and inputs[0].shape == seen[1].shape and torch.equal(inputs[0], seen[1])
        return output * float("nan") if bad and output.dtype != torch.float32 else output

    decoder.register_forward_hook(hook)


@pytest.mark.parametrize("stage", ["sampling", "decoding"])
def test_a_continued_run_repeats_in_float32_what_an_unbroken_one_does(
    kit: Any, sub: Any, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    vae, options = kit.vae, {}
    half = kit.patcher.clone()
    half.set_model_compute_dtype(torch.bfloat16)
    if stage == "sampling":
        seeded = sub("letstalk_core.sampling.clip").seeded_generator
        overflowing.seeds = {  # type: ignore[attr-defined]
            seeded(1, clip, "sampler").initial_seed() for clip in (0, 1)
        }
        options["sampler"] = comfy.samplers.KSAMPLER(overflowing)
    else:
        vae = sub("nodes.adapters.vae").load_vae(DEMO_FOLDER / "autoencoder.safetensors", dtype=torch.bfloat16)
        overflow_once(vae.first_stage_model.decoder)

    def run() -> Path:
        prepared = prepare(kit, FRAMES, model=half, **options)
        result: Path = kit.render.render_video(prepared, vae, node_id="a").path
        return result

    whole = run()
    assert "again in float32" in caplog.text
    with cancelled_after(5):
        run()
    assert pictures(run()) == pictures(whole)


def test_another_seed_does_not_touch_what_is_unfinished(kit: Any, root: Path) -> None:
    with cancelled_after(2):
        render(kit)
    before = list(root.iterdir())
    render(kit, frames=20, seed=2)
    assert list(root.iterdir()) == before


def test_only_the_newest_unfinished_videos_are_kept(kit: Any, root: Path) -> None:
    for seed in range(6):
        with cancelled_after(1):
            render(kit, frames=40, seed=seed)
    assert len(list(root.iterdir())) == 4


def test_a_named_folder_refuses_other_settings_and_starts_anew_when_asked(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(kit, frames=20, work_folder="mine")
    with pytest.raises(kit.errors.ConfigError, match="mine: belongs to a run that differs in seed;"):
        render(kit, frames=20, seed=2, work_folder="mine")
    seen = sampled(kit, monkeypatch)
    render(kit, frames=20, work_folder="mine")
    assert seen == []
    render(kit, frames=20, seed=2, work_folder="mine", unfinished="start anew")
    assert seen == [0, 1]


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "auto-1", "x" * 100, "Con", "lpt1.x"])
def test_a_name_that_leaves_the_folder_is_refused(kit: Any, name: str) -> None:
    with pytest.raises(kit.errors.ConfigError, match="work_folder"):
        render(kit, frames=20, work_folder=name)


def test_a_retake_changes_its_seconds_and_nothing_else(kit: Any) -> None:
    _, old = render(kit, work_folder="mine")
    part = kit.render.Part(2.0, 2.5, 5)  # in the second segment: frames 48 to 95
    run, new = render(kit, work_folder="mine", part=part)
    before, after = pictures(old.path), pictures(new.path)
    assert len(after) == FRAMES and before[:48] == after[:48] and before[96:] == after[96:]
    assert before[48:90] != after[48:90]
    assert run.bank.clips_written == 7 and torch.equal(new.images, old.images)
    assert "retakes" not in told(old.path)
    takes = [{"seconds": [1.92, 3.84], "seed": 5}]
    assert told(new.path)["retakes"] == takes
    _, joined_again = render(kit, work_folder="mine")
    assert told(joined_again.path)["retakes"] == takes
    with pytest.raises(kit.errors.ConfigError, match="needs the work_folder"):
        render(kit, part=part)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_retake_is_drawn_to_the_old_take_in_every_step_as_standalone(
    kit: Any, sub: Any, root: Path, tmp_path: Path, guidance: float
) -> None:
    """Both run the same float32 network; only the order of sums in guidance and solver differs."""
    frames, inputs = 80, {"steps": 3, "audio_scale": guidance}  # clips 0 to 2 anew, 3 and 4 follow
    options = {"node_id": "a", "work_folder": "mine"}
    run = prepare(kit, frames, **inputs)
    old = kit.render.render_video(run, kit.vae, **options)
    shutil.copytree(root / "mine", tmp_path / "work")
    new = kit.render.render_video(
        prepare(kit, frames, **inputs), kit.vae, part=kit.render.Part(0.0, 1.0, 5), **options
    )
    before, after = pictures(old.path), pictures(new.path)
    assert before[:40] != after[:40] and before[48:] == after[48:]
    for clip in (3, 4):
        name = f"clip-{clip:06d}.safetensors"
        assert (root / "mine" / name).read_bytes() == (tmp_path / "work" / name).read_bytes()

    core, again = sub("letstalk_core.generate.run"), sub("letstalk_core.generate.retake")
    portrait, work_folder = (sub(f"letstalk_core.generate.{n}") for n in ("talking_portrait", "work_folder"))
    bundle, count = sub("letstalk_core.networks.load").load_bundle(), run.config.clip_frames
    settings = portrait.GenerateSettings(steps=3, seed=1, cfg_audio=guidance).resolve(bundle)
    conditions = standalone_conditions(sub, bundle.audio_projection, run.track, run.portrait, count, 1)
    bank = sub("letstalk_core.sampling.memory_bank").MemoryBank
    sample = portrait.TalkingPortrait(bundle).solver_sampler(settings, lambda *_: None)
    standalone = core.Run(
        plan=sub("letstalk_core.sampling.long_video").plan_clips(frames, count),
        portrait=run.portrait,
        bank=bank.for_model(run.config, settings=settings.memory, seed=1),
        sample=sub("letstalk_core.sampling.clip").conditioned(sample, conditions),
        clip_frames=count,
        fps=25.0,
        size=(64, 64),
        seed=1,
        fingerprint=json.loads((tmp_path / "work" / "run.json").read_text())["run"],
    )
    work = work_folder.WorkFolder(tmp_path / "work", keep=True)
    video = sub("letstalk_core.media.video.segments").SegmentedVideo(
        tmp_path / "v.mp4", 25.0, (64, 64), work.folder, 3 * count
    )
    take = again.Retake(
        seconds=(0.0, 1.0),
        seed=5,
        sample=standalone.sample,
        video=video,
        decode=lambda latents, clip: torch.zeros(clip.count, 64, 64, 3, dtype=torch.uint8),
        watch=core.Watcher(),
    )
    clips = again.retake(standalone, sub("letstalk_core.generate.sinks").LatentSink(), work, take)
    ours = work_folder.WorkFolder(root / "mine", keep=True)
    assert [clip.index for clip in clips] == [0, 1, 2]
    for clip in clips:
        torch.testing.assert_close(ours.load(clip), work.load(clip), atol=2e-4, rtol=1e-4)


def test_drift_is_judged_the_same_in_continued_runs_and_around_retakes(kit: Any) -> None:
    whole_run, whole = render(kit, drift_level=0.99)
    assert {2, 3} <= set(whole_run.drift.re_anchored)  # around the first saved memory
    with cancelled_after(5):
        render(kit, drift_level=0.99, work_folder="mine")
    run, result = render(kit, drift_level=0.99, work_folder="mine")
    assert pictures(result.path) == pictures(whole.path)
    assert run.drift == whole_run.drift and torch.equal(run.bank.read(), whole_run.bank.read())
    again, _ = render(kit, drift_level=0.99, work_folder="mine", part=kit.render.Part(2.0, 2.5, 5))
    assert again.drift.scores[:3] == run.drift.scores[:3] and again.drift.since(6) == run.drift.since(6)
    assert again.drift.scores[3:6] != run.drift.scores[3:6]
    assert torch.equal(again.bank.read(), run.bank.read())
    free, _ = render(kit)
    assert not torch.equal(free.bank.read(), run.bank.read())


def test_lora_and_conditions_belong_to_the_settings(kit: Any, sub: Any) -> None:
    fingerprint = sub("nodes.adapters.work").fingerprint
    same = [fingerprint(prepare(kit, 20), kit.vae, None) for _ in range(2)]
    assert same[0] == same[1]
    patched = prepare(kit, 20)
    patched.guider.model_patcher = patched.guider.model_patcher.clone()
    key = next(iter(patched.guider.model_patcher.model.state_dict()))
    patched.guider.model_patcher.add_patches({key: (torch.ones(1),)}, 0.5)
    other = fingerprint(patched, kit.vae, None)
    assert {k for k in other if other[k] != same[0][k]} == {"model_patches"}
    falling = [prepare(kit, 20, audio_scale=scales) for scales in ([2.0, 1.0], [2.0, 1.5])]
    assert len({fingerprint(run, kit.vae, None)["guider"] for run in (prepare(kit, 20), *falling)}) == 3
    longer = fingerprint(prepare(kit, 21), kit.vae, None)
    assert {k for k in longer if longer[k] != same[0][k]} == {"frames", "positive"}
