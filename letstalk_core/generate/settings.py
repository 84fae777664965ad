"""How to generate, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import ConfigError
from ..networks.configs import DiTConfig
from ..networks.load import ModelBundle
from ..sampling.clip import Guidance
from ..sampling.drift import DriftLog
from ..sampling.guidance import Scale
from ..sampling.memory_bank import MemorySettings
from ..sampling.motion import check_amount
from ..sampling.schedules import default_shift, default_steps, make_sigmas
from ..sampling.solvers import check_solver
from .detail import check_output_size


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """How to generate. None is the model's own value: `steps` and `solver` follow what the network predicts."""

    steps: int | None = None
    solver: str | None = None
    schedule: str = "model"
    shift: float | None = None
    seed: int = 0
    fps: float | None = None
    cfg_audio: Scale | None = None
    cfg_portrait: Scale = 1.0
    size: tuple[int, int] | None = None  # height, width in pixels, as the network samples them
    carry: bool = True  # the portrait's own detail in the frames, where the model has the masks for it, and
    output_size: tuple[int, int] | None = None  # of the frames then; None: `size`
    puppet: bool = True  # the face of a photograph from the portrait itself, where the model has lips for it
    memory: MemorySettings | None = None
    match_statistics: bool = False  # adds it to `memory`, as does
    drift_level: float = 0.0
    movement: float = 1.0  # amount of head, brow and gaze, for models conditioned on motion
    decode_batch: int = 8  # frames
    as_authors: bool = False  # frames counted, sound padded, portrait scaled as in docs/model.md, Interchange

    def resolve(self, bundle: ModelBundle) -> GenerateSettings:
        """The same with every None replaced. Raises: ConfigError for values that cannot work with this model."""
        config = bundle.dit.config
        paper = config.prediction == "epsilon" and config.learned_variance
        solver = "ddpm" if paper else "euler" if config.prediction == "flow" else "dpmpp_2m"
        steps = 250 if paper and not config.steps else default_steps(config)
        step = bundle.pixels_per_token
        trained = (config.grid_size[0] * step, config.grid_size[1] * step)
        size = self.size or trained
        if min(size) < step or size[0] % step or size[1] % step:
            raise ConfigError(
                f"size {size[1]}x{size[0]} must be multiples of {step}; the model was trained at"
                f" {trained[1]}x{trained[0]}"
            )
        carry = self.carry and bundle.carry is not None
        output = self._output(size, carry)
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
        check_amount(self.movement)
        memory = self._memory(config)
        return replace(
            self,
            steps=steps,
            solver=solver,
            shift=shift,
            cfg_audio=cfg_audio,
            fps=fps,
            size=size,
            carry=carry,
            puppet=self.puppet and carry and bundle.lips is not None,
            output_size=output,
            memory=memory,
        )

    def _output(self, size: tuple[int, int], carry: bool) -> tuple[int, int]:
        output = self.output_size or size
        check_output_size(size, output)
        if output != size and not carry:
            raise ConfigError(
                f"output size {output[1]}x{output[0]}: frames have {size[1]}x{size[0]}, and only carry makes"
                " others of them; use a model with carry.safetensors, and do not switch it off"
            )
        return output

    def _memory(self, config: DiTConfig) -> MemorySettings:
        memory = self.memory or MemorySettings(noise_sigma=config.memory_noise)
        return replace(
            memory,
            match_statistics=memory.match_statistics or self.match_statistics,
            drift_level=self.drift_level or memory.drift_level,
        )

    @property
    def scaling(self) -> str:
        """How the portrait is brought to `size`."""
        return "bilinear" if self.as_authors else "bicubic"

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `as_authors` only where it is on, so that runs of earlier versions go on."""
        values = asdict(self)
        if not self.as_authors:
            del values["as_authors"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


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
    retaken: list[int] = field(default_factory=list)  # frames made anew: the first, and the first after them
    settings: dict[str, Any] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    drift: DriftLog = field(default_factory=DriftLog)  # of all clips of the video so far

    @property
    def drift_level(self) -> float:
        return float((self.settings.get("memory") or {}).get("drift_level", 0.0))

    @property
    def likeness(self) -> float | None:
        """The lowest drift score of the last clip, where there is a level for it."""
        return self.drift.lowest() if self.drift_level > 0 and self.drift.scores else None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "drift": self.drift.to_dict(self.drift_level)}
