"""One person's model: videos prepared, then autoencoder, denoiser and carry of a model trained further on them.

Every stage is a recipe (`presenter_*.toml`) for the loop of all trainings. What is finished lies in DIR/work, from
which a run that was stopped at any moment goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from letstalk_core.errors import ConfigError, FaceNotFoundError, MediaError, OutputError
from letstalk_core.files import FileLock, file_sha256
from letstalk_core.media.portrait.find import default_finder
from letstalk_core.networks.checkpoint import load_tensors, read_header
from letstalk_core.networks.load import PRESENTER_KEY, load_bundle, load_model

from ..data.clips import open_clip
from ..data.encoding import encode_folder
from ..data.manifest import Manifest
from ..data.prepare import FilmReader, prepare_videos
from ..data.shots import FPS, PrepareSettings
from ..output import save_json, save_png, save_tensors
from .autoencoder import AutoencoderStage
from .carry import CarryStage
from .config import CarryRecipe
from .diffusion import DiTStage
from .filmed_lips import MEASURED, FilmedLipsStage
from .loop import train
from .recipe import load_recipe
from .runtime import Stage, Stopped

logger = logging.getLogger(__name__)
Watch = Callable[[str, float, str], None]  # stage, how much of it is done, words
STAGES: dict[str, Callable[[Any], Stage]] = {"autoencoder": AutoencoderStage, "dit": DiTStage, "carry": CarryStage}
SHARES = {"autoencoder": 0.25, "lips": 0.03, "dit": 0.67, "carry": 0.05}  # of the minutes
OPTIONAL = ("carry", "lips")  # networks that a model may lack
HELD_OUT = 0.1
LEAST_SECONDS, FEW_SECONDS = 10.0, 120.0  # of training clips
CARRY_LOSS_DB = 0.1  # that masks may cost mouth or eyes before they are left out
MODELS = ("autoencoder", "audio_encoder", "dit")


@dataclass
class PresenterJob:
    """Raises: ConfigError, MediaError, OutputError, CheckpointError; `Stopped` from `run`."""

    videos: list[Path]
    folder: Path
    base: Path
    minutes: float
    lora_rank: int = 0
    name: str = ""
    device: str = "auto"
    watch: Watch = lambda stage, share, text: None
    overrides: dict[str, list[str]] = field(default_factory=dict)  # of recipes, by stage
    written: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ConfigError(f"minutes={self.minutes} must be greater than 0")
        for video in self.videos:
            if not video.is_file():
                raise MediaError(f"{video}: no such file; give a video of the person")
        self.work, self.data = self.folder / "work", self.folder / "work" / "data"
        self.has = {name for name in OPTIONAL if (self.base / f"{name}.safetensors").is_file()}
        self.image_size = load_bundle(self.base).autoencoder.config.image_size

    @contextlib.contextmanager
    def opened(self, *, restart: bool = False, overwrite: bool = False) -> Iterator[None]:
        """The work folder, held by this process and made for these videos and this model."""
        anew = restart or not self.work.is_dir()
        if (self.folder / "dit.safetensors").exists() and not overwrite and anew:
            raise OutputError(f"{self.folder}: holds a model already; add --overwrite or choose another folder")
        if restart:
            shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.work / "lock")
        if not lock.acquire():
            raise OutputError(f"{self.work}: another process works there ({lock.holder()}); wait for it")
        try:
            wanted = {
                "videos": [[str(v.resolve()), v.stat().st_size] for v in self.videos],
                "model": {n: file_sha256(self.base / f"{n}.safetensors") for n in MODELS},
                "lora_rank": self.lora_rank,
            }
            found = self._read("job.json")
            if found not in ({}, wanted):
                raise ConfigError(
                    f"{self.work}: holds an unfinished run of other videos or another model; repeat that command,"
                    " add --restart, or choose another folder"
                )
            save_json(self.work / "job.json", wanted)
            yield
        finally:
            lock.release(delete=True)

    def run(self) -> None:
        """Prepare, train and write the model. Raises: Stopped."""
        self._prepare()
        autoencoder = self._train("autoencoder", self._autoencoder_changes())
        self._encode(autoencoder)
        lips = self._lips() if "lips" in self.has else None
        dit = self._train("dit", self._dit_changes())
        sources = {
            "autoencoder": autoencoder,
            "audio_encoder": self.base / "audio_encoder.safetensors",
            "dit": dit,
        }
        if "carry" in self.has:
            carry = self._train("carry", self._carry_changes(autoencoder))
            if self._carry_helps(carry):
                sources["carry"] = carry
        if lips is not None:
            sources["lips"] = lips
        if self.lora_rank:
            sources["lora"] = dit.with_name("lora.safetensors")
        for name, source in sources.items():
            self._label(source, self.folder / f"{name}.safetensors")
        if "carry" not in sources:
            (self.folder / "carry.safetensors").unlink(missing_ok=True)
        save_png(self.portrait(), self.folder / "portrait.png")
        self.written = [*(f"{name}.safetensors" for name in sources), "portrait.png"]

    def finish(self, *, keep_work: bool) -> None:
        """Delete what only a resumed run needs."""
        if not keep_work:
            shutil.rmtree(self.work, ignore_errors=True)
            shutil.rmtree(self.folder / "report" / "work", ignore_errors=True)

    def portrait(self) -> Tensor:
        """The calmest portrait of the training clips: mouth shut, eyes open, head as usual; (h, w, 3) uint8."""
        best: tuple[float, Tensor] | None = None
        for record in Manifest(self.data).select("train"):
            clip = open_clip(self.data, record)
            poses, boxes = clip.portrait_motion(), clip.portrait_regions().float()
            if poses is None:
                continue
            names = list(clip.motion_names)
            mouth = (boxes[:, 0, 3] - boxes[:, 0, 1]) / clip.portraits().shape[1]
            turned = poses[:, [names.index(n) for n in ("yaw", "pitch", "gaze_x", "gaze_y")]].float().abs().sum(1)
            worth = mouth * 4 + turned + 2 * poses[:, names.index("blink")].float()
            index = int(worth.argmin())
            if best is None or float(worth[index]) < best[0]:
                best = (float(worth[index]), clip.portraits()[index])
        if best is None:
            raise MediaError(
                f"{self.data}: no clip shows the face; give a video of one person seen from the front"
            )
        return best[1]

    # Stages

    def _prepare(self) -> None:
        if "prepare" not in self._done():
            settings = PrepareSettings(size=self.image_size, split="time", val_share=HELD_OUT)
            finder = default_finder()

            def watch(what: str, done: int, videos: int) -> None:
                share = (done + videos * (what == "cut")) / (2 * videos)
                self.watch("preparing", share, f"{what} {done} of {videos} videos")

            report = prepare_videos(self.videos, self.data, settings, finder, FilmReader(finder), watch)
            self._check(report.reasons)
            self._mark("prepare", 0)
        seconds = [sum(r.frames for r in Manifest(self.data).select(split)) / FPS for split in ("train", "val")]
        self.watch("preparing", 1.0, f"{seconds[0]:.0f} s to train on, {seconds[1]:.0f} s held out")
        if seconds[0] < FEW_SECONDS:
            logger.warning(
                "only %.0f s of speech to train on; three minutes or more make a better model", seconds[0]
            )

    def _check(self, reasons: Counter[str]) -> None:
        manifest = Manifest(self.data, missing_ok=True)
        train_s, val_s = (sum(r.frames for r in manifest.select(s)) / FPS for s in ("train", "val"))
        if train_s < LEAST_SECONDS or val_s == 0:
            left_out = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()) or "nothing"
            raise MediaError(
                f"{self.videos[0]}: gives {train_s:.0f} s to train on and {val_s:.0f} s to validate (left out:"
                f" {left_out}); give minutes of one person who speaks, seen from the front"
            )

    def _autoencoder_changes(self) -> list[str]:
        start = self.base / "autoencoder.safetensors"
        changes = [f"model.preset={json.dumps(str(start))}", f"loop.init={json.dumps(str(start))}"]
        changes.append(f"data.crop_size={min(128, self.image_size)}")
        # changes of a denoiser belong to its latents, so those stay
        return [*changes, "objective.decoder_only=true"] if self.lora_rank else changes

    def _dit_changes(self) -> list[str]:
        start = json.dumps(str(self.base / "dit.safetensors"))
        changes = [f"model.preset={start}", f"projection.preset={start}", f"loop.init={start}"]
        if self.lora_rank:
            changes += [f"objective.lora_rank={self.lora_rank}", "optimizer.name=adamw", "optimizer.lr=3e-3"]
            changes += ["optimizer.weight_decay=0.0"]
        return changes

    def _lips(self) -> Path:
        """The lips trained further on the films where they then follow held-out ones better, else the model's."""
        start = self.base / "lips.safetensors"
        if not set(MEASURED) <= set(open_clip(self.data, Manifest(self.data).select("train")[0]).motion_names):
            return start  # prepared by an earlier version
        changes = [f"model.preset={json.dumps(str(start))}", f"loop.init={json.dumps(str(start))}"]
        try:
            trained = self._train("lips", changes)
        except FaceNotFoundError as error:  # of a puppet of the portrait
            self.watch("training lips", 1.0, f"left out: {error}")
            return start
        changes += [f"data.folder={json.dumps(str(self.data))}", *self.overrides.get("lips", [])]
        stages = [
            self._stage(
                "lips", load_recipe("lips", "presenter_lips", [*changes, f"loop.init={json.dumps(str(f))}"])
            )
            for f in (start, trained)
        ]
        before, after = (stage.validate(torch.device("cpu")) for stage in stages)
        helps = sum(after.values()) > sum(before.values())
        numbers = ", ".join(f"{name} {before[name]:.2f} to {after[name]:.2f}" for name in before)
        self.watch("training lips", 1.0, f"{'kept' if helps else 'left out'}: {numbers}")
        return trained if helps else start

    def _stage(self, stage: str, recipe: Any) -> Stage:
        return FilmedLipsStage(recipe, self.portrait()) if stage == "lips" else STAGES[stage](recipe)

    def _carry_changes(self, autoencoder: Path) -> list[str]:
        start = json.dumps(str(self.base / "carry.safetensors"))
        network = f"objective.autoencoder={json.dumps(str(autoencoder))}"
        return [f"model.preset={start}", f"loop.init={start}", network]

    def _train(self, stage: str, changes: list[str]) -> Path:
        """Train one network for its part of the minutes; its file."""
        shares = {k: v for k, v in SHARES.items() if k not in OPTIONAL or k in self.has}
        minutes = self.minutes * shares[stage] / sum(shares.values())
        run = self.work / stage
        file = run / f"{stage}.safetensors"
        if self._done().get(stage, -1.0) >= minutes and file.is_file():
            return file
        settings = [
            f"data.folder={json.dumps(str(self.data))}", f"loop.run={json.dumps(str(run))}",
            f"loop.max_minutes={minutes:.4f}", f"loop.device={self.device}",
        ]  # fmt: skip
        recipe = load_recipe(stage, f"presenter_{stage}", [*changes, *settings, *self.overrides.get(stage, [])])
        words = f"{minutes:.1f} minutes"
        self.watch(f"training {stage}", 0.0, words)
        result = train(
            self._stage(stage, recipe),
            lambda share, step: self.watch(f"training {stage}", share, f"{words}, step {step}"),
        )
        if result.signal is not None:
            raise Stopped(result.signal)
        self._mark(stage, minutes)
        shutil.rmtree(self.folder / "report" / "work", ignore_errors=True)  # of the model before
        return file

    def _encode(self, autoencoder: Path) -> None:
        """Latents and audio states of all clips; those of the same networks are kept."""
        device = "cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu"
        encoder = self.base / "audio_encoder.safetensors"
        networks = [
            load_model(p, k, device=device) for p, k in ((autoencoder, "autoencoder"), (encoder, "audio_encoder"))
        ]
        hashes = {"autoencoder": file_sha256(autoencoder), "audio_encoder": file_sha256(encoder)}
        total = len(Manifest(self.data))
        for done, (_, problem) in enumerate(encode_folder(self.data, *networks, hashes=hashes, device=device)):
            if problem is not None:
                logger.warning("left out: %s", problem)
            self.watch("encoding", (done + 1) / total, f"clip {done + 1} of {total}")

    def _carry_helps(self, carry: Path) -> bool:
        """Whether frames with the portrait's detail are better on held-out clips, and mouth and eyes no worse; in
        a model with lips these are the puppet's, for which carry is needed."""
        recipe = load_recipe("carry", "presenter_carry", [
            *self._carry_changes(self.work / "autoencoder" / "autoencoder.safetensors"),
            f"loop.init={json.dumps(str(carry))}", f"data.folder={json.dumps(str(self.data))}",
            *self.overrides.get("carry", []),
        ])  # fmt: skip
        assert isinstance(recipe, CarryRecipe)
        found = CarryStage(recipe).validate(torch.device("cpu"))
        parts = [p for p in ("psnr_mouth", "psnr_eyes") if p in found]
        helps = found["psnr"] > found["plain_psnr"] and (
            "lips" in self.has or all(found[p] > found[f"plain_{p}"] - CARRY_LOSS_DB for p in parts)
        )
        numbers = ", ".join(f"{k} {found[f'plain_{k}']:.1f} to {found[k]:.1f} dB" for k in ("psnr", *parts))
        self.watch("training carry", 1.0, f"{'kept' if helps else 'left out'}: {numbers}")
        return helps

    def _label(self, source: Path, target: Path) -> None:
        """A copy of a model file that names the person."""
        extra = {} if source.parent == self.base else {PRESENTER_KEY: self.name}
        metadata = {**read_header(source).metadata, **extra}
        save_tensors(target, load_tensors(source), metadata)

    # What is finished

    def _done(self) -> dict[str, float]:
        return self._read("done.json")

    def _mark(self, stage: str, minutes: float) -> None:
        save_json(self.work / "done.json", {**self._done(), stage: minutes})

    def _read(self, name: str) -> dict[str, Any]:
        path = self.work / name
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError):
            values = {}
        return values if isinstance(values, dict) else {}
