"""`letstalk evaluate --suite demo`: everything that the demo model is expected to do, measured in one run.

Parts (each resumable clip by clip): speech, steps, noisy, recordings, diversity, idle, drift, speed. `Budget` says
how much of each. Rows of the resulting table state the aim and whether it was met (`rows.demo_rows`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from letstalk_core.errors import ConfigError
from letstalk_core.media.audio.alignment import SAMPLE_RATE as SAMPLE_RATE_HZ
from letstalk_core.media.audio.decode import load_waveform

from .demo_clips import (
    drift_trends,
    measure_diversity,
    measure_drift,
    measure_idle,
    measure_noisy,
    measure_recording,
)
from .face_reader import FACE, LIPS, face_truth
from .intervals import Interval, summarise
from .metrics import correlation
from .report import Report
from .rows import demo_rows
from .store import ClipResult, Progress, Store
from .suite import LEAST_FRAMES, add_controls, fit_reader, measure_trial, speak
from .trials import Subject, Trial, draw_trial

PARTS = ("speed", "speech", "steps", "noisy", "recordings", "diversity", "idle", "drift")
FIRST = {"steps": 0, "noisy": 200, "recordings": 300, "diversity": 400, "idle": 500, "drift": 600, "speed": 700}
READING_SHARE = 1.3  # what drawing, reading and the round trip add to the time of generating, roughly


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of each part. Lengths are in seconds unless they say otherwise."""

    clips: int = 40
    seconds: float = 6.4
    step_clips: int = 16
    step_seconds: float = 3.84
    step_counts: tuple[int, int] = (8, 30)
    noisy_clips: int = 16
    diversity_people: int = 8
    diversity_seeds: int = 4
    diversity_seconds: float = 3.84
    idle_people: int = 8
    idle_seconds: float = 5.12
    drift_minutes: float = 10.0
    drift_people: int = 1
    recording_seconds: float = 10.0
    speed_seconds: float = 2.56
    speed_runs: int = 3
    poses: int = 240

    @classmethod
    def quick(cls) -> Budget:
        """A small version for a first look: wide intervals, a short long video."""
        return cls(
            clips=8, seconds=2.56, step_clips=3, step_seconds=1.92, noisy_clips=3, diversity_people=2,
            diversity_seeds=3, diversity_seconds=1.92, idle_people=2, drift_minutes=0.5, recording_seconds=4.0,
            speed_seconds=1.28, poses=160,
        )  # fmt: skip

    def amounts(self, recordings: int) -> dict[str, tuple[int, float]]:
        """Clips of each part, and the seconds to generate for one of them."""
        return {
            "speed": (self.speed_runs, self.speed_seconds),
            "speech": (self.clips, self.seconds),
            "steps": (self.step_clips, self.step_seconds),
            "noisy": (self.noisy_clips, self.seconds),
            "recordings": (recordings, self.recording_seconds),
            "diversity": (self.diversity_people, self.diversity_seeds * self.diversity_seconds),
            "idle": (self.idle_people, self.idle_seconds),
            "drift": (self.drift_people, self.drift_minutes * 60),
        }

    def frames(self, fps: float, steps: int, parts: Sequence[str], recordings: int) -> float:
        """Frames to generate, those with other numbers of steps counted by their cost."""
        seconds = {part: count * each for part, (count, each) in self.amounts(recordings).items()}
        seconds["steps"] *= sum(self.step_counts) / steps
        return fps * sum(seconds[part] for part in parts)


@dataclass(eq=False)
class _Run:
    subject: Subject
    budget: Budget
    seed: int
    store: Store
    out_dir: Path
    sounds: Sequence[Path]
    progress: Progress | None

    def trial(self, part: str, index: int, seconds: float, speech: bool = True) -> Trial:
        frames, s = round(seconds * self.subject.fps), self.subject
        first = FIRST.get(part, 0)
        return draw_trial(self.seed, first + index, frames=frames, fps=s.fps, size=s.size, speech=speech)

    def part(self, name: str) -> list[ClipResult]:
        """All clips of a part, each measured by the method of its name."""
        count, _ = self.budget.amounts(len(self.sounds))[name]
        names = [path.stem for path in self.sounds] if name == "recordings" else ()  # others may be added
        return self.store.each(name, count, getattr(self, name), self.progress, names)

    def speech(self, index: int) -> ClipResult:
        trial = self.trial("speech", index, self.budget.seconds)
        return measure_trial(self.subject, trial, poses=self.budget.poses)

    def noisy(self, index: int) -> ClipResult:
        trial = self.trial("noisy", index, self.budget.seconds)
        return measure_noisy(self.subject, trial, poses=self.budget.poses)

    def diversity(self, index: int) -> ClipResult:
        trial, b = self.trial("diversity", index, self.budget.diversity_seconds), self.budget
        return measure_diversity(self.subject, trial, seeds=b.diversity_seeds, poses=b.poses)

    def idle(self, index: int) -> ClipResult:
        trial = self.trial("idle", index, self.budget.idle_seconds, speech=False)
        return measure_idle(self.subject, trial, poses=self.budget.poses)

    def steps(self, index: int) -> ClipResult:
        trial = self.trial("steps", index, self.budget.step_seconds)
        reader, wanted = fit_reader(trial, self.budget.poses), face_truth(trial.motion)
        metrics = {}
        for count in self.budget.step_counts:
            measured = reader.read(speak(self.subject, trial, steps=count))
            for lip in LIPS[:3]:
                i = FACE.index(lip)
                metrics[f"steps {count}: {lip}"] = correlation(measured[:, i], wanted[:, i])
        few, many = self.budget.step_counts
        for lip in LIPS[:3]:
            lost = metrics[f"steps {many}: {lip}"] - metrics[f"steps {few}: {lip}"]
            metrics[f"steps lost with fewer: {lip}"] = lost
        return ClipResult(metrics, notes=trial.notes())

    def recordings(self, index: int) -> ClipResult:
        path = self.sounds[index]
        waveform = load_waveform(path)[: round(self.budget.recording_seconds * SAMPLE_RATE_HZ)]
        frames = int(len(waveform) / SAMPLE_RATE_HZ * self.subject.fps)
        if frames < LEAST_FRAMES:
            raise ConfigError(f"{path}: is too short; a recording needs at least {LEAST_FRAMES} frames")
        trial = self.trial("recordings", index, frames / self.subject.fps, speech=False)
        heard = replace(trial, waveform=waveform[: len(trial.waveform)])
        return measure_recording(self.subject, heard, path.name, poses=self.budget.poses)

    def drift(self, index: int) -> ClipResult:
        trial = self.trial("drift", index, 1.0, speech=False)
        folder = self.out_dir / "work" / f"drift_{index}"
        minutes, poses = self.budget.drift_minutes, self.budget.poses
        return measure_drift(self.subject, trial, minutes=minutes, poses=poses, folder=folder)

    def speed(self, index: int) -> ClipResult:
        trial = self.trial("speed", 0, self.budget.speed_seconds, speech=False)
        begun = time.perf_counter()
        frames = speak(self.subject, trial)
        seconds = time.perf_counter() - begun
        return ClipResult({"speed: frames per second": len(frames) / seconds})


def run_demo(
    subject: Subject,
    budget: Budget | None = None,
    *,
    out_dir: Path,
    seed: int = 0,
    parts: Sequence[str] = PARTS,
    recordings: Sequence[Path] = (),
    facts: Mapping[str, float] | None = None,
    notes: Mapping[str, Any] | None = None,
    steps: int = 12,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Report:
    """Measure all parts and write the report to `out_dir`. A stopped run goes on from `out_dir`/work.

    `recordings` are sound files of people speaking; without any that part is empty. `facts` are numbers measured
    elsewhere ("bundle: MB", "bundle: seconds to load"), `notes` go into the report's settings, `steps` is the
    model's own number, for the estimate of time that is announced before the work.

    Raises: ConfigError, DependencyError without espeak-ng, OutputError.
    """
    budget = budget or Budget()
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ConfigError(f"parts={','.join(unknown)} must be among {','.join(PARTS)}")
    settings = {"suite": "demo", "seed": seed, "fps": subject.fps, "size": subject.size, **(notes or {})}
    settings |= {"budget": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(budget).items()}}
    store = Store(out_dir / "work", settings)
    run = _Run(subject, budget, seed, store, out_dir, recordings, progress)
    done: dict[str, list[ClipResult]] = {}
    chosen = [part for part in PARTS if part in parts and (part != "recordings" or recordings)]
    for part in chosen:
        done[part] = run.part(part)
        if part == "speed" and announce is not None:
            announce(_estimate(budget, subject.fps, steps, chosen, len(recordings), done[part]))
    if "speech" in done:
        add_controls(done["speech"])
    metrics: dict[str, Interval] = {}
    for results in done.values():
        metrics |= summarise([r.metrics for r in results])
    for i, result in enumerate(done.get("drift", [])):
        found = drift_trends(result, fps=subject.fps, clip_frames=subject.clip_frames)
        metrics |= {f"{name}{f', person {i + 1}' if i else ''}": value for name, value in found.items()}
    metrics |= {name: Interval(value, value, value, 1) for name, value in (facts or {}).items()}
    settings["threads"] = torch.get_num_threads()
    report = Report(settings, metrics, done, demo_rows(metrics, done))
    report.save(out_dir)
    return report


def _estimate(
    budget: Budget, fps: float, steps: int, parts: Sequence[str], recordings: int, speed: list[ClipResult]
) -> str:
    rate = max(r.metrics["speed: frames per second"] for r in speed)
    frames = budget.frames(fps, steps, parts, recordings)
    minutes = READING_SHARE * frames / rate / 60
    return f"about {frames:,.0f} frames to generate at {rate:.2f} frames/s: {minutes / 60:.1f} hours"
