"""The table of aims of the demo model: each row's aim, the value found for it, and whether it was met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .demo_clips import SERIES
from .face_reader import HEAD
from .intervals import NOTHING, Interval, bootstrap, ratio
from .report import Row
from .store import ClipResult

Parts = Mapping[str, Sequence[ClipResult]]
PSNR_AIMS = {"frame": 33.0, "mouth": 30.0, "eyes": 29.0}
SKIN_LEEWAY_DB = 1.5
CLOSED_AIM = ">= 0.9 of frames"  # inside pauses; one early or late opening in ten frames is forgiven


def demo_rows(metrics: Mapping[str, Interval], parts: Parts) -> list[Row]:
    """All rows; those that nothing was measured for are marked so."""
    row = Row.judged

    def found(name: str) -> Interval:
        return metrics.get(name, NOTHING)

    def told(name: str, reach: str, value: Interval, met: bool, remark: str = "") -> Row:
        """A row whose reach needs words."""
        return Row(name, reach, value, met if value.count else None, remark)

    def beside(name: str) -> str:
        best, chance = found(f"reading round trip: {name}"), found(f"lips control: {name}")
        return f"round trip {best}, other clip's speech {chance}"

    lips = "lips correlation: "
    quiet = f"round trip {found('pauses round trip: closed')}"
    noisy, chance = found("noisy lips correlation: jaw"), found("lips control: jaw")
    above, clean = noisy.low > (chance.high if chance.count else 0.2), f"clean {found(lips + 'jaw')}"
    loud, control = (found(f"recording jaw and loudness: {kind}") for kind in ("generated", "control"))
    follows = loud.low > max(0.0, control.high)
    others = f"control {control}, truth of computer voices {found('noisy jaw and loudness: truth')}"
    rows = [
        row("lips: jaw", ">= 0.85", found(lips + "jaw"), beside("jaw")),
        row("lips: lag in frames", "0 +- 1", found("lips lag: frames")),
        row("lips: width", ">= 0.7", found(lips + "width"), beside("width")),
        row("lips: round", ">= 0.7", found(lips + "round"), beside("round")),
        row("closed in pauses >= 300 ms", CLOSED_AIM, found("pauses: closed"), quiet),
        told("unknown voices, noise and reverb: jaw", "above chance", noisy, above, clean),
        row("unknown voices, noise and reverb: closed in pauses", CLOSED_AIM, found("noisy pauses: closed")),
        told("recordings of people: jaw and loudness", "above chance", loud, follows, others),
        row("recordings of people: closed in pauses", CLOSED_AIM, found("recording pauses: closed")),
    ]
    for where, aim in PSNR_AIMS.items():
        value = found(f"autoencoder PSNR: {where}")
        rows.append(row(f"autoencoder PSNR: {where}", f">= {aim:g} dB", value))
        for skin in ("lightest skin", "darkest skin"):
            name = f"autoencoder PSNR, {skin}: {where}"
            below = f"{value.mean - found(name).mean:+.2f} dB below all" if found(name).count else ""
            rows.append(row(name, f">= {aim - SKIN_LEEWAY_DB:g} dB", found(name), below))
    for kind in ("colour error", "landmark error"):
        names = f"identity {kind}: generated", f"identity {kind}: round trip"
        levels = f"{found(names[0])} against {found(names[1])}"
        rows.append(row(f"identity: {kind} to round trip", "<= 1.5", _ratio(parts, "speech", *names), levels))
    length = next((f"{r.notes['clips']} clips, {r.notes['frames']} frames" for r in parts.get("drift", [])), "")
    for name in SERIES:
        settled = f"{length}; after 10 s {found(f'drift slope per minute, settled: {name}')}"
        slope = found(f"drift slope per minute: {name}")
        rows.append(row(f"drift: {name} per minute", "0 in interval", slope, settled))
    value = found("drift last minute against first: sharpness")
    rows.append(told("drift: sharpness, last minute to first", "1", value, value.high >= 1))
    for name, columns in (("head", HEAD), ("eyes (blinks)", ("blink",))):
        value, reading = _diversity(parts, columns)
        errors = f"of which errors of reading at most {reading}"
        rows.append(row(f"diversity: {name}", "0.5 .. 1.5", value, errors))
    speed, first = found("speed: frames per second"), found("bundle: seconds to load first, with imports")
    made, data = (found(f"idle blinks per minute: {kind}") for kind in ("generated", "data"))
    loading, blinks = f"the first time, with imports: {first.mean:.1f}", f"blinks a minute {made}, data {data}"
    return rows + [
        row("steps: jaw lost with 8 for 30", "< 0.02", found("steps lost with fewer: jaw")),
        row("bundle: MB", "<= 40", found("bundle: MB")),
        row("bundle: seconds to load", "< 2", found("bundle: seconds to load"), loading),
        told("speed: frames per second", "aim 25", speed, speed.mean >= 25),
        row("silence: people who blink within 5 s", ">= 0.9", found("idle blinked at all"), blinks),
        row("silence: head movement to data", "0.5 .. 1.5", _idle(parts)),
        row("silence: mouth closed", ">= 0.95 of frames", found("idle mouth: closed")),
    ]


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
        people = zip(*values, strict=True)
        return [float(np.mean([v / u for v, u in zip(person, units, strict=True)])) for person in people]

    if not parts.get("diversity"):
        return NOTHING, NOTHING
    return ratio(shares("generated"), shares("data")), ratio(shares("reading"), shares("data"))


def _idle(parts: Parts) -> Interval:
    """Deviation of the head over a silence as a share of the data's, mean over the head's movements."""
    made, data = (
        [_column(parts, "idle", f"idle movement, {kind}: {h}") for h in HEAD] for kind in ("generated", "data")
    )
    return bootstrap(np.mean(np.array(made) / np.array(data), axis=0))
