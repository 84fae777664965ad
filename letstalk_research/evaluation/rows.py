"""The table of aims of the demo model: each row's aim, the value found for it, and whether it was met."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .drift import SERIES
from .face_reader import HEAD
from .intervals import NOTHING, Interval, bootstrap, ratio
from .report import Row
from .store import ClipResult

__all__ = ["demo_rows"]

Parts = Mapping[str, Sequence[ClipResult]]
PSNR_AIMS = {"frame": 33.0, "mouth": 30.0, "eyes": 29.0}
SKIN_LEEWAY_DB = 1.5
CLOSED_AIM = 0.9  # of the frames inside pauses; one early or late opening in ten frames is forgiven


def demo_rows(metrics: Mapping[str, Interval], parts: Parts) -> list[Row]:
    """All rows; those that nothing was measured for are marked so."""

    def found(name: str) -> Interval:
        return metrics.get(name, NOTHING)

    def row(name: str, reach: str, value: Interval, met: Callable[[Interval], bool], remark: str = "") -> Row:
        return Row(name, reach, value, met(value) if value.count else None, remark)

    def beside(name: str) -> str:
        best, chance = found(f"reading round trip: {name}"), found(f"lips control: {name}")
        return f"round trip {best}, other clip's speech {chance}"

    lips = "lips correlation: "
    rows = [row("lips: jaw", ">= 0.85", found(lips + "jaw"), lambda v: v.mean >= 0.85, beside("jaw"))]
    rows.append(row("lips: lag in frames", "0 +- 1", found("lips lag: frames"), lambda v: abs(v.mean) <= 1))
    for lip in ("width", "round"):
        rows.append(row(f"lips: {lip}", ">= 0.7", found(lips + lip), lambda v: v.mean >= 0.7, beside(lip)))
    closed = f">= {CLOSED_AIM:g} of frames"
    quiet = f"round trip {found('pauses round trip: closed')}"
    rows.append(row("closed in pauses >= 300 ms", closed, found("pauses: closed"), _closed, quiet))
    chance = found("lips control: jaw")
    rows += [
        row(
            "unknown voices, noise and reverb: jaw",
            "above chance",
            found("noisy lips correlation: jaw"),
            lambda v: v.low > (chance.high if chance.count else 0.2),
            f"clean {found(lips + 'jaw')}",
        ),
        row("unknown voices, noise and reverb: closed in pauses", closed, found("noisy pauses: closed"), _closed),
        row(
            "recordings of people: jaw and loudness",
            "above chance",
            found("recording jaw and loudness: generated"),
            lambda v: v.low > max(0.0, found("recording jaw and loudness: control").high),
            f"control {found('recording jaw and loudness: control')}, truth of computer voices"
            f" {found('noisy jaw and loudness: truth')}",
        ),
        row("recordings of people: closed in pauses", closed, found("recording pauses: closed"), _closed),
    ]
    for where, aim in PSNR_AIMS.items():
        value = found(f"autoencoder PSNR: {where}")
        rows.append(row(f"autoencoder PSNR: {where}", f">= {aim:g} dB", value, lambda v, a=aim: v.mean >= a))  # type: ignore[misc]
        for skin in ("lightest skin", "darkest skin"):
            name, least = f"autoencoder PSNR, {skin}: {where}", aim - SKIN_LEEWAY_DB
            below = f"{value.mean - found(name).mean:+.2f} dB below all" if found(name).count else ""
            rows.append(row(name, f">= {least:g} dB", found(name), lambda v, a=least: v.mean >= a, below))  # type: ignore[misc]
    for kind in ("colour error", "landmark error"):
        value = _ratio(parts, "speech", f"identity {kind}: generated", f"identity {kind}: round trip")
        levels = f"{found(f'identity {kind}: generated')} against {found(f'identity {kind}: round trip')}"
        rows.append(row(f"identity: {kind} to round trip", "<= 1.5", value, lambda v: v.mean <= 1.5, levels))
    length = next((f"{r.notes['clips']} clips, {r.notes['frames']} frames" for r in parts.get("drift", [])), "")
    for name in SERIES:
        value = found(f"drift slope per minute: {name}")
        settled = f"{length}; after 10 s {found(f'drift slope per minute, settled: {name}')}"
        rows.append(row(f"drift: {name} per minute", "0 in interval", value, lambda v: 0 in v, settled))
    value = found("drift last minute against first: sharpness")
    rows.append(row("drift: sharpness, last minute to first", "1", value, lambda v: v.high >= 1))
    for name, columns in (("head", HEAD), ("eyes (blinks)", ("blink",))):
        value, reading = _diversity(parts, columns)
        remark = f"of which errors of reading at most {reading}"
        rows.append(row(f"diversity: {name}", "0.5 .. 1.5", value, lambda v: 0.5 <= v.mean <= 1.5, remark))
    rows += [
        row(
            "steps: jaw lost with 8 for 30", "< 0.02", found("steps lost with fewer: jaw"), lambda v: v.mean < 0.02
        ),
        row("bundle: MB", "<= 40", found("bundle: MB"), lambda v: v.mean <= 40),
        row(
            "bundle: seconds to load",
            "< 2",
            found("bundle: seconds to load"),
            lambda v: v.mean < 2,
            f"the first time, with imports: {found('bundle: seconds to load first, with imports').mean:.1f}",
        ),
        row("speed: frames per second", "aim 25", found("speed: frames per second"), lambda v: v.mean >= 25),
        row(
            "silence: people who blink within 5 s",
            ">= 0.9",
            found("idle blinked at all"),
            lambda v: v.mean >= 0.9,
            f"blinks a minute {found('idle blinks per minute: generated')}, data"
            f" {found('idle blinks per minute: data')}",
        ),
        row("silence: head movement to data", "0.5 .. 1.5", _idle(parts), lambda v: 0.5 <= v.mean <= 1.5),
        row("silence: mouth closed", ">= 0.95 of frames", found("idle mouth: closed"), lambda v: v.mean >= 0.95),
    ]
    return rows


def _closed(value: Interval) -> bool:
    return value.mean >= CLOSED_AIM


def _column(parts: Parts, part: str, name: str) -> list[float]:
    return [r.metrics.get(name, math.nan) for r in parts.get(part, [])]


def _ratio(parts: Parts, part: str, above: str, below: str) -> Interval:
    x, y = _column(parts, part, above), _column(parts, part, below)
    return ratio(x, y) if x else NOTHING


def _diversity(parts: Parts, columns: Sequence[str]) -> tuple[Interval, Interval]:
    """Variance over seeds as a share of the data's, mean over columns, and what reading adds to it."""

    def shares(kind: str) -> list[float]:
        """For each person, the mean over columns; each column in units of the data's mean variance."""
        units = [np.nanmean(_column(parts, "diversity", f"diversity variance, data: {c}")) for c in columns]
        values = [_column(parts, "diversity", f"diversity variance, {kind}: {c}") for c in columns]
        return [
            float(np.mean([v[k] / u for v, u in zip(values, units, strict=True)])) for k in range(len(values[0]))
        ]

    if not parts.get("diversity"):
        return NOTHING, NOTHING
    return ratio(shares("generated"), shares("data")), ratio(shares("reading"), shares("data"))


def _idle(parts: Parts) -> Interval:
    """Deviation of the head over a silence as a share of the data's, mean over the head's movements."""
    people = parts.get("idle", [])
    return bootstrap(
        [
            float(
                np.mean(
                    [
                        p.metrics[f"idle movement, generated: {h}"] / p.metrics[f"idle movement, data: {h}"]
                        for h in HEAD
                    ]
                )
            )
            for p in people
        ]
    )
