"""The table of aims for photographs: each row's aim, the value found for it, and whether it was met."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from .intervals import NOTHING, Interval, ratio
from .report import Row
from .store import ClipResult

DECODED_AIMS = {"": (35.0, 32.0, 33.0), ", large poses": (31.0, 32.0, 29.0)}  # frame, mouth, eyes
SLOPES = ("colour error", "shape error", "sharpness")

Met = Callable[[Interval], bool]


def photo_rows(metrics: Mapping[str, Interval], parts: Mapping[str, Sequence[ClipResult]]) -> list[Row]:
    """All rows of the suite of photographs."""
    clips = parts.get("photo", [])

    def found(name: str) -> Interval:
        return metrics.get(name, NOTHING)

    def row(name: str, reach: str, value: Interval, met: Met | None, remark: str = "") -> Row:
        return Row(name, reach, value, met(value) if met is not None and value.count else None, remark)

    def share(above: str, below: str) -> Interval:
        values = [[c.metrics.get(name, math.nan) for c in clips] for name in (above, below)]
        return ratio(*values) if clips else NOTHING

    def least(aim: float) -> Met:
        return lambda v: v.mean >= aim

    def most(aim: float) -> Met:
        return lambda v: v.mean <= aim

    def own(name: str) -> str:
        return f"puppets' own {found(f'{name}: puppet')}"

    jaw, width = "opening against jaw", "width against wide - round"
    lag, other = found("lag in frames: generated"), found(f"{jaw}: other sentence")
    rows = [
        row("mouth opening against jaw", ">= 0.80", found(f"{jaw}: generated"), least(0.80), own(jaw)),
        row("the same: lag in frames", "0 +- 1", lag, lambda v: abs(v.mean) <= 1),
        row("the same: another sentence", "near 0", other, lambda v: abs(v.mean) <= 0.1),
        row("lip width against wide - round", ">= 0.70", found(f"{width}: generated"), least(0.70), own(width)),
    ]
    for where in ("on m, b, p", "in pauses"):
        name = f"closed {where}"
        rows.append(row(f"lips {name}", ">= 0.9", found(f"{name}: generated"), least(0.9), own(name)))
    for pose, aims in DECODED_AIMS.items():
        for part, aim in zip(("frame", "mouth", "eyes"), aims, strict=True):
            name = f"PSNR{pose}: {part}"
            plain = f"without carry {found(f'plain {name}')}"
            rows.append(
                row(f"decode and carry, {name}", f">= {aim:g} dB", found(f"carried {name}"), least(aim), plain)
            )
    rows.append(
        row("generated frames to the puppet's, PSNR", ">= 27 dB", found("generated PSNR: frame"), least(27.0))
    )
    for kind in ("shape", "colour"):
        value = share(f"identity {kind}: generated", f"identity {kind}: decoded")
        levels = f"{found(f'identity {kind}: generated')} against {found(f'identity {kind}: decoded')}"
        rows.append(row(f"identity: {kind} to the decoded puppet's", "<= 1.5", value, most(1.5), levels))
    amount = f"amount of change to the puppet's {share('flicker: generated', 'flicker: puppet')}"
    value = share("flicker error: generated", "flicker error: decoded")
    rows.append(row("flicker outside of the face to the decoded puppet's", "<= 1.3", value, most(1.3), amount))
    value = share("blinks a minute: generated", "blinks a minute: puppet")
    read = f"read {found('blinks a minute: generated')} a minute, asked {found('blinks a minute: asked')}"
    rows.append(
        row("blinks to those read from puppets", "0.7 .. 1.3", value, lambda v: 0.7 <= v.mean <= 1.3, read)
    )
    for turn in ("yaw", "pitch", "roll"):
        value = share(f"head {turn}: generated", f"head {turn}: puppet")
        rows.append(row(f"head {turn} to the puppet's", "0.7 .. 1.3", value, lambda v: 0.7 <= v.mean <= 1.3))
    for name in SLOPES:
        value = found(f"slope a minute: {name}")
        rows.append(row(f"long video: {name} a minute", "0 in interval", value, lambda v: 0 in v))
    rows.append(row("speed: frames per second", ">= 25", found("speed: frames per second"), least(25.0)))
    for name in sorted(metrics):
        if name.startswith(f"{jaw}: generated, "):
            group = name.removeprefix(f"{jaw}: generated, ")
            quality = f"frame {found(f'generated PSNR: frame, {group}')} dB"
            rows.append(row(f"opening against jaw, {group}", "", found(name), None, quality))
    return rows


def real_rows(metrics: Mapping[str, Interval]) -> list[Row]:
    """Generated lips against filmed ones."""
    rows = []
    for name, aim in (("opening", 0.75), ("width", None)):
        value, chance = metrics.get(f"{name}: same sound", NOTHING), metrics.get(f"{name}: another", NOTHING)
        reach = f">= {aim:g}" if aim else ""
        met = value.mean >= aim if aim and value.count else None
        rows.append(Row(f"lips, {name}: generated against filmed", reach, value, met, f"another clip {chance}"))
        margin = metrics.get(f"{name}: margin", NOTHING)
        reach, met = ("0.35", margin.mean >= 0.35) if aim and margin.count else ("", None)
        rows.append(Row(f"the same: margin over another clip, {name}", reach, margin, met))
    return rows
