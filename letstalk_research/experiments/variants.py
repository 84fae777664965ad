"""What is trained in an experiment: a small denoiser, and the few settings in which a variant differs from it.

The network is as small as one CPU core can train in minutes, so results say which choice learns faster at that
size, not how a trained large model would do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from letstalk_core.errors import ConfigError
from letstalk_core.networks.configs import AudioProjectionConfig, Config, DiTConfig

from ..data.latents import LatentStore
from ..data.manifest import Manifest
from ..training.config import Count, DataConfig, DiTObjective, DiTRecipe, LoopConfig, OptimizerConfig

NEVER = 10**9  # an interval in steps that no run reaches: the thing then happens once, at the end
STEADY_DECAY = 0.995  # of the averaged weights
# What the networks predict where an experiment does not vary it, as settings of the network
PREDICTIONS: dict[str, dict[str, Any]] = {
    "sample": {"prediction": "flow", "output": "sample"},  # a narrow network need not carry the noise
    "flow": {"prediction": "flow", "output": "prediction"},
    "v": {"prediction": "v", "output": "prediction"},
}


@dataclass(frozen=True)
class Variant:
    """A row of an experiment: settings of the network and of its training that differ from the base."""

    name: str  # also the name of its folder
    model: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "model": dict(self.model), "objective": dict(self.objective)}


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What an encoded folder says of itself. Distances are root mean squares over latent numbers."""

    folder: Path
    clips: int  # to train on
    validation_clips: int
    channels: int
    grid: tuple[int, int]
    image_size: int  # pixels
    audio_layers: int
    audio_dim: int
    from_portrait: float  # distance of a frame from its portrait
    between_frames: float  # distance of neighbouring frames
    hashes: Mapping[str, str]  # of the models that encoded it

    def to_dict(self) -> dict[str, Any]:
        values = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in ("folder", "hashes")}
        return {**values, "grid": list(self.grid), "hashes": dict(self.hashes)}


def measure_data(folder: Path, least_frames: int) -> DataFacts:
    """Read an encoded training folder; clips of fewer frames than `least_frames` do not count.

    Raises: MediaError without latents, ConfigError without validation clips.
    """
    manifest = Manifest(folder)
    stores = {split: LatentStore(folder, split, min_frames=least_frames) for split in ("train", "val")}
    for store in stores.values():
        store.update(manifest)
    if not len(stores["val"]):
        raise ConfigError(
            f"{folder}: has no encoded validation clips of at least {least_frames} frames; add some with"
            " `letstalk synthesize FOLDER --split val` and encode the folder again"
        )
    snapshot = stores["train"].snapshot()
    frames, portraits = snapshot.tensors["frames"], snapshot.tensors["portraits"]
    away, step, count, steps = 0.0, 0.0, 0, 0
    rows = zip(snapshot.starts.tolist(), snapshot.lengths.tolist(), snapshot.portrait_starts.tolist(), strict=True)
    for start, length, portrait in rows:
        clip = frames[start : start + length].float()
        away += float((clip - portraits[portrait].float()).square().mean()) * length
        step += float(clip.diff(dim=0).square().mean()) * (length - 1)
        count, steps = count + length, steps + length - 1
    audio = snapshot.tensors["audio"]
    return DataFacts(
        folder=folder,
        clips=len(stores["train"]),
        validation_clips=len(stores["val"]),
        channels=frames.shape[1],
        grid=(frames.shape[2], frames.shape[3]),
        image_size=stores["train"].image_size,
        audio_layers=audio.shape[1],
        audio_dim=audio.shape[2],
        from_portrait=(away / count) ** 0.5,
        between_frames=(step / max(1, steps)) ** 0.5,
        hashes=stores["train"].hashes,
    )


def make_recipe(
    variant: Variant, facts: DataFacts, budget: Budget, *, run: Path, seed: int, steps: int, minutes: float = 0.0
) -> DiTRecipe:
    """The recipe of one training: the base with the variant's changes. Raises: ConfigError."""
    token_dim = budget.hidden_size
    model: dict[str, Any] = {
        "hidden_size": budget.hidden_size,
        "depth": budget.depth,
        "num_heads": max(1, budget.hidden_size // 32),
        "linear_head_dim": min(32, budget.hidden_size),
        "mlp_ratio": 2.0,
        "in_channels": facts.channels,
        "grid_size": facts.grid,
        "clip_frames": budget.clip_frames,
        "audio_token_dim": token_dim,
        "memory_frames": 2,
        "portrait_residual": True,
        "residual_scale": round(facts.from_portrait, 4),
        "shift": 3.0,
        **PREDICTIONS[budget.predict],
        **variant.model,
    }
    return DiTRecipe(
        model=DiTConfig(**model),
        projection=AudioProjectionConfig(
            window=5,
            layers=facts.audio_layers,
            encoder_dim=facts.audio_dim,
            hidden_size=2 * token_dim,
            tokens=4,
            token_dim=token_dim,
        ),
        data=DataConfig(
            folder=str(facts.folder),
            batch_size=budget.batch_size,
            workers=0,
            reread_every=NEVER,
            validation_items=64,
        ),  # fmt: skip
        loop=LoopConfig(
            run=str(run),
            steps=steps,
            max_minutes=minutes,
            seed=seed,
            device=budget.device,
            precision=budget.precision,
            ema_decay=STEADY_DECAY,
            log_every=max(1, min(25, (steps or 250) // 10)),
            validate_every=NEVER,
            sample_every=0,
            export_every=0,
            checkpoint_every=0,
            checkpoint_minutes=0.5,
        ),
        optimizer=OptimizerConfig(
            name="muon",
            lr=budget.lr,
            weight_decay=1e-2,
            warmup_steps=min(30, (steps or 300) // 10),
            flat=0.5,
            final_factor=0.02,
        ),  # fmt: skip
        objective=DiTObjective(
            **{
                "far_portrait": 0.2,
                "timestep_mean": 1.1,  # high noise: there the mouth, the head and blinks are decided
                "timestep_std": 1.2,
                "smallest_sigma": 0.5,
                "mouth_weight": 4.0,
                "eyes_weight": 2.0,
                **variant.objective,
            }
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Budget(Config):
    """Training is `steps` of `batch_size` clips for every variant; without steps, as many as the experiment's
    reference does in `minutes`; with equal="time", `minutes` for each whatever the steps.

    Measured are `people` who speak for `seconds`, each with `noises` seeds of the noise; every `read_every`th
    frame is decoded and read. Long videos are `long_clips` clips of `long_people` people. `poses` are drawn to fit
    the reader of each person's face.
    """

    kind = "experiment"

    steps: int = 0
    minutes: float = 0.0
    predict: Annotated[str, tuple(PREDICTIONS)] = "sample"  # or flow, v: see PREDICTIONS
    equal: Annotated[str, ("steps", "time")] = "steps"
    batch_size: Count = 4
    seeds: tuple[int, ...] = (1,)  # of the trainings of each variant
    clip_frames: Count = 16
    hidden_size: int = 96
    depth: Count = 3
    lr: float = 1.5e-3
    people: Annotated[int, ">= 2"] = 12
    seconds: float = 2.56
    noises: Annotated[int, ">= 2"] = 2
    read_every: Count = 2
    sampling_steps: Count = 8
    poses: Annotated[int, ">= 16"] = 120
    long_people: Count = 3
    long_clips: Annotated[int, ">= 8"] = 104
    long_steps: Count = 6
    slow_people: Count = 3  # who are measured with the paper's 250 steps
    device: str = "auto"
    precision: str = "auto"

    def validate(self) -> None:
        given = f"steps={self.steps} and minutes per model={self.minutes}"
        self.require((self.steps > 0) != (self.minutes > 0), f"{given}: give one of them, greater than 0")
        timed = self.equal == "steps" or self.minutes > 0
        self.require(timed, "equal time needs the minutes per model; give them instead of steps")
        differ = len(set(self.seeds)) == len(self.seeds) > 0
        self.require(differ, f"seeds={self.seeds} must be different numbers, at least one")
        enough = self.seconds * 25 / self.read_every >= 8
        self.require(enough, f"seconds={self.seconds} leaves fewer than 8 frames to read; make it longer")

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the usual prediction is left out, as in folders from before there was a choice."""
        values = {**dataclasses.asdict(self), "seeds": list(self.seeds)}
        if self.predict == "sample":
            del values["predict"]
        return values
