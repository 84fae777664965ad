"""Who may import whom (docs/architecture.md), checked on the source, imports inside of functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEVELS = [  # top to bottom: a file imports from its own part and from levels below, never from a neighbour
    {"letstalk_core.cli", "nodes"},
    {"letstalk_core.generate"},
    {"letstalk_core.sampling", "letstalk_core.media"},
    {"letstalk_core.networks"},
    {"letstalk_core"},  # files, errors, protocols, pixels
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
COMFYUI = {"comfy", "comfy_api", "comfy_config", "comfy_execution", "comfy_extras", "execution", "folder_paths"}


def imports(path: Path) -> list[tuple[str, bool]]:
    """Dotted name, and whether it is a relative import, of every import in a file."""
    package, found = path.relative_to(ROOT).parts[:-1], []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = [*base, node.module] if node.module else base
            found += [(".".join([*stem, alias.name]), node.level > 0) for alias in node.names]
    return found


def part_of(name: str) -> str:
    """The part that a name belongs to: a folder of the core, the core's loose modules, another package."""
    top, *rest = name.split(".")
    return f"{top}.{rest[0]}" if top == "letstalk_core" and rest and (ROOT / top / rest[0]).is_dir() else top


def found() -> Iterator[tuple[str, str, str, bool]]:
    """Every import of the core and the nodes: its place, the part it is in, the name, whether it is relative."""
    for path in sorted([*(ROOT / "letstalk_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]):
        part = part_of(".".join(path.relative_to(ROOT).parts[:-1]))
        yield from ((f"{path.relative_to(ROOT)}: {name}", part, name, own) for name, own in imports(path))


def test_imports_point_down() -> None:
    ours = [(place, part, part_of(name)) for place, part, name, relative in found() if relative]
    assert [place for place, part, target in ours if target != part and LEVEL.get(target, -1) <= LEVEL[part]] == []


def test_our_own_modules_are_imported_relatively_and_research_never() -> None:
    assert [place for place, _, name, relative in found() if not relative and name.startswith("letstalk_")] == []


def test_the_core_does_not_know_comfyui() -> None:
    core = [(place, name.partition(".")[0]) for place, part, name, _ in found() if part != "nodes"]
    assert [place for place, top in core if top in COMFYUI | {"nodes"}] == []
