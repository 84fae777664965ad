"""From one portrait and a recording to a talking video, in constant memory for any length."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor

from . import __version__
from .audio.decode import AudioSource, Sound, WaveformSource, as_source
from .audio.features import AudioFeatures
from .autoencoder.tiling import Tiling
from .checkpoint import file_sha256
from .configs import DiTConfig
from .errors import ConfigError, NumericalError
from .long_video import Clip, generate_clips, plan_clips
from .memory_bank import MemoryBank, MemorySettings
from .models import ModelBundle
from .pixels import from_unit, to_unit
from .portrait.crop import fit_to
from .portrait.image import load_portrait
from .protocols import ClipSampler, FrameSink
from .resume import WorkFolder, tensor_sha256
from .sampling.clip import Guidance, SolverClipSampler
from .sampling.denoisers import make_denoiser
from .sampling.schedules import default_shift, make_sigmas
from .sampling.solvers import check_solver
from .video.threaded import ThreadedSink

__all__ = ["GenerateSettings", "Portrait", "Progress", "Summary", "TalkingPortrait"]

Portrait = Union[Tensor, str, Path]
WHOLE_FRAME_PIXELS = 1024 * 1024  # larger frames go through the autoencoder in tiles


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """How to generate. None is the model's own value: `steps` and `solver` follow what the network predicts."""

    steps: int | None = None
    solver: str | None = None
    schedule: str = "model"
    shift: float | None = None
    seed: int = 0
    fps: float | None = None
    cfg_audio: float | None = None
    cfg_portrait: float = 1.0
    size: tuple[int, int] | None = None  # height, width in pixels
    memory: MemorySettings | None = None
    match_statistics: bool = False  # adds the drift guard to `memory`
    decode_batch: int = 8  # frames

    def resolve(self, bundle: ModelBundle) -> GenerateSettings:
        """The same with every None replaced. Raises: ConfigError for values that cannot work with this model."""
        config = bundle.dit.config
        paper = config.prediction == "epsilon" and config.learned_variance
        steps, solver = (
            (250, "ddpm") if paper else (12, "euler") if config.prediction == "flow" else (30, "dpmpp_2m")
        )
        step = bundle.pixels_per_token
        trained = (config.grid_size[0] * step, config.grid_size[1] * step)
        size = self.size or trained
        if min(size) < step or size[0] % step or size[1] % step:
            raise ConfigError(
                f"size {size[1]}x{size[0]} must be multiples of {step}; the model was trained at"
                f" {trained[1]}x{trained[0]}"
            )
        fps = self.fps if self.fps is not None else config.fps
        if not 1 <= fps <= 240:
            raise ConfigError(f"fps={fps} must be between 1 and 240; the model was trained at {config.fps:g}")
        if self.decode_batch < 1:
            raise ConfigError(f"decode_batch={self.decode_batch} must be at least 1 frame")
        steps, solver = self.steps if self.steps is not None else steps, self.solver or solver
        check_solver(solver, config.prediction)
        shift = self.shift if self.shift is not None else default_shift(config)
        make_sigmas(config.prediction, steps, shift, schedule=self.schedule)
        cfg_audio = self.cfg_audio if self.cfg_audio is not None else config.audio_guidance
        Guidance(audio=cfg_audio, portrait=self.cfg_portrait)
        memory = self._memory(config)
        return replace(
            self, steps=steps, solver=solver, shift=shift, cfg_audio=cfg_audio, fps=fps, size=size, memory=memory
        )

    def _memory(self, config: DiTConfig) -> MemorySettings:
        memory = self.memory or MemorySettings(noise_sigma=config.memory_noise)
        return replace(memory, match_statistics=memory.match_statistics or self.match_statistics)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        return {**values, "size": list(self.size) if self.size else None}


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `clip` and `step` count sampled ones, `frames` those that the sink has."""

    clip: int
    clips: int
    step: int
    steps: int
    frames: int
    total_frames: int


@dataclass
class Summary:
    """What a run did."""

    frames: int
    total_frames: int
    seconds: float  # of video
    clips: int
    fps: float
    width: int
    height: int
    seed: int
    elapsed_seconds: float = 0.0
    frames_per_second: float = 0.0
    resumed_clips: int = 0
    interrupted: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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

        With `work`, finished clips are kept there, those of an earlier identical run are not sampled again, and
        the folder is removed at the end. KeyboardInterrupt (also from `progress`) closes the sink with the frames
        so far, if there are any, and returns a summary marked as interrupted; any other error aborts the sink and
        passes on.
        Raises: MediaError, ConfigError, NumericalError, OutputError.
        """
        started = time.monotonic()
        decoded: _Decoded | None = None
        decoding: FrameSink = sink
        summary: Summary | None = None
        try:
            resolved = (settings or GenerateSettings()).resolve(self.bundle)
            assert resolved.size is not None and resolved.fps is not None and resolved.steps is not None
            height, width = resolved.size
            image = self._image(portrait, resolved.size)
            source = as_source(audio)
            encoder = self.bundle.audio_encoder
            features = AudioFeatures.encode(encoder, source, resolved.fps)
            plan = plan_clips(features.frames, self.bundle.dit.config.clip_frames)
            summary = Summary(0, features.frames, 0.0, len(plan), resolved.fps, width, height, resolved.seed)
            summary.settings, summary.models = resolved.to_dict(), self.bundle.hashes()
            if work is not None:
                work.begin({**_fingerprint(resolved, image, source, self.bundle), "models": summary.models})
            report = _Reporter(progress, plan, resolved.steps, features.frames)
            decoded = _Decoded(sink, self._decode, plan)
            # One clip is decoded and written while the next is sampled.
            decoding = queue = ThreadedSink(decoded, capacity=-(-plan[0].count // resolved.decode_batch))
            for clip, latents in self._clips(image, features, plan, resolved, report, work, summary):
                for part in latents[0].split(resolved.decode_batch):
                    queue.write(part)
                if clip is plan[-1]:
                    queue.finish()
                report.clip_done(decoded.frames)
            queue.close()
        except KeyboardInterrupt:
            try:
                if summary is None or decoded is None:
                    raise
                queue.finish()
                if not decoded.frames:
                    raise
                queue.close(partial=True)
            except BaseException:
                decoding.abort()
                raise
            summary.interrupted = True
        except BaseException:
            decoding.abort()
            raise
        written = decoded.frames
        if work is not None and not summary.interrupted:
            work.remove()
        summary.frames, summary.seconds = written, written / summary.fps
        summary.elapsed_seconds = time.monotonic() - started
        summary.frames_per_second = written / max(summary.elapsed_seconds, 1e-9)
        return summary

    def _clips(
        self,
        image: Tensor,
        features: AudioFeatures,
        plan: list[Clip],
        settings: GenerateSettings,
        report: _Reporter,
        work: WorkFolder | None,
        summary: Summary,
    ) -> Any:
        bundle = self.bundle
        latent = self._encode(image)

        def tokens(first: int, count: int) -> Tensor:
            windows = features.windows(first, count, bundle.audio_projection.config.window)
            result: Tensor = bundle.audio_projection(windows[None].to(bundle.device, bundle.dtype))
            return result.float()

        def finished(clip: Clip) -> Tensor | None:
            latents = work.load(clip) if work is not None else None
            if latents is None or latents.shape[2:] != latent.shape[1:]:
                return None
            resumed.add(clip.index)
            summary.resumed_clips = len(resumed)
            return latents.to(latent)

        resumed: set[int] = set()
        clips = generate_clips(
            self.make_sampler(settings, report.step_begins),
            plan,
            portrait=latent,
            audio=tokens,
            bank=MemoryBank.for_model(bundle.dit.config, settings=settings.memory, seed=settings.seed),
            clip_frames=bundle.dit.config.clip_frames,
            seed=settings.seed,
            finished=finished,
        )
        for clip, latents in clips:
            if work is not None and clip.index not in resumed:
                work.save(clip, latents)
            yield clip, latents

    def _solver_sampler(
        self, settings: GenerateSettings, on_step: Callable[[int, int, int], None]
    ) -> SolverClipSampler:
        assert settings.steps is not None and settings.solver is not None
        assert settings.shift is not None and settings.cfg_audio is not None
        denoiser = make_denoiser(self.bundle.dit)
        sigmas = make_sigmas(denoiser.prediction, settings.steps, settings.shift, schedule=settings.schedule)
        guidance = Guidance(audio=settings.cfg_audio, portrait=settings.cfg_portrait)
        return SolverClipSampler(denoiser, settings.solver, sigmas, guidance, seed=settings.seed, on_step=on_step)

    def _image(self, portrait: Portrait, size: tuple[int, int]) -> Tensor:
        """The portrait at the size of the video: (h, w, 3) uint8."""
        image = portrait if isinstance(portrait, Tensor) else load_portrait(portrait)
        return fit_to(image, size)

    def _tiling(self, pixels: int) -> Tiling | None:
        return Tiling() if pixels > WHOLE_FRAME_PIXELS else None

    def _encode(self, image: Tensor) -> Tensor:
        """(h, w, 3) uint8 -> the portrait latent in model space (1, c, h/f, w/f), float32."""
        bundle = self.bundle
        x = to_unit(image[None].to(bundle.device))
        tiling = self._tiling(image.shape[0] * image.shape[1])
        latents = bundle.autoencoder.encode_frames(x.to(bundle.dtype), tiling=tiling)
        latents = latents.float() * bundle.autoencoder.config.scaling_factor
        if not torch.isfinite(latents).all():
            raise NumericalError(
                "the autoencoder gave NaN or infinity for the portrait; use float32 (--dtype float32)"
            )
        return latents

    @torch.no_grad()  # for each thread
    def _decode(self, latents: Tensor, clip: Clip) -> Tensor:
        """Model-space latents (t, c, h, w) -> frames (t, h, w, 3) uint8 on the CPU."""
        bundle = self.bundle
        factor = bundle.autoencoder.config.spatial_factor
        tiling = self._tiling(latents.shape[-1] * latents.shape[-2] * factor**2)
        z = (latents.to(bundle.device) / bundle.autoencoder.config.scaling_factor).to(bundle.dtype)
        images = bundle.autoencoder.decode_frames(z, batch=len(z), tiling=tiling).float()
        if not torch.isfinite(images).all():
            raise NumericalError(
                f"the autoencoder gave NaN or infinity in clip {clip.index + 1}; use float32 (--dtype float32)"
            )
        return from_unit(images).cpu().contiguous()


class _Decoded:
    """A sink of latents: decodes the frames of a plan in their order, and hands them to a sink of frames."""

    def __init__(self, sink: FrameSink, decode: Callable[[Tensor, Clip], Tensor], plan: list[Clip]) -> None:
        self.sink, self.decode, self.plan = sink, decode, plan
        self.frames = 0  # handed on

    def write(self, frames: Tensor) -> None:
        """Latents (t, c, h, w) of one clip."""
        clip = self.plan[self.frames // self.plan[0].count]
        self.sink.write(self.decode(frames, clip))
        self.frames += len(frames)

    def close(self, partial: bool = False) -> None:
        self.sink.close(partial=partial)

    def abort(self) -> None:
        self.sink.abort()


class _Reporter:
    """Turns the sampler's steps and finished clips into Progress events."""

    def __init__(
        self, progress: Callable[[Progress], None] | None, plan: list[Clip], steps: int, total_frames: int
    ) -> None:
        self.progress, self.clips, self.steps, self.total = progress, len(plan), steps, total_frames
        self.clip, self.frames = 0, 0

    def step_begins(self, clip: int, step: int, steps: int) -> None:
        self._send(step)

    def clip_done(self, frames: int) -> None:
        self.clip, self.frames = self.clip + 1, frames
        self._send(0)

    def _send(self, step: int) -> None:
        if self.progress is not None:
            self.progress(Progress(self.clip, self.clips, step, self.steps, self.frames, self.total))


def _fingerprint(
    settings: GenerateSettings, image: Tensor, source: AudioSource | WaveformSource, bundle: ModelBundle
) -> dict[str, Any]:
    """Everything that the frames depend on, besides the weights."""
    sound = file_sha256(source.path) if isinstance(source, AudioSource) else tensor_sha256(source.waveform)
    where = {"version": __version__, "device": bundle.device.type, "dtype": str(bundle.dtype)}
    return {**settings.to_dict(), **where, "portrait": tensor_sha256(image), "audio": sound}
