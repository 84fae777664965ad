"""One request to sample the clips of a video: inputs checked, clips planned, memory bank at hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.generate.drift_plot import drift_plot
from ...letstalk_core.networks.configs import DiTConfig
from ...letstalk_core.networks.load import DEMO_FOLDER
from ...letstalk_core.pixels import from_bytes
from ...letstalk_core.sampling.clip import Clip
from ...letstalk_core.sampling.drift import DriftLog
from ...letstalk_core.sampling.long_video import plan_clips
from ...letstalk_core.sampling.memory_bank import MemoryBank, MemorySettings
from ...letstalk_core.sampling.motion import Movement
from .clip_sampler import check_guider, default_sampler
from .conditions import NOT_OURS, check_portrait, check_track
from .guider import make_guider, make_model_sigmas
from .model import letstalk_model


@dataclass(frozen=True, kw_only=True)
class BankSettings:
    """How the memory bank works; None is the model's own value."""

    noise_sigma: float | None = None
    match_statistics: bool = False
    recent_frames: int | None = None
    anchor_frames: int | None = None
    drift_level: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ClipRun:
    """Inputs of a sampling node, checked against each other; `render` makes them into clips.

    `bank` then holds what the next run goes on from, and `drift` how much the clips are like the portrait.

    portrait: (1, c, h, w) float32 on the CPU. plan: `first` counts frames of the recording and `index` clips since
    the bank was cold, so that chained runs repeat what one long run does.
    """

    guider: Any
    config: DiTConfig
    track: Any
    portrait: Tensor
    bank: MemoryBank
    plan: list[Clip]
    sampler: Any
    sigmas: Tensor
    seed: int
    noise: Any
    rgb: Any
    moves: Movement  # of head, lids and gaze
    picture: Tensor | None = None  # the portrait (H, W, 3) uint8 as it was given, in its own resolution
    drift: DriftLog = field(default_factory=DriftLog)

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def frames(self) -> int:
        return sum(clip.count for clip in self.plan)

    @property
    def fps(self) -> float:
        return float(self.track.fps)

    @property
    def first_frame(self) -> int:
        return self.plan[0].first

    @property
    def summary(self) -> dict[str, Any]:
        """What the browser shows of a finished run."""
        seconds, model = self.frames / self.fps, model_name(self.guider.model_patcher)
        return {"clips": len(self.plan), "frames": self.frames, "seconds": seconds, "model": model}

    def clip_name(self, clip: Clip) -> str:
        """What people call a clip of the plan."""
        return f"clip {clip.index - self.plan[0].index + 1} of {len(self.plan)}"

    def drift_image(self) -> Tensor:
        """IMAGE (1, h, w, 3): the scores of the clips so far."""
        return from_bytes(drift_plot(self.drift, self.bank.settings.drift_level))[None]


def prepare_run(
    *,
    model: Any = None,
    positive: Any = None,
    guider: Any = None,
    seed: int,
    steps: int,
    schedule: str,
    audio_scale: Any,
    portrait_scale: Any,
    max_frames: int = 0,
    sampler: Any = None,
    sigmas: Tensor | None = None,
    noise: Any = None,
    memory_settings: BankSettings | None = None,
    memory: MemoryBank | None = None,
) -> ClipRun:
    """Check the inputs of a sampling node against each other. Raises: ConfigError naming the input."""
    if guider is None:
        if model is None or positive is None:
            raise ConfigError("connect either guider, or model and positive")
        guider = make_guider(model, positive, audio_scale, portrait_scale)
    portrait, entry = read_conditions(guider)
    network = letstalk_model(guider.model_patcher)
    config, track, first = network.dit_config, entry["letstalk_audio"], int(entry.get("letstalk_first_frame", 0))
    left = track.frames - first
    if left < 1:
        raise ConfigError(f"positive: first_frame={first} lies behind the speech, which has {track.frames} frames")
    seed = int(getattr(noise, "seed", seed)) if noise is not None else seed
    bank = make_bank(config, portrait, seed, memory_settings, memory, str(entry.get("letstalk_autoencoder") or ""))
    plan = [
        Clip(clip.index + bank.clips_written, clip.first + first, clip.count)
        for clip in plan_clips(min(left, max_frames) if max_frames > 0 else left, config.clip_frames)
    ]
    if sigmas is None:
        sigmas = make_model_sigmas(guider.model_patcher, steps, schedule)
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ConfigError(f"sigmas: has shape {list(sigmas.shape)}; needs at least 1 step, that is 2 numbers")
    return ClipRun(
        guider=guider,
        config=config,
        track=track,
        portrait=portrait,
        bank=bank,
        plan=plan,
        sampler=sampler if sampler is not None else default_sampler(config.prediction),
        sigmas=sigmas,
        seed=seed,
        noise=noise,
        rgb=entry.get("letstalk_rgb"),
        picture=entry.get("letstalk_picture"),
        moves=Movement(
            network.projection_config.movement,
            seed=seed,
            fps=track.fps,
            amount=entry.get("letstalk_movement", 1.0),
            curves=entry.get("letstalk_motion"),
        ),
    )


def model_name(patcher: Any) -> str:
    """What a MODEL is called, for people."""
    path = letstalk_model(patcher).path
    if path is None:
        return "unnamed model"
    return "demo" if path.parent == DEMO_FOLDER else f"{path.parent.name}/{path.stem}"


def read_conditions(guider: Any) -> tuple[Tensor, dict[str, Any]]:
    """The portrait (1, c, h, w) in a guider's conditions, and all that LetsTalk Conditioning put into one of them,
    checked against the guider's model. Raises: ConfigError."""
    conds = check_guider(guider)
    model = letstalk_model(guider.model_patcher)
    ordered = sorted(conds, key=lambda name: name != "positive")
    entry = next((c for name in ordered for c in conds[name] if c.get("letstalk_audio") is not None), None)
    if entry is None or not entry.get("reference_latents"):
        raise ConfigError(NOT_OURS.format("positive"))
    check_track(entry["letstalk_audio"], model.projection_config)
    latents = entry["reference_latents"][-1]
    size = tuple(latents.shape[-2:])
    portrait = check_portrait(latents, model.dit_config, size).detach().to("cpu", torch.float32)
    if len(portrait) != 1:
        raise ConfigError(f"positive: holds {len(portrait)} portraits; encode one picture")
    return portrait, entry


def make_bank(
    config: DiTConfig,
    portrait: Tensor,
    seed: int,
    settings: BankSettings | None,
    memory: MemoryBank | None,
    autoencoder: str = "",
) -> MemoryBank:
    """A bank of this run's own: empty, or a copy of `memory`. Raises: ConfigError if that does not fit."""
    wanted = settings or BankSettings()
    sigma = config.memory_noise if wanted.noise_sigma is None else wanted.noise_sigma
    read = MemorySettings(
        noise_sigma=sigma, match_statistics=wanted.match_statistics, drift_level=wanted.drift_level
    )
    recent = config.memory_frames if wanted.recent_frames is None else wanted.recent_frames
    anchors = config.anchor_frames if wanted.anchor_frames is None else wanted.anchor_frames
    bank = MemoryBank(recent, anchors, settings=read, seed=seed)
    bank.latent_space = autoencoder
    if memory is None:
        return bank
    if settings is None:
        bank.settings = memory.settings
    if (memory.recent, memory.anchors) != (recent, anchors):
        raise ConfigError(
            f"memory: keeps {memory.recent} recent and {memory.anchors} anchor frames, this run needs {recent} and"
            f" {anchors}; use the model, and the memory settings, that it was made with"
        )
    if memory.latent_space and autoencoder and memory.latent_space != autoencoder:
        raise ConfigError(
            f"memory: was made with the autoencoder {memory.latent_space}, this portrait is encoded with"
            f" {autoencoder}; use the same one"
        )
    state = memory.state_dict()
    there, here = list(state["portrait"].shape), list(portrait.shape)
    if there != here:
        raise ConfigError(
            f"memory: holds latents of {there[1]} channels and {there[3]} x {there[2]} positions, this portrait"
            f" has {here[1]} channels and {here[3]} x {here[2]}; use the same model and picture size"
        )
    bank.load_state_dict(state)
    bank.seed = seed
    return bank
