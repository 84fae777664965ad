"""A film and a recording in, the same film saying the recording out: what hosts put into a run of `dub.Shots`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from ..files import file_sha256
from ..media.audio.decode import AudioSource, Sound, as_source
from ..media.audio.features import AudioFeatures
from ..media.video.threaded import ThreadedSink
from ..networks.load import ModelBundle
from ..networks.transformer.conditions import Conditions
from ..protocols import FrameSink
from ..sampling.clip import Blend, Clip, conditioned
from ..sampling.memory_bank import MemoryBank
from .dub import LENGTHS, Shots, follow_film, output_frames
from .face_motion import Hearing
from .progress import Progress, Reporter
from .run import Run, generate
from .settings import GenerateSettings, Summary
from .sinks import DecodingSink
from .stages import Stages
from .talking_portrait import TalkingPortrait, aborting, finished, run_fingerprint
from .work_folder import WorkFolder

DUBBING_VERSION = 2  # of where and how mouths are blended in


class Dubbing:
    """Dubs films with one bundle of models; holds no state between runs. Memory grows by 0.2 kB a frame."""

    def __init__(self, bundle: ModelBundle) -> None:
        self.bundle = bundle

    @torch.no_grad()
    def dub(
        self,
        film: Path,
        audio: Sound,
        sink: FrameSink,
        settings: GenerateSettings | None = None,
        *,
        length: str = LENGTHS[0],
        progress: Callable[[Progress], None] | None = None,
        work: WorkFolder | None = None,
        followed: Callable[[int], None] | None = None,
    ) -> Summary:
        """Write the frames of the video at `fps` in the film's own size to `sink`, clip by clip, and close it.

        length: see `dub.output_frames`. followed: is told how many frames of the film are searched for the face,
        which comes first. `work`, stopping and errors as in `TalkingPortrait.generate`, and FaceNotFoundError.
        """
        started = time.monotonic()
        with aborting(sink, work):
            run, summary, decoded = self._prepare(film, audio, sink, settings, length, progress, work, followed)
        return finished(summary, generate(run, ThreadedSink(decoded, capacity=1), work), started)

    def _prepare(
        self,
        film: Path,
        audio: Sound,
        sink: FrameSink,
        settings: GenerateSettings | None,
        length: str,
        progress: Callable[[Progress], None] | None,
        work: WorkFolder | None,
        followed: Callable[[int], None] | None,
    ) -> tuple[Run, Summary, DecodingSink]:
        bundle, config = self.bundle, self.bundle.dit.config
        resolved = (settings or GenerateSettings()).resolve(bundle)
        assert resolved.size is not None and resolved.fps is not None and resolved.steps is not None
        source = as_source(audio)
        if isinstance(source, AudioSource):
            source.pin()
        hear = partial(AudioFeatures.encode, bundle.audio_encoder, source, resolved.fps)
        features = hear()
        about = run_fingerprint(resolved, torch.zeros(1), source, bundle)
        about |= {
            "models": bundle.hashes(),
            "film": file_sha256(film),
            "length": length,
            "dubbing": DUBBING_VERSION,
        }
        if work is not None:  # before the faces, which are kept there
            work.begin(about)
            work.restart = False
        faces = follow_film(film, resolved.fps, work, followed)
        numbers = output_frames(len(faces), features.frames, resolved.fps, length)
        shots = Shots(bundle, resolved, film, faces, numbers, sound=Hearing(hear))
        plan, cuts = shots.plan(config.clip_frames)
        height, width = faces.size
        summary = Summary(0, len(numbers), 0.0, len(plan), resolved.fps, width, height, resolved.seed)
        summary.settings, summary.models = resolved.to_dict(), bundle.hashes()
        first = next((clip for clip in plan if shots.is_dubbed(clip)), None)
        if first is None:
            raise ConfigError(f"{film}: the face is turned away in all frames; use one seen from the front")
        home = shots.of(first).latent
        decoded = DecodingSink(sink, shots.decode)
        report = Reporter(progress, decoded)
        report.steps, report.drift_level = resolved.steps, summary.drift_level
        maker = TalkingPortrait(bundle)
        own = maker.make_sampler(resolved, report.step_begins)
        guarded = Stages(bundle).guarded(
            own, lambda network: maker.solver_sampler(resolved, report.step_begins, network)
        )

        def conditions(memory: Tensor, clip: Clip) -> Conditions:
            shot = shots.of(clip)
            return shot.stages.conditions(shot.latent, features, shot.moves)(memory, clip)

        sample = conditioned(guarded, conditions)

        def sample_clip(noise: Tensor, memory: Tensor, clip: Clip, blend: Blend | None = None) -> Tensor:
            if shots.is_dubbed(clip):
                return sample(noise, memory, clip, blend)
            return shots.portrait(clip, home)[:, None].expand_as(noise).clone()  # nobody sees it

        run = Run(
            plan=plan,
            portrait=home,
            bank=MemoryBank.for_model(config, settings=resolved.memory, seed=resolved.seed),
            sample=sample_clip,
            clip_frames=config.clip_frames,
            fps=resolved.fps,
            size=faces.size,
            seed=resolved.seed,
            fingerprint=about,
            watch=report,
            drift=summary.drift,
            portrait_of=lambda clip: shots.portrait(clip, home),
            cuts=cuts,
        )
        return run, summary, decoded
