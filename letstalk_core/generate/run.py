"""From one portrait and a recording to a talking video, in constant memory for any length."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor

from .. import __version__
from ..errors import ConfigError, OutputError
from ..files import file_sha256
from ..media.audio.decode import AudioSource, Sound, WaveformSource, as_source
from ..media.audio.features import AudioFeatures
from ..media.portrait.crop import fit_to
from ..media.portrait.image import load_portrait
from ..media.video.segments import SegmentedVideo, segment_clips, segment_path
from ..media.video.threaded import ThreadedSink
from ..networks.load import ModelBundle
from ..networks.transformer.dit import LetsTalkDiT
from ..protocols import ClipSampler, FrameSink, ResumableSink
from ..sampling.clip import Guidance, SolverClipSampler
from ..sampling.denoisers import make_denoiser
from ..sampling.long_video import Clip, generate_clips, plan_clips
from ..sampling.memory_bank import MemoryBank
from ..sampling.motion import Movement
from ..sampling.schedules import make_sigmas
from .disk_space import with_shortage
from .progress import Progress, Reporter
from .retake import Take, plan_take, take_clips
from .settings import GenerateSettings, Summary
from .stages import DecodingSink, GuardedSampler, Stages
from .takes import take_folder
from .work_folder import WorkFolder, resumable_clips, tensor_sha256

__all__ = ["GenerateSettings", "Portrait", "Progress", "Summary", "TalkingPortrait"]

Portrait = Union[Tensor, str, Path]


@dataclass
class _Job:
    """What a run works with. image: (h, w, 3) uint8. `tokens(first, count)` gives those of the speech, and
    `movement` those of how head and eyes move."""

    settings: GenerateSettings
    steps: int
    stages: Stages
    image: Tensor
    tokens: Callable[[int, int], Tensor]
    movement: Callable[[int, int], Tensor | None]
    bank: MemoryBank
    plan: list[Clip]
    summary: Summary
    fingerprint: dict[str, Any]


class TalkingPortrait:
    """Generates with one bundle of models; holds no state between runs.

    `make_sampler(settings, on_step)` may replace how a clip is sampled.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        make_sampler: Callable[[GenerateSettings, Callable[[int, int, int], None]], ClipSampler] | None = None,
    ) -> None:
        self.bundle = bundle
        self.make_sampler = make_sampler or self._solver_sampler

    @torch.no_grad()
    def generate(
        self,
        portrait: Portrait,
        audio: Sound,
        sink: FrameSink,
        settings: GenerateSettings | None = None,
        progress: Callable[[Progress], None] | None = None,
        work: WorkFolder | None = None,
    ) -> Summary:
        """Write round(seconds * fps) frames to `sink`, clip by clip, and close it.

        With `work`, finished clips are kept there, those of an earlier identical run are not made again, and the
        folder is removed at the end. KeyboardInterrupt (also from `progress`) closes the sink with the frames
        so far, if there are any, and returns a summary marked as interrupted; any other error aborts the sink and
        passes on. A stage that gives NaN or infinity is repeated once in float32 with plain attention.
        Raises: MediaError, ConfigError, NumericalError, OutputError.
        """
        started = time.monotonic()
        first = 0
        decoded: DecodingSink | None = None
        queue: ThreadedSink | None = None
        summary: Summary | None = None
        try:
            job = self._job(portrait, audio, settings)
            plan, summary = job.plan, job.summary
            if work is not None:
                work.begin(job.fingerprint)
                if isinstance(sink, ResumableSink):
                    first = sink.held
                    sink.resume_at(first)
            report = Reporter(progress, len(plan), job.steps, summary.total_frames)
            decoded = DecodingSink(sink, job.stages.decode, plan, first)
            # One clip is decoded and written while the next is sampled.
            queue = ThreadedSink(decoded, capacity=math.ceil(plan[0].count / job.settings.decode_batch))
            for clip, latents in self._clips(job, report, work, sink):
                if clip.first >= first:
                    for part in latents[0].split(job.settings.decode_batch):
                        queue.write(part)
                if clip.index == plan[-1].index:
                    queue.finish()
                report.clip_done(decoded.frames, summary.likeness)
            queue.close()
        except KeyboardInterrupt:
            try:
                if summary is None or decoded is None or queue is None:
                    raise
                queue.finish()
                if not decoded.frames:
                    raise
                queue.close(partial=True)
            except BaseException:
                (queue or sink).abort()
                _leave(work)
                raise
            summary.interrupted = True
        except BaseException as error:
            (queue or sink).abort()
            if work is not None and summary is not None and isinstance(error, OutputError):
                error = self._with_shortage(error, work, sink, summary)
            _leave(work)
            raise error
        if work is not None:
            work.end(interrupted=summary.interrupted)
        written = decoded.frames
        summary.frames, summary.seconds = written, written / summary.fps
        summary.elapsed_seconds = time.monotonic() - started
        summary.frames_per_second = (written - first) / max(summary.elapsed_seconds, 1e-9)
        return summary

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
    ) -> Summary:
        """Make a part of a finished video anew with other noise, and join the video again (see `retake`).

        `work` is the folder of that run, and all arguments but the last of the required ones are its own.
        `seconds`: from and to. Killed at any moment, the same call continues, and until it ends the video is the
        old one. Raises: ConfigError if the folder is not complete, and what `generate` raises.
        """
        started = time.monotonic()
        try:
            job = self._job(portrait, audio, settings)
            plan, summary, fps = job.plan, job.summary, job.summary.fps
            clip_frames = self.bundle.dit.config.clip_frames
            segment = segment_clips(fps, clip_frames)
            work.begin(job.fingerprint)
            if video.held != summary.total_frames:
                raise ConfigError(
                    f"{work.folder}: holds {video.held} of {summary.total_frames} frames; finish the video first"
                )
            takes = work.takes
            take = plan_take(plan, fps, segment, *seconds, seed, takes)
            part = plan[take.first : take.last + 1]
            if take.number > len(takes):
                report = Reporter(progress, len(part), job.steps, sum(clip.count for clip in part))
                self._retake(job, work, take, video, report)
                work.finish_take()
            video.join(summary.total_frames)
            summary.drift = work.drift(math.ceil(len(plan) / segment))
        finally:
            video.abort()
            work.release()
        summary.frames, summary.seconds = summary.total_frames, summary.total_frames / fps
        summary.retaken = [part[0].first, part[-1].first + part[-1].count]
        summary.elapsed_seconds = time.monotonic() - started
        summary.frames_per_second = sum(clip.count for clip in part) / max(summary.elapsed_seconds, 1e-9)
        return summary

    def _retake(self, job: _Job, work: WorkFolder, take: Take, video: SegmentedVideo, report: Reporter) -> None:
        """The clips of a take and the segments they are in, into its folder."""
        clip_frames, fps = self.bundle.dit.config.clip_frames, job.summary.fps
        segment = segment_clips(fps, clip_frames)
        portrait = job.stages.encode(job.image)
        clips = take_clips(
            work,
            job.plan,
            take,
            sample=self._guarded_sampler(job, report),
            portrait=portrait,
            audio=job.tokens,
            movement=job.movement,
            bank=job.bank,
            clip_frames=clip_frames,
            fps=fps,
            drift=job.summary.drift,
        )
        pictures: list[Tensor] = []
        done = 0
        for clip, latents in clips:
            pictures += self._frames(job, latents.to(portrait), clip)
            if (clip.index + 1) % segment == 0 or clip.index == take.last:
                index = clip.index // segment
                video.write_segment(segment_path(take_folder(work.folder), index), torch.cat(pictures))
                work.save_drift(index, job.summary.drift.since(index * segment), take_folder(work.folder))
                pictures = []
            done += clip.count
            report.clip_done(done, job.summary.likeness)

    def _job(self, portrait: Portrait, audio: Sound, settings: GenerateSettings | None) -> _Job:
        """Inputs and settings, checked and encoded."""
        bundle = self.bundle
        resolved = (settings or GenerateSettings()).resolve(bundle)
        assert resolved.size is not None and resolved.fps is not None and resolved.steps is not None
        height, width = resolved.size
        image = self._image(portrait, resolved.size)
        source = as_source(audio)
        features = AudioFeatures.encode(bundle.audio_encoder, source, resolved.fps)
        plan = plan_clips(features.frames, bundle.dit.config.clip_frames)
        summary = Summary(0, features.frames, 0.0, len(plan), resolved.fps, width, height, resolved.seed)
        summary.settings, summary.models = resolved.to_dict(), bundle.hashes()
        fingerprint = {**_fingerprint(resolved, image, source, bundle), "models": summary.models}

        def tokens(first: int, count: int) -> Tensor:
            return stages.tokens(features, first, count)

        moves = Movement(
            bundle.audio_projection.config.movement,
            seed=resolved.seed,
            fps=resolved.fps,
            amount=resolved.movement,
        )

        def movement(first: int, count: int) -> Tensor | None:
            return stages.movement(moves, first, count)

        stages = Stages(bundle)
        bank = MemoryBank.for_model(bundle.dit.config, settings=resolved.memory, seed=resolved.seed)
        return _Job(resolved, resolved.steps, stages, image, tokens, movement, bank, plan, summary, fingerprint)

    def _frames(self, job: _Job, latents: Tensor, clip: Clip) -> Iterator[Tensor]:
        """Pictures of a clip, a batch at a time."""
        return (job.stages.decode(part, clip) for part in latents[0].split(job.settings.decode_batch))

    def _clips(
        self, job: _Job, report: Reporter, work: WorkFolder | None, sink: FrameSink
    ) -> Iterator[tuple[Clip, Tensor]]:
        plan, summary, config = job.plan, job.summary, self.bundle.dit.config
        portrait = job.stages.encode(job.image)
        sampler = self._guarded_sampler(job, report)

        def make(part: list[Clip], finished: Callable[[Clip], Tensor | None] | None) -> Any:
            summary.resumed_clips = len(plan) - len(part)
            report.start_at(len(plan) - len(part), part[0].first if part else summary.total_frames)
            return generate_clips(
                sampler,
                part,
                portrait=portrait,
                audio=job.tokens,
                movement=job.movement,
                bank=job.bank,
                clip_frames=config.clip_frames,
                seed=job.settings.seed,
                finished=finished,
                drift=summary.drift,
            )

        if work is None:
            yield from make(plan, None)
            return
        clips = resumable_clips(
            work,
            plan,
            job.bank,
            segment_clips(summary.fps, config.clip_frames),
            (lambda: sink.held) if isinstance(sink, ResumableSink) else lambda: 0,
            make,
            summary.drift,
        )
        for clip, latents, known in clips:
            summary.resumed_clips += known
            yield clip, latents.to(portrait)

    def _with_shortage(
        self, error: OutputError, work: WorkFolder, sink: FrameSink, summary: Summary
    ) -> OutputError:
        clip_frames = self.bundle.dit.config.clip_frames
        return with_shortage(
            error,
            work.folder,
            frames=summary.total_frames,
            held=sink.held if isinstance(sink, ResumableSink) else 0,
            fps=summary.fps,
            pixels=summary.width * summary.height,
            segment_frames=clip_frames * segment_clips(summary.fps, clip_frames),
            clip_frames=clip_frames,
            keep=work.keep,
        )

    def _guarded_sampler(self, job: _Job, report: Reporter) -> GuardedSampler:
        """`make_sampler`'s, and for clips that it spoils the solver on the network in float32."""
        own, on_step = self.make_sampler(job.settings, report.step_begins), report.step_begins

        def exact(network: LetsTalkDiT) -> SolverClipSampler:
            return self._solver_sampler(job.settings, on_step, network)

        return GuardedSampler(own, exact, self.bundle.dit, job.stages.guard)

    def _solver_sampler(
        self,
        settings: GenerateSettings,
        on_step: Callable[[int, int, int], None],
        network: LetsTalkDiT | None = None,
    ) -> SolverClipSampler:
        assert settings.steps is not None and settings.solver is not None
        assert settings.shift is not None and settings.cfg_audio is not None
        denoiser = make_denoiser(network if network is not None else self.bundle.dit)
        sigmas = make_sigmas(denoiser.prediction, settings.steps, settings.shift, schedule=settings.schedule)
        guidance = Guidance(audio=settings.cfg_audio, portrait=settings.cfg_portrait)
        return SolverClipSampler(denoiser, settings.solver, sigmas, guidance, seed=settings.seed, on_step=on_step)

    def _image(self, portrait: Portrait, size: tuple[int, int]) -> Tensor:
        """The portrait at the size of the video: (h, w, 3) uint8."""
        image = portrait if isinstance(portrait, Tensor) else load_portrait(portrait)
        return fit_to(image, size)


def _leave(work: WorkFolder | None) -> None:
    if work is not None:
        work.leave()


def _fingerprint(
    settings: GenerateSettings, image: Tensor, source: AudioSource | WaveformSource, bundle: ModelBundle
) -> dict[str, Any]:
    """Everything that the frames depend on, besides the weights."""
    sound = file_sha256(source.path) if isinstance(source, AudioSource) else tensor_sha256(source.waveform)
    where: dict[str, Any] = {"version": __version__, "device": bundle.device.type, "dtype": str(bundle.dtype)}
    if bundle.device.type == "cpu":
        where["threads"] = torch.get_num_threads()  # sums are split among them, and so rounded
    return {**settings.to_dict(), **where, "portrait": tensor_sha256(image), "audio": sound}
