"""From one portrait and a recording to a talking video: what the command line and scripts put into a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor

from ..errors import ConfigError
from ..media.audio.decode import AudioSource, Sound, WaveformSource, as_source
from ..media.audio.features import AudioFeatures
from ..media.audio.padding import PaddedSource
from ..media.portrait.crop import fit_to
from ..media.portrait.image import load_portrait
from ..media.portrait.likeness import compare_portrait, far_from_portrait
from ..media.portrait.references import align_references
from ..media.video.segments import SegmentedVideo
from ..media.video.threaded import ThreadedSink
from ..networks.load import ModelBundle
from ..networks.transformer.dit import LetsTalkDiT
from ..pixels import from_unit
from ..protocols import FrameSink
from ..sampling.clip import ConditionedSampler, Guidance, SolverClipSampler, conditioned
from ..sampling.denoisers import make_denoiser
from ..sampling.memory_bank import MemoryBank
from ..sampling.motion import Movement
from ..sampling.motion_curves import MotionCurves
from ..sampling.schedules import make_sigmas
from .face_motion import FaceMotion, Hearing
from .machine import machine
from .parts import Part, first_heard, plan_part, run_up
from .progress import Progress, Reporter
from .retake import Retake, retake
from .run import Outcome, Run, Watcher, generate
from .settings import GenerateSettings as GenerateSettings  # research takes it from here
from .settings import Summary
from .sinks import DecodingSink
from .stages import Stages
from .work_folder import FRAMES_VERSION, WorkFolder, tensor_sha256

log = logging.getLogger(__name__)

Portrait = Union[Tensor, str, Path]
OnStep = Callable[[int, int, int], None]  # clip, step, steps


class TalkingPortrait:
    """Generates with one bundle of models; holds no state between runs, and needs the same memory for any length.

    `make_sampler(settings, on_step)` may replace how a clip is sampled.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        make_sampler: Callable[[GenerateSettings, OnStep], ConditionedSampler] | None = None,
    ) -> None:
        self.bundle = bundle
        self.make_sampler = make_sampler or self.solver_sampler

    @torch.no_grad()
    def generate(
        self,
        portrait: Portrait,
        audio: Sound,
        sink: FrameSink,
        settings: GenerateSettings | None = None,
        progress: Callable[[Progress], None] | None = None,
        work: WorkFolder | None = None,
        motion: MotionCurves | None = None,
        part: Part | None = None,
        references: Sequence[Portrait] = (),
    ) -> Summary:
        """Write round(seconds * fps) frames, or those of `part`, to `sink`, clip by clip, and close it.

        `motion` moves head and eyes where it is given. `references`: more pictures of the person, of any framing,
        whose detail is carried into frames that look like them. With `work`, finished clips are kept there, those
        of an earlier identical run are not made again, and the folder is removed at the end. KeyboardInterrupt
        (also from `progress`) closes the sink with the frames so far, if there are any, and returns a summary
        marked as interrupted; any other error aborts the sink and passes on. A stage that gives NaN or infinity
        is repeated once in float32 with plain attention.
        Raises: MediaError, ConfigError, NumericalError, OutputError.
        """
        started = time.monotonic()
        report = Reporter(progress)
        with aborting(sink):
            run, stages, summary = self._prepare(portrait, audio, settings, report, motion, references, part)
            decoded = report.sink = DecodingSink(sink, stages.decode)
            if part is not None:
                run_up(run, part)
        # One clip is decoded and written while the next is sampled.
        return finished(summary, generate(run, ThreadedSink(decoded, capacity=1), work), started)

    @torch.no_grad()
    def retake(
        self,
        portrait: Portrait,
        audio: Sound,
        video: SegmentedVideo,
        work: WorkFolder,
        seconds: tuple[float, float],
        seed: int,
        settings: GenerateSettings | None = None,
        progress: Callable[[Progress], None] | None = None,
        motion: MotionCurves | None = None,
        references: Sequence[Portrait] = (),
    ) -> Summary:
        """Make a part of a finished video anew with other noise, and join the video again (see `retake`).

        `work` is the folder of that run, and all arguments but the last of the required ones are its own.
        `seconds`: from and to. Killed at any moment, the same call continues, and until it ends the video is the
        old one. Raises: ConfigError if the folder is not complete, and what `generate` raises.
        """
        started = time.monotonic()
        report = Reporter(progress)
        with aborting(video):
            run, stages, summary = self._prepare(portrait, audio, settings, report, motion, references)
        again = Retake(
            seconds=seconds, seed=seed, sample=run.sample, video=video, decode=stages.decode, watch=report
        )
        run.watch = Watcher()  # the report follows the new clips only
        part = retake(run, DecodingSink(video, stages.decode), work, again)
        summary.frames = run.frames
        summary.retaken = [part[0].first, part[-1].first + part[-1].count]
        return _timed(summary, started, summary.retaken[1] - summary.retaken[0])

    def _prepare(
        self,
        portrait: Portrait,
        audio: Sound,
        settings: GenerateSettings | None,
        report: Reporter,
        motion: MotionCurves | None = None,
        references: Sequence[Portrait] = (),
        part: Part | None = None,
    ) -> tuple[Run, Stages, Summary]:
        """A run of inputs that are checked and encoded, what decodes its clips, and what is known of it before."""
        bundle, config = self.bundle, self.bundle.dit.config
        chosen = (settings or GenerateSettings()).resolve(bundle)
        assert chosen.size is not None and chosen.output_size is not None
        assert chosen.fps is not None and chosen.steps is not None
        # What is seen, heard and done.
        picture = portrait if isinstance(portrait, Tensor) else load_portrait(portrait)
        others = _aligned(references, picture, chosen)
        image = fit_to(picture, chosen.size, chosen.scaling)
        source = as_source(audio)
        if isinstance(source, AudioSource):
            source.pin()
        heard = PaddedSource(source, chosen.fps, config.clip_frames) if chosen.as_authors else source
        window = max(bundle.audio_projection.config.window, bundle.lips.window if bundle.lips is not None else 0)
        first = 0 if part is None else first_heard(part, config.clip_frames, window)
        hear = partial(AudioFeatures.encode, bundle.audio_encoder, heard, chosen.fps, first=first)
        features = hear()
        names, amount = bundle.audio_projection.config.movement, chosen.movement
        moves = Movement(names, seed=chosen.seed, fps=chosen.fps, amount=amount, curves=motion)
        # The portrait as the networks know it.
        stages = Stages(bundle, chosen.decode_batch)
        latent = stages.encode(image)
        decoded = stages.round_trip(latent)
        likeness = compare_portrait(image, from_unit(decoded)[0].cpu()).score
        if (warning := far_from_portrait(likeness)) is not None:
            log.warning("portrait: %s", warning)
        if chosen.carry:
            lips = bundle.lips if chosen.puppet else None
            face = None if lips is None else FaceMotion(lips, Hearing(hear), moves)
            stages.carry_detail(picture, decoded, chosen.output_size, face, others)
        # The plan, and all that the frames depend on.
        frames = heard.shown if isinstance(heard, PaddedSource) else features.frames
        plan = plan_part(part if part is not None else Part(0, 0, frames), config.clip_frames)
        frames = sum(clip.count for clip in plan)
        height, width = chosen.output_size
        summary = Summary(0, frames, 0.0, len(plan), chosen.fps, width, height, chosen.seed)
        summary.settings, summary.models = chosen.to_dict(), bundle.hashes()
        summary.drift.likeness = likeness
        fingerprint = {**run_fingerprint(chosen, image, source, bundle), "models": summary.models}
        if motion:
            fingerprint["motion"] = motion.fingerprint
        if chosen.carry:
            fingerprint["detail"] = tensor_sha256(picture)
        if others:
            fingerprint["references"] = [tensor_sha256(other) for other in others]
        if part is not None:
            fingerprint["part"] = [part.first, part.count]
        report.steps, report.drift_level = chosen.steps, summary.drift_level
        own = self.make_sampler(chosen, report.step_begins)
        sample = stages.guarded(own, lambda network: self.solver_sampler(chosen, report.step_begins, network))
        run = Run(
            plan=plan,
            portrait=latent,
            bank=MemoryBank.for_model(config, settings=chosen.memory, seed=chosen.seed),
            sample=conditioned(sample, stages.conditions(latent, features, moves)),
            clip_frames=config.clip_frames,
            fps=chosen.fps,
            size=chosen.output_size,
            seed=chosen.seed,
            fingerprint=fingerprint,
            watch=report,
            drift=summary.drift,
            steady=stages.draws_face,
        )
        return run, stages, summary

    def solver_sampler(
        self, settings: GenerateSettings, on_step: OnStep, network: LetsTalkDiT | None = None
    ) -> SolverClipSampler:
        """What samples a clip with resolved settings, if wanted on another network than the bundle's."""
        assert settings.steps is not None and settings.solver is not None
        assert settings.shift is not None and settings.cfg_audio is not None
        denoiser = make_denoiser(network if network is not None else self.bundle.dit)
        sigmas = make_sigmas(denoiser.prediction, settings.steps, settings.shift, schedule=settings.schedule)
        guidance = Guidance(audio=settings.cfg_audio, portrait=settings.cfg_portrait)
        return SolverClipSampler(denoiser, settings.solver, sigmas, guidance, seed=settings.seed, on_step=on_step)


def _aligned(references: Sequence[Portrait], portrait: Tensor, settings: GenerateSettings) -> list[Tensor]:
    """Pictures (h, w, 3) uint8 framed like the portrait. Raises: ConfigError, MediaError, FaceNotFoundError."""
    if not references:
        return []
    if not settings.carry:
        raise ConfigError(
            "references: are read by carry only; use a model with carry.safetensors, and do not switch it off"
        )
    pictures = {
        f"reference {i}" if isinstance(other, Tensor) else str(other): (
            other if isinstance(other, Tensor) else load_portrait(other)
        )
        for i, other in enumerate(references, 1)
    }
    return align_references(pictures, portrait)


@contextmanager
def aborting(sink: FrameSink, work: WorkFolder | None = None) -> Iterator[None]:
    """Nothing is left in a sink if the block fails, and a work folder is let go of."""
    try:
        yield
    except BaseException:
        sink.abort()
        if work is not None:
            work.leave()
        raise


def finished(summary: Summary, outcome: Outcome, started: float) -> Summary:
    """What came of a run that began at a moment of `time.monotonic`."""
    summary.frames, summary.resumed_clips = outcome.frames, outcome.resumed_clips
    summary.interrupted = outcome.interrupted
    return _timed(summary, started, outcome.frames - outcome.resumed_frames)


def _timed(summary: Summary, started: float, frames: int) -> Summary:
    summary.seconds = summary.frames / summary.fps
    summary.elapsed_seconds = time.monotonic() - started
    summary.frames_per_second = frames / max(summary.elapsed_seconds, 1e-9)
    return summary


def run_fingerprint(
    settings: GenerateSettings, image: Tensor, source: AudioSource | WaveformSource, bundle: ModelBundle
) -> dict[str, Any]:
    """Everything that the frames depend on, besides the weights."""
    sound = source.pin() if isinstance(source, AudioSource) else tensor_sha256(source.waveform)
    where: dict[str, Any] = {"version": FRAMES_VERSION, "device": bundle.device.type, "dtype": str(bundle.dtype)}
    where |= machine(bundle.device)
    return {**settings.to_dict(), **where, "portrait": tensor_sha256(image), "audio": sound}
