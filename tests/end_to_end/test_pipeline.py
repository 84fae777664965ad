"""Whole runs on networks of a few thousand weights."""

import gc
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.passes import resident
from letstalk_core.errors import ConfigError
from letstalk_core.generate import talking_portrait as pipeline
from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.generate.talking_portrait import GenerateSettings, Progress, Summary, TalkingPortrait
from letstalk_core.generate.work_folder import RUN_FILE, WorkFolder
from letstalk_core.media.audio.decode import WaveformSource
from letstalk_core.networks.load import ModelBundle, load_bundle
from letstalk_core.networks.transformer.dit import LetsTalkDiT

from .command import end_at

PORTRAIT = torch.arange(32 * 32 * 3).remainder(253).to(torch.uint8).view(32, 32, 3)
FAST = GenerateSettings(steps=2, seed=3)


def speech(seconds: float) -> Tensor:
    t = torch.arange(round(seconds * 16000)) / 16000
    return 0.3 * torch.sin(900 * t) * torch.sin(7 * t)


def run(
    bundle: ModelBundle, seconds: float = 0.6, settings: GenerateSettings = FAST, **options: Any
) -> tuple[KeptFrames, Summary]:
    sink = KeptFrames()
    return sink, TalkingPortrait(bundle).generate(PORTRAIT, speech(seconds), sink, settings, **options)


@pytest.mark.parametrize(("seconds", "frames"), [(0.03, 1), (0.16, 4), (0.6, 15), (0.655, 16)])
def test_exactly_the_rounded_number_of_frames_comes_out(bundle: ModelBundle, seconds: float, frames: int) -> None:
    sink, summary = run(bundle, seconds)
    assert sink.video.dtype == torch.uint8
    assert sink.video.shape == (frames, 32, 32, 3) and sink.state == "closed"
    assert summary.frames == summary.total_frames == frames and summary.clips == -(-frames // 4)


@pytest.fixture(scope="module")
def plain(bundle: ModelBundle) -> Tensor:
    """The video of `FAST`."""
    return run(bundle)[0].video


@pytest.mark.parametrize("change", [{}, {"seed": 4}, {"cfg_audio": 4.0}, {"movement": 0.0}])
def test_settings_decide_what_comes_out_and_nothing_else_does(
    bundle: ModelBundle, plain: Tensor, change: dict[str, Any]
) -> None:
    (first, _), (again, _) = (run(bundle, settings=replace(FAST, **change)) for _ in range(2))
    assert torch.equal(first.video, again.video)
    assert torch.equal(first.video, plain) == (not change)


def test_speech_changes_the_video(bundle: ModelBundle, plain: Tensor) -> None:
    quiet = KeptFrames()
    sound = 0.01 * torch.randn(9600, generator=torch.Generator().manual_seed(0))
    TalkingPortrait(bundle).generate(PORTRAIT, sound, quiet, FAST)
    assert not torch.equal(plain, quiet.video)


def test_a_scale_that_changes_over_the_steps_is_like_no_constant_one(bundle: ModelBundle) -> None:
    steps = replace(FAST, steps=3)
    high, low = (run(bundle, settings=replace(steps, cfg_audio=scale))[0].video for scale in (4.0, 1.0))
    falling, summary = run(bundle, settings=replace(steps, cfg_audio=(4.0, 1.0)))
    assert not torch.equal(falling.video, high) and not torch.equal(falling.video, low)
    assert summary.settings["cfg_audio"] == [4.0, 1.0]
    for scale, same in ((4.0, high), (1.0, low)):
        assert torch.equal(run(bundle, settings=replace(steps, cfg_audio=(scale, scale)))[0].video, same)


def test_progress_counts_clips_steps_and_frames(bundle: ModelBundle) -> None:
    seen: list[Progress] = []
    run(bundle, progress=seen.append)
    steps = [state for clip in range(4) for state in ((clip, 0), (clip, 1), (clip + 1, 0))]
    assert [(p.clip, p.step) for p in seen] == steps
    assert seen[-1].frames == seen[-1].total_frames == 15


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m"])
def test_every_solver_of_flow_models_runs(bundle: ModelBundle, solver: str) -> None:
    run(bundle, 0.1, replace(FAST, solver=solver))


def test_the_paper_setting_runs_with_learned_variance(bundle: ModelBundle) -> None:
    dit = LetsTalkDiT(replace(bundle.dit.config, prediction="epsilon", learned_variance=True))
    dit.init_weights()
    paper = ModelBundle(bundle.autoencoder, bundle.audio_encoder, bundle.audio_projection, dit)
    resolved = GenerateSettings().resolve(paper)
    assert GenerateSettings().resolve(bundle).steps == 12
    paper.dit.config = replace(paper.dit.config, steps=9)
    assert GenerateSettings().resolve(paper).steps == 9
    paper.dit.config = replace(paper.dit.config, steps=0)
    assert (resolved.solver, resolved.steps) == ("ddpm", 250)
    sink, _ = run(paper, 0.1, GenerateSettings(steps=3))
    assert torch.equal(sink.video, run(paper, 0.1, GenerateSettings(steps=3))[0].video)


def test_a_clip_is_decoded_while_the_next_is_sampled(bundle: ModelBundle, plain: Tensor) -> None:
    """The sink of the first clip waits until a step of the second has begun."""
    sampling = threading.Event()

    class Waiting(KeptFrames):
        def write(self, frames: Tensor) -> None:
            assert sampling.wait(30)
            super().write(frames)

    def progress(now: Progress) -> None:
        if now.clip == 1 and now.step == 1:
            sampling.set()

    sink = Waiting()
    TalkingPortrait(bundle).generate(PORTRAIT, speech(0.6), sink, FAST, progress=progress)
    assert torch.equal(sink.video, plain)


# ---- stopping and resuming


@pytest.mark.parametrize(
    ("owner", "name", "value", "differs"),
    [
        (pipeline, "FRAMES_VERSION", "0.0.0", "version"),
        (ModelBundle, "dtype", torch.bfloat16, "dtype"),
        (torch, "__version__", "2.4.0", "torch"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT", "cpu_instructions"),
    ],
)
def test_a_run_continues_only_on_the_same_program_and_machine_with_the_same_settings(
    owner: Any, name: str, value: Any, differs: str, bundle: ModelBundle, tmp_path: Path, monkeypatch: Any
) -> None:
    work = WorkFolder(tmp_path / "work")
    run(bundle, progress=end_at(1, KeyboardInterrupt()), work=work)
    with pytest.raises(ConfigError, match="differs in seed"):
        run(bundle, settings=replace(FAST, seed=9), work=work)
    monkeypatch.setattr(owner, name, value)
    with pytest.raises(ConfigError, match=f"differs in {differs}"):
        run(bundle, work=work)


def test_the_work_folder_of_an_older_release_with_the_same_frames_is_resumed(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    work = WorkFolder(tmp_path / "work")
    run(bundle, progress=end_at(1, KeyboardInterrupt()), work=work)
    page = work.folder / RUN_FILE
    written = json.loads(page.read_text(encoding="utf-8"))
    written["run"]["version"] = "0.1.0"
    for name in ("carry", "output_size", "torch", "cpu_instructions"):  # 0.1 did not say
        del written["run"][name]
    page.write_text(json.dumps(written), encoding="utf-8")
    _, summary = run(bundle, work=work)
    assert summary.resumed_clips == 1


# ---- failures


def test_a_failing_sink_is_aborted_and_its_error_passes_on(bundle: ModelBundle) -> None:
    class Full(KeptFrames):
        def write(self, frames: Tensor) -> None:
            if self.frames:
                raise OSError(28, "No space left on device")
            super().write(frames)

    sink = Full()
    with pytest.raises(OSError, match="No space"):
        TalkingPortrait(bundle).generate(PORTRAIT, speech(0.6), sink, FAST)
    assert sink.state == "aborted"


def test_a_batch_of_no_frames_is_refused(bundle: ModelBundle) -> None:
    """What the command line refuses, too, is tested in test_cli_refusals.py."""
    with pytest.raises(ConfigError, match="decode_batch=0"):
        run(bundle, settings=replace(FAST, decode_batch=0))


# ---- memory


class Speech(WaveformSource):
    """Minutes of sound that are made while they are read."""

    def __init__(self, seconds: int) -> None:
        super().__init__(speech(1.0))
        self.duration = seconds

    def __iter__(self) -> Any:
        for _ in range(self.duration):
            yield self.waveform


@pytest.mark.skipif(not resident(), reason="this system does not say how much memory is used")
def test_memory_does_not_grow_with_the_length_of_the_audio(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes at 10 fps: kept frames would be 18 MB, kept sound 38 MB."""
    bundle = load_bundle(tiny_bundle)
    monkeypatch.setattr(
        bundle.autoencoder,
        "decode_frames",
        lambda z, **_: z[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3),
    )

    class Nothing(KeptFrames):
        count = 0

        def write(self, frames: Tensor) -> None:
            self.count += len(frames)

    def fake(settings: GenerateSettings, on_step: Any) -> Any:
        return lambda noise, conditions, clip, blend: noise + conditions.audio.mean()

    measured: list[int] = []

    def watch(now: Progress) -> None:
        if now.clip % 100 == 0:
            measured.append(resident())

    gc.collect()
    settings = replace(FAST, fps=10.0, decode_batch=4)
    sink = Nothing()
    summary = TalkingPortrait(bundle, make_sampler=fake).generate(
        PORTRAIT, Speech(600), sink, settings, progress=watch
    )
    assert sink.count == summary.frames == 6_000
    assert max(measured[2:]) - measured[1] < 12e6
