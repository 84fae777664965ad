"""The page of an experiment: results between two marks are written anew, the words around them are kept."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import torch

from letstalk_core.errors import OutputError
from letstalk_core.files import atomic_path

__all__ = ["BEGIN", "END", "Section", "machine", "write_page"]

BEGIN = "<!-- results: written by `letstalk experiment`, do not edit -->"
END = "<!-- end of results -->"


@dataclass
class Section:
    """What an experiment has to show. `about` says what was varied and what is measured."""

    name: str
    title: str
    question: str
    about: str
    tables: list[tuple[str, str, str]] = field(default_factory=list)  # heading, words above the table, table
    pictures: list[tuple[Path, str]] = field(default_factory=list)  # file beside the page, caption
    facts: dict[str, str] = field(default_factory=dict)


def write_page(section: Section, folder: Path, *, command: str, facts: Mapping[str, str]) -> Path:
    """Write or renew `folder`/<name>.md. Raises: OutputError if the page has lost its marks."""
    path = folder / f"{section.name}.md"
    body = "\n\n".join([BEGIN, *_body(section, command, {**facts, **section.facts}), END])
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise OutputError(f"{path}: has no marks {BEGIN!r} and {END!r}; put them back or move the page away")
        text = before + body + after
    else:
        text = f"# {section.title}\n\n{section.question}\n\n## Findings\nNot written yet.\n\n{body}\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _body(section: Section, command: str, facts: Mapping[str, str]) -> list[str]:
    parts = [f"## Set-up\n{section.about}", f"```\n{command}\n```"]
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items()))
    for heading, words, table in section.tables:
        parts += [f"## {heading}", words, table]
    parts += [f"![{caption}]({path.name})\n\n*{caption}*" for path, caption in section.pictures]
    return [part for part in parts if part]


def machine() -> dict[str, str]:
    """Where and when, for the page."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    today = datetime.now(timezone.utc)
    threads, version = torch.get_num_threads(), torch.__version__.partition("+")[0]
    return {
        "machine": f"{device}, {threads} thread{'s' if threads > 1 else ''}, torch {version}",
        "date": f"{today.day} {today:%B %Y}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names: Sequence[str] = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    bfloat = " with bfloat16 in hardware" if "avx512_bf16" in flags.split() else ""
    return (names[0] if names else platform.machine()) + bfloat
