"""The training loop shared by all stages: accelerate, schedule, EMA, checkpoints, logs, samples and exports.

A run resumes exactly after a kill. All randomness of a step comes from seeds made of (run seed, step, batch),
and batches depend on that seed and on the manifest lines known at the step, which the checkpoint counts; a state
needs no generator states and no data iterators. Source: docs/model.md, Diffusion (the paper's training facts).
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from letstalk_core.errors import ConfigError, DependencyError, NumericalError

from .checkpoints import EMA, load_state, save_state
from .optimizers import build_optimizers, learning_rate_factor
from .plots import CsvLog, plot_curves
from .recipe import write_resolved
from .runtime import Batch, Prefetcher, Result, Stage, StopRequest, choose_precision, of_all, of_the_first, seed_of

logger = logging.getLogger(__name__)
MEDIAN_STEPS = 101  # steps whose gradient norms the skip rule compares with
MAX_SKIPS = 50  # skipped steps in a row that end the training


def train(stage: Stage, watch: Callable[[float, int], None] | None = None) -> Result:
    """Train a stage until its budget is used up or a signal asks to stop; resumes what its run folder holds.

    `watch` is told after each step which part of the budget is used, 0 to 1, and the number of steps.
    Raises: ConfigError if the folder belongs to another model, CheckpointError if its states cannot be read,
    DependencyError without accelerate, NumericalError if training cannot go on.
    """
    run = _Run(stage)
    stop = StopRequest()
    try:
        with stop.installed():
            return run.loop(stop, watch or (lambda share, step: None))
    finally:
        run.close()


class _Run:
    def __init__(self, stage: Stage) -> None:
        try:
            from accelerate import Accelerator
            from accelerate.state import AcceleratorState
        except ImportError as error:
            raise DependencyError(
                f"training needs accelerate ({error}); pip install 'letstalk-portrait[train]'"
            ) from None

        self.stage, self.recipe = stage, stage.recipe
        loop = self.recipe.loop
        if loop.num_threads:
            torch.set_num_threads(loop.num_threads)
        device = torch.device("cuda" if loop.device == "auto" and torch.cuda.is_available() else "cpu")
        precision = choose_precision(loop.precision, device)
        AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
        self.accelerator = Accelerator(cpu=loop.device == "cpu", mixed_precision=precision)
        self.main = self.accelerator.is_main_process
        self.device = self.accelerator.device
        self.folder = Path(loop.run)
        if stage.channels_last:
            stage.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        stage.module.to(self.device)
        self.ema = EMA(stage.module, loop.ema_decay)
        optimizers = build_optimizers(stage.module, self.recipe.optimizer)
        self.model, *self.optimizers = self.accelerator.prepare(stage.module, *optimizers)
        self.parameters = [p for p in stage.module.parameters() if p.requires_grad]
        self.step, self.seconds, self.position, self.skipped = 0, 0.0, 0, 0
        self.norms: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self._resume()
        self.lines = self.position  # manifest lines known to the batch in use
        self.batches: Prefetcher[tuple[int, Batch]] | None = None
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_resolved(self.recipe, self.folder / "recipe.json")
            self.log = CsvLog(self.folder / "log.csv", self.step)
            self.validation_log = CsvLog(self.folder / "validation.csv", self.step)
        count = sum(p.numel() for p in stage.module.parameters()) / 1e6
        number = "fp32" if precision == "no" else precision
        machine = f"{self.device} x{self.accelerator.num_processes}, {number}, {torch.get_num_threads()} threads"
        logger.info("%s: %.2f M parameters on %s, run %s", self.recipe.stage, count, machine, self.folder)

    # State

    def _resume(self) -> None:
        state = load_state(self.folder)
        if state is None:
            self.position = self.stage.refresh()
            return
        model = _plain(self.recipe.to_dict()["model"])
        if state["stage"] != self.recipe.stage or _plain(state["model"]) != model:
            raise ConfigError(
                f"{self.folder}: holds a run of stage {state['stage']!r} with another model; choose another"
                " folder (--set loop.run=...) or delete it"
            )
        self.stage.module.load_state_dict(state["module"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            inner = optimizer.optimizer
            initial = [g["initial_lr"] for g in inner.param_groups]
            decay = [g["weight_decay"] for g in inner.param_groups]
            inner.load_state_dict(saved)
            for group, rate, wd in zip(inner.param_groups, initial, decay, strict=True):
                group["initial_lr"], group["weight_decay"] = rate, wd  # the recipe may have changed them
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.skipped = int(state["skipped"])
        self.norms.extend(state["norms"])
        self.position = self.stage.refresh(int(state["position"]))
        logger.info("resuming %s at step %d", self.folder, self.step)

    def checkpoint(self) -> None:
        self.accelerator.wait_for_everyone()
        self.last_checkpoint = time.monotonic()
        if not self.main:
            return
        state = {
            "stage": self.recipe.stage,
            "model": _plain(self.recipe.to_dict()["model"]),
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "norms": list(self.norms),
            "position": self.lines,
            "module": self.stage.module.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [o.optimizer.state_dict() for o in self.optimizers],
        }
        save_state(self.folder, state)

    def close(self) -> None:
        if self.batches is not None:
            self.batches.close()

    # Batches

    def _plan(self, index: int) -> Callable[[], tuple[int, Batch]]:
        """Job of batch number `index`, counted over all steps; called in order."""
        step = index // self.recipe.optimizer.accumulate
        if step % self.recipe.data.reread_every == 0 and index % self.recipe.optimizer.accumulate == 0:
            self.position = self.stage.refresh()
        position = self.position
        make = self.stage.plan_batch(seed_of(self.recipe.loop.seed, "batch", self._of_all(index), 0))
        return lambda: (position, make())

    def _of_all(self, number: int) -> int:
        """Number of a batch among those of all processes: n see what one sees that accumulates n batches."""
        return number * self.accelerator.num_processes + self.accelerator.process_index

    def _to_device(self, batch: Batch) -> Batch:
        return {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}

    # Loop

    def progress(self) -> float:
        loop = self.recipe.loop
        steps = self.step / loop.steps if loop.steps else 0.0
        minutes = self.seconds / 60 / loop.max_minutes if loop.max_minutes else 0.0
        return max(steps, minutes)

    def loop(self, stop: StopRequest, watch: Callable[[float, int], None]) -> Result:
        loop, accumulate = self.recipe.loop, self.recipe.optimizer.accumulate
        self.batches = Prefetcher(self._plan, self.step * accumulate, self.recipe.data.workers)
        self.last_checkpoint = clock = window = time.monotonic()
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        count = 0
        in_a_row = 0
        started_at = self.step
        while self.progress() < 1 and stop.signal is None:
            rate = learning_rate_factor(self.recipe.optimizer, self.step, self.progress())
            metrics, norm, stepped = self._one_step(rate)
            in_a_row = 0 if stepped else in_a_row + 1
            if in_a_row > MAX_SKIPS:
                raise NumericalError(
                    f"{self.folder}: {in_a_row} steps in a row had gradients too large or not finite (last"
                    f" {norm:.3g}); lower optimizer.lr and start again from the last checkpoint"
                )
            self.step += 1
            count += 1
            for key, value in metrics.items():
                finite = value.isfinite()  # a metric without samples in this step is nan
                sums[key] = sums.get(key, torch.zeros_like(value)) + value.nan_to_num(0.0, 0.0, 0.0)
                counts[key] = counts.get(key, torch.zeros_like(value)) + finite
            now = time.monotonic()
            self.seconds += now - clock
            clock = now
            self._agree(stop)
            done = self.progress() >= 1
            if self._due(loop.log_every) or done:
                sums, counts = of_all(self.accelerator, sums), of_all(self.accelerator, counts)
                values = {k: float(v) / n for k, v in sums.items() if (n := float(counts[k]))}
                self._log(values, norm, rate, count / max(1e-9, now - window))
                sums, counts, count = {}, {}, 0
            watch(min(1.0, self.progress()), self.step)
            self._periodic(done, final=done or stop.signal is not None)
            window = time.monotonic() if count == 0 else window
        if self.step == started_at and self.progress() >= 1:
            logger.info("%s: the budget is used up at step %d; nothing to train", self.folder, self.step)
        exported = self._export() if self.progress() >= 1 else []
        return Result(self.folder, self.step, stop.signal, exported)

    def _one_step(self, rate: float) -> tuple[dict[str, Tensor], float, bool]:
        """One optimiser step: metrics, gradient norm, and whether the step was taken."""
        accumulate = self.recipe.optimizer.accumulate
        self.model.train()
        metrics: dict[str, Tensor] = {}
        assert self.batches is not None
        for micro in range(accumulate):
            self.lines, batch = next(self.batches)
            seed = seed_of(self.recipe.loop.seed, "step", self.step, self._of_all(micro), 0)
            torch.manual_seed(seed & 0xFFFFFFFF)
            last = micro == accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    loss, values = self.model(self._to_device(batch))
                self.accelerator.backward(loss / accumulate)
            for key, value in {"loss": loss, **values}.items():
                metrics[key] = metrics.get(key, torch.zeros_like(value)) + value.detach() / accumulate
        loop = self.recipe.loop
        clip = loop.gradient_clip if self.step >= loop.clip_after else math.inf
        norm = float(nn.utils.clip_grad_norm_(self.parameters, clip))
        median = statistics.median(self.norms) if len(self.norms) >= 20 else math.inf
        take = math.isfinite(norm) and (not loop.skip_factor or norm <= loop.skip_factor * median)
        if take:
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * rate
                optimizer.step()
            self.ema.update(self.stage.module)
        else:
            self.skipped += 1
            logger.warning("step %d skipped: gradient norm %.3g, median %.3g", self.step, norm, median)
        if math.isfinite(norm):
            self.norms.append(min(norm, 4 * median))  # a burst must not raise the bar
        for p in self.parameters:
            p.grad = None
        return metrics, norm, take

    def _agree(self, stop: StopRequest) -> None:
        """All processes take the clock and the stop request of the first one."""
        self.seconds, signal = of_the_first(self.accelerator, self.seconds, float(stop.signal or 0))
        stop.signal = int(signal) or None

    def _due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _log(self, values: Mapping[str, float], norm: float, rate: float, steps_per_second: float) -> None:
        if not self.main:
            return
        items = self.recipe.data.batch_size * self.recipe.optimizer.accumulate * self.accelerator.num_processes
        speed = steps_per_second * items
        lr = rate * self.recipe.optimizer.lr
        extra = {"gradient_norm": norm, "lr": lr, "items_per_second": speed, "seconds": self.seconds}
        self.log.write(self.step, {**values, **extra, "skipped": self.skipped})
        text = " ".join(f"{k} {v:.4g}" for k, v in values.items())
        rest = f"norm {norm:.2f} lr {lr:.1e} {speed:.1f} img/s {self.seconds:.0f} s"
        logger.info("step %d %4.1f%% %s | %s", self.step, 100 * min(1.0, self.progress()), text, rest)

    def _periodic(self, done: bool, *, final: bool) -> None:
        """Checkpoints, validation, samples and exports that are due; all of them when the budget is used up.

        The checkpoint comes first: what fails after it costs no training.
        """
        loop = self.recipe.loop
        late = loop.checkpoint_minutes and time.monotonic() - self.last_checkpoint > 60 * loop.checkpoint_minutes
        if self.accelerator.num_processes > 1:
            late = False  # clocks differ between processes
        if final or self._due(loop.checkpoint_every) or late:
            self.checkpoint()
        if not self.main:
            return
        validate, sample = self._due(loop.validate_every), self._due(loop.sample_every)
        if validate or sample or (done and (loop.validate_every or loop.sample_every)):
            with self.ema.applied(self.stage.module), torch.no_grad(), self.accelerator.autocast():
                if validate or (done and loop.validate_every):
                    self._validate()
                if sample or (done and loop.sample_every):
                    self.stage.sample(self.folder / "samples" / f"step-{self.step:07d}.png", self.device)
        if self._due(loop.export_every) and not done:
            self._export()

    def _validate(self) -> None:
        values = dict(self.stage.validate(self.device))
        if values:
            self.validation_log.write(self.step, {**values, "seconds": self.seconds})
            text = " ".join(f"{k} {v:.4g}" for k, v in values.items())
            logger.info("validation at step %d: %s", self.step, text)
        plot_curves([self.folder / "log.csv", self.folder / "validation.csv"], self.folder / "curves.png")

    def _export(self) -> list[Path]:
        if not self.main:
            return []
        with self.ema.applied(self.stage.module), torch.no_grad():
            return self.stage.export(self.folder, self.device)


def _plain(value: Any) -> Any:
    """Tuples as lists, so that configs compare equal after a trip through a file."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
