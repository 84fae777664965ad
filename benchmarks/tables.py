"""What was measured, a row a line in results.jsonl, and the tables of it in both README.md files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import Row

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.jsonl"
PAGES = {FOLDER / "README.md": False, FOLDER.parent / "README.md": True}  # whether of the headlines only
BEGIN, END = "<!-- table: written by python -m benchmarks --write -->", "<!-- end of table -->"
WORDS = {True: "yes", False: "**no**", None: ""}


def table(rows: Sequence[Row], *, short: bool = False) -> str:
    """Markdown. short: without notes, but with the reason where a goal was missed."""
    head = ("what", "against", "measured", "goal", "reached", "why not" if short else "notes")
    lines = [head, ("---",) * len(head)]
    for row in rows:
        why = row.limit if row.reached is False else ""
        notes = why if short else "; ".join(note for note in (row.note, why) if note)
        lines.append((row.what, row.against, row.result, row.reach, WORDS[row.reached], notes))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def load(path: Path = RESULTS) -> dict[str, Any]:
    """Parts by name: where they were measured, and their rows."""
    parts: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        row = json.loads(line)
        name, machine = row.pop("part"), row.pop("machine")
        parts.setdefault(name, {"machine": machine, "rows": []})["rows"].append(row)
    return parts


def save(parts: Mapping[str, Any], name: str, machine: str, rows: Sequence[Row], path: Path = RESULTS) -> None:
    """Put one part's rows in the place of those measured before."""
    done = {**parts, name: {"machine": machine, "rows": [asdict(row) for row in rows]}}
    lines = [{"part": n, "machine": part["machine"], **row} for n, part in done.items() for row in part["rows"]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def render(parts: Mapping[str, Any], order: Sequence[str], *, short: bool) -> str:
    """Tables of the parts in this order, one for each machine and day."""
    groups: dict[str, list[Row]] = {}
    for name in order:
        if name in parts:
            rows = [Row(**row) for row in parts[name]["rows"]]
            groups.setdefault(parts[name]["machine"], []).extend(r for r in rows if r.headline or not short)
    return "\n\n".join(f"{machine}\n\n{table(rows, short=short)}" for machine, rows in groups.items() if rows)


def write_page(page: Path, text: str) -> None:
    """Put the text between the marks of a page."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page}: lacks the marks between which the table goes")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
