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
from .autoencoder.dc_ae import AutoencoderDC
from .autoencoder.tiling import Tiling
from .checkpoint import file_sha256
from .configs import DiTConfig
from .drift_guard import DriftLog
from .errors import ConfigError
from .long_video import Clip, generate_clips, plan_clips
from .memory_bank import MemoryBank, MemorySettings
from .models import ModelBundle
from .numerical_guard import NumericalGuard
from .pixels import from_unit, to_unit
from .portrait.crop import fit_to
from .portrait.image import load_portrait
from .protocols import ClipSampler, FrameSink
from .resume import WorkFolder, tensor_sha256
from .sampling.clip import Guidance, SolverClipSampler
from .sampling.denoisers import make_denoiser
from .sampling.schedules import default_shift, make_sigmas
from .sampling.solvers import check_solver
from .transformer.dit import LetsTalkDiT

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
    match_statistics: bool = False  # adds it to `memory`, as does
    drift_level: float = 0.0
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
        return replace(
            memory,
            match_statistics=memory.match_statistics or self.match_statistics,
            drift_level=self.drift_level or memory.drift_level,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        return {**values, "size": list(self.size) if self.size else None}


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `clip` and `step` count finished ones."""

    clip: int
    clips: int
    step: int
    steps: int
    frames: int
    total_frames: int
    likeness: float | None = None  # lowest drift score of the last clip, where there is a level for it


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
    drift: DriftLog = field(default_factory=DriftLog)

    @property
    def drift_level(self) -> float:
        return float((self.settings.get("memory") or {}).get("drift_level", 0.0))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "drift": self.drift.to_dict(self.drift_level)}


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
        passes on. A stage that gives NaN or infinity is repeated once in float32 with plain attention.
        Raises: MediaError, ConfigError, NumericalError, OutputError.
        """
        started = time.monotonic()
        written = 0
        summary: Summary | None = None
        try:
            resolved = (settings or GenerateSettings()).resolve(self.bundle)
            assert resolved.size is not None and resolved.fps is not None and resolved.steps is not None
            height, width = resolved.size
            image, guard = self._image(portrait, resolved.size), NumericalGuard()
            source = as_source(audio)
            encoder = self.bundle.audio_encoder
            features = AudioFeatures.encode(encoder, source, resolved.fps)
            plan = plan_clips(features.frames, self.bundle.dit.config.clip_frames)
            summary = Summary(0, features.frames, 0.0, len(plan), resolved.fps, width, height, resolved.seed)
            summary.settings, summary.models = resolved.to_dict(), self.bundle.hashes()
            if work is not None:
                work.begin({**_fingerprint(resolved, image, source, self.bundle), "models": summary.models})
            report = _Reporter(progress, plan, resolved.steps, features.frames)
            for clip, latents in self._clips(image, features, plan, resolved, report, work, summary, guard):
                for part in latents[0].split(resolved.decode_batch):
                    sink.write(self._decode(part, clip, guard))
                    written += len(part)
                scored = resolved.memory is not None and resolved.memory.drift_level > 0
                report.clip_done(written, summary.drift.scores[-1].lowest if scored else None)
            sink.close()
        except KeyboardInterrupt:
            if summary is None or not written:
                sink.abort()
                raise
            try:
                sink.close(partial=True)
            except BaseException:
                sink.abort()
                raise
            summary.interrupted = True
        except BaseException:
            sink.abort()
            raise
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
        guard: NumericalGuard,
    ) -> Any:
        bundle = self.bundle
        latent = self._encode(image, guard)

        def tokens(first: int, count: int) -> Tensor:
            windows = features.windows(first, count, bundle.audio_projection.config.window)[None]
            stage = f"audio projection of clip {first // bundle.dit.config.clip_frames + 1}"
            return guard(
                stage,
                bundle.audio_projection,
                lambda network: network(windows.to(bundle.device, _dtype(network))).float(),
            )

        def finished(clip: Clip) -> Tensor | None:
            latents = work.load(clip) if work is not None else None
            if latents is None or latents.shape[2:] != latent.shape[1:] or not torch.isfinite(latents).all():
                return None
            resumed.add(clip.index)
            summary.resumed_clips = len(resumed)
            return latents.to(latent)

        resumed: set[int] = set()
        clips = generate_clips(
            self._guarded_sampler(settings, report.step_begins, guard),
            plan,
            portrait=latent,
            audio=tokens,
            bank=MemoryBank.for_model(bundle.dit.config, settings=settings.memory, seed=settings.seed),
            clip_frames=bundle.dit.config.clip_frames,
            seed=settings.seed,
            finished=finished,
            drift=summary.drift,
        )
        for clip, latents in clips:
            if work is not None and clip.index not in resumed:
                work.save(clip, latents)
            yield clip, latents

    def _guarded_sampler(
        self, settings: GenerateSettings, on_step: Callable[[int, int, int], None], guard: NumericalGuard
    ) -> ClipSampler:
        """`make_sampler`'s, and for clips that it spoils the solver on the network in float32."""
        own, dit = self.make_sampler(settings, on_step), self.bundle.dit

        def sample(noise: Tensor, conditions: Any, *, clip_index: int) -> Tensor:
            def run(network: LetsTalkDiT) -> Tensor:
                sampler = own if network is dit else self._solver_sampler(settings, on_step, network)
                return sampler(noise, conditions, clip_index=clip_index)

            return guard(f"sampling of clip {clip_index + 1}", dit, run)

        return sample

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

    def _tiling(self, pixels: int) -> Tiling | None:
        return Tiling() if pixels > WHOLE_FRAME_PIXELS else None

    def _encode(self, image: Tensor, guard: NumericalGuard) -> Tensor:
        """(h, w, 3) uint8 -> the portrait latent in model space (1, c, h/f, w/f), float32."""
        x = to_unit(image[None].to(self.bundle.device))
        tiling = self._tiling(image.shape[0] * image.shape[1])

        def encode(network: AutoencoderDC) -> Tensor:
            latents = network.encode_frames(x.to(_dtype(network)), tiling=tiling)
            return latents.float() * network.config.scaling_factor

        return guard("encoding of the portrait", self.bundle.autoencoder, encode)

    def _decode(self, latents: Tensor, clip: Clip, guard: NumericalGuard) -> Tensor:
        """Model-space latents (t, c, h, w) -> frames (t, h, w, 3) uint8 on the CPU."""
        config = self.bundle.autoencoder.config
        tiling = self._tiling(latents.shape[-1] * latents.shape[-2] * config.spatial_factor**2)

        def decode(network: AutoencoderDC) -> Tensor:
            z = (latents / config.scaling_factor).to(_dtype(network))
            return network.decode_frames(z, batch=len(z), tiling=tiling).float()

        images = guard(f"decoding of clip {clip.index + 1}", self.bundle.autoencoder, decode)
        return from_unit(images).cpu().contiguous()


def _dtype(network: torch.nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


class _Reporter:
    """Turns the sampler's steps and finished clips into Progress events."""

    def __init__(
        self, progress: Callable[[Progress], None] | None, plan: list[Clip], steps: int, total_frames: int
    ) -> None:
        self.progress, self.clips, self.steps, self.total = progress, len(plan), steps, total_frames
        self.clip, self.frames = 0, 0
        self.likeness: float | None = None

    def step_begins(self, clip: int, step: int, steps: int) -> None:
        self._send(step)

    def clip_done(self, frames: int, likeness: float | None) -> None:
        self.clip, self.frames, self.likeness = self.clip + 1, frames, likeness
        self._send(0)

    def _send(self, step: int) -> None:
        if self.progress is not None:
            now = Progress(self.clip, self.clips, step, self.steps, self.frames, self.total, self.likeness)
            self.progress(now)


def _fingerprint(
    settings: GenerateSettings, image: Tensor, source: AudioSource | WaveformSource, bundle: ModelBundle
) -> dict[str, Any]:
    """Everything that the frames depend on, besides the weights."""
    sound = file_sha256(source.path) if isinstance(source, AudioSource) else tensor_sha256(source.waveform)
    where = {"version": __version__, "device": bundle.device.type, "dtype": str(bundle.dtype)}
    return {**settings.to_dict(), **where, "portrait": tensor_sha256(image), "audio": sound}
