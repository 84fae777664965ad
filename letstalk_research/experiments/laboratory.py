"""What all experiments share: trained variants, held-out people, and finished measurements that are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..evaluation.store import ClipResult, Store
from .people import FPS, Codec, Person, Speaker, measure_ceiling, measure_speech, meet
from .runs import Trained, plan_steps, train_variant
from .variants import Budget, DataFacts, Variant

logger = logging.getLogger(__name__)
PREDICTS = {  # beside the network's size
    "sample": "",
    "flow": "; predicts the flow where nothing else is said",
    "v": "; predicts v where nothing else is said",
}


class Group:
    """The held-out people, met when they are first needed; several experiments may share them."""

    def __init__(
        self, facts: DataFacts, budget: Budget, *, seed: int, codec: Codec, audio_encoder: Any, folder: Path
    ) -> None:
        self.facts, self.budget, self.seed = facts, budget, seed
        self.codec, self._audio_encoder, self._folder = codec, audio_encoder, folder

    @cached_property
    def short(self) -> list[Person]:
        logger.info("drawing %d held-out people", self.budget.people)
        frames = round(self.budget.seconds * FPS)
        return [self._meet(i, frames) for i in range(self.budget.people)]

    @cached_property
    def long(self) -> list[Person]:
        """The first people with a long speech."""
        frames = self.budget.long_clips * self.budget.clip_frames
        known = self.__dict__.get("short", [])
        return [
            self._meet(i, frames, known[i] if i < len(known) else None) for i in range(self.budget.long_people)
        ]

    def _meet(self, index: int, frames: int, like: Person | None = None) -> Person:
        return meet(
            index, seed=self.seed, frames=frames, size=self.facts.image_size, poses=self.budget.poses,
            codec=self.codec, audio_encoder=self._audio_encoder, folder=self._folder, like=like,
        )  # fmt: skip


class Laboratory:
    """One experiment's folder and everything it works with.

    Raises: ConfigError when the folder holds an experiment with other settings.
    """

    def __init__(self, name: str, variants: Sequence[Variant], group: Group, folder: Path) -> None:
        self.variants, self.group = list(variants), group
        self.facts, self.budget = group.facts, group.budget
        self.folder = folder / name
        settings = {
            "experiment": name,
            "variants": [v.to_dict() for v in variants],
            "data": self.facts.to_dict(),
            "budget": self.budget.to_dict(),
            "people_seed": group.seed,
        }
        self._store = Store(self.folder / "measured", settings)

    def train(self, reference: str) -> dict[str, list[Trained]]:
        """Every variant, with every seed of the budget. Raises: Stopped."""
        first = next(v for v in self.variants if v.name == reference)
        steps = plan_steps(first, self.facts, self.budget, folder=self.folder)
        found: dict[str, list[Trained]] = {v.name: [] for v in self.variants}
        for seed in self.budget.seeds:  # seeds outside: a first look at all variants comes early
            for variant in self.variants:
                logger.info("%s: training %s, seed %d", self.folder.name, variant.name, seed)
                run = train_variant(
                    variant, self.facts, self.budget, folder=self.folder / "models", seed=seed, steps=steps
                )
                found[variant.name].append(run)
        return found

    def cell(self, name: str, make: Callable[[], ClipResult]) -> ClipResult:
        """A measurement that is made once."""
        result, known = self._store.get(name, make)
        if not known:
            logger.info("%s: measured %s", self.folder.name, name)
        return result

    def ceiling(self) -> ClipResult:
        group, every = self.group, self.budget.read_every
        return self.cell("ceiling", lambda: measure_ceiling(group.short, group.codec, every=every))

    def speech(
        self,
        trained: Sequence[Trained],
        *,
        steps: int | None = None,
        solver: str = "euler",
        people: int | None = None,
        noises: int | None = None,
    ) -> list[ClipResult]:
        """Short clips of each training of a variant."""
        budget, group = self.budget, self.group
        steps = steps or budget.sampling_steps

        def measure(run: Trained) -> ClipResult:
            speaker = Speaker(run, steps, solver)
            return measure_speech(
                speaker, group.short[:people], group.codec, every=budget.read_every, noises=noises or budget.noises
            )

        return [
            self.cell(f"{run.name}-seed{run.seed}-{solver}{steps}", lambda run=run: measure(run))  # type: ignore[misc]
            for run in trained
        ]

    def shared_facts(self, trained: dict[str, list[Trained]], reference: str) -> dict[str, str]:
        """Lines on data and budget for the page."""
        b, f = self.budget, self.facts
        steps = sorted({run.steps for runs in trained.values() for run in runs})
        spent = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        equal = (
            f"every variant got {b.minutes:g} minutes"
            if b.equal == "time"
            else f"every variant got the same number ({b.minutes:g} minutes of {reference})"
            if b.minutes
            else "every variant got the same number"
        )
        return {
            "network": f"width {b.hidden_size}, depth {b.depth}, clips of {b.clip_frames} frames,"
            f" latents of {f.channels} x {f.grid[0]} x {f.grid[1]}{PREDICTS[b.predict]}",
            "training": f"{spent} steps of {b.batch_size} clips, {equal}; training seed"
            f"{'s' if len(b.seeds) > 1 else ''} {', '.join(map(str, b.seeds))};"
            f" {f.clips} drawn clips, {f.validation_clips} for the validation loss",
            "times": "processor time of one thread, so that other work on the machine does not count: of a"
            " training step, and of sampling a second of video; only the column *training* is by the clock",
            "models of the latents": ", ".join(f"{k} {v[:12]}" for k, v in f.hashes.items() if v) or "unnamed",
        }

    def speech_facts(self, noises: int | None = None) -> dict[str, str]:
        """Lines on the short clips; `noises` if not the budget's."""
        b = self.budget
        noises = noises or b.noises
        seeds = "noise seed 100" if noises == 1 else f"noise seeds 100 to {99 + noises}"
        return {
            "measured": f"{b.people} people of no training data (seed {self.group.seed}) with held-out voices and"
            f" sentences, {b.seconds:g} s each, {seeds},"
            f" {b.sampling_steps} steps unless the table says otherwise, no guidance;"
            f" {'every frame' if b.read_every == 1 else f'one frame in {b.read_every}'} decoded and read",
            "intervals": "95 %, bootstrap over people"
            + (
                "; they hold for these trainings, another seed of the training adds to them"
                if len(b.seeds) == 1
                else "; values are means over the training seeds"
            ),
        }
