"""Recipes from TOML files: shipped or given, with changes from the command line, every key checked by name."""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from letstalk_core.errors import ConfigError, DependencyError
from letstalk_core.networks.configs import Config

from ..output import save_text
from .config import AudioRecipe, AutoencoderRecipe, CarryRecipe, DiTRecipe, FacesRecipe, LipsRecipe, Recipe

C = TypeVar("C", bound=Config)
MAX_CHARACTERS, MAX_DOTS = 2**18, 200  # of a recipe, and of a line in it
RECIPES: dict[str, type[Recipe]] = {
    r.stage: r for r in (AutoencoderRecipe, CarryRecipe, AudioRecipe, DiTRecipe, FacesRecipe, LipsRecipe)
}


def recipe_path(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a shipped one ("demo_dit"). Raises: ConfigError."""
    path = Path(name)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise ConfigError(f"{str(name)[:80]}: cannot be looked for ({error.strerror})") from None
    shipped = Path(str(resources.files(__package__) / "recipes"))
    candidate = shipped / f"{path.stem}.toml"
    if len(path.parts) == 1 and candidate.is_file():
        return candidate
    names = sorted(p.stem for p in shipped.glob("*.toml"))
    raise ConfigError(f"{name}: no such recipe file; give a TOML file or one of the shipped {names}")


def load_recipe(stage: str, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `table.key=value` overrides (values in TOML). Raises: ConfigError naming the key."""
    path = recipe_path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    values = _parse_toml(text, str(path))
    for override in overrides:
        _apply_override(values, override)
    found = values.pop("stage", stage)
    if found != stage:
        raise ConfigError(f"{path}: stage={found!r}; start it with `letstalk train {found}`, not {stage!r}")
    recipe_class = RECIPES.get(stage)
    if recipe_class is None:
        raise ConfigError(f"unknown training stage {stage!r}; known are {sorted(RECIPES)}")
    hints = typing.get_type_hints(recipe_class)
    tables = {f.name for f in dataclasses.fields(recipe_class)}
    for key in values.keys() - tables:
        raise ConfigError(f"{path}: unknown table or key {key!r}; known are {sorted({'stage', *tables})}")
    values.setdefault("loop", {})
    for name in ("model", "projection"):
        if name in tables:
            values.setdefault(name, {"preset": "demo"})
    return recipe_class(**{key: _build(hints[key], table, f"{path}: [{key}]") for key, table in values.items()})


def _build(config: type[C], table: Any, where: str) -> C:
    """A config from its table; networks may start from `preset`."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, not {table!r}")
    table = dict(table)
    try:
        if "preset" in table:
            base = _preset(config, table.pop("preset"))
            table = {**base.to_dict(), **table}
        return config.from_dict(table)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _preset(config: type[Config], name: Any) -> Config:
    """The shape of a name, or that of the network in a model file."""
    from letstalk_core.networks import presets
    from letstalk_core.networks.checkpoint import read_header

    if isinstance(name, str) and name.endswith(".safetensors"):
        found: Config = read_header(name).part(config.kind)[1]
        return found
    table: Mapping[str, Config] = getattr(presets, config.kind.upper(), {})
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"preset={name!r} is unknown; known are {sorted(table)}, or a model file")
    return table[name]


def _parse_toml(text: str, where: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise DependencyError(
                f"reading recipes before Python 3.11 needs tomli ({error}); pip install 'letstalk-portrait[train]'"
            ) from None
    if len(text) > MAX_CHARACTERS or any(line.count(".") > MAX_DOTS for line in text.splitlines()):
        # minutes of parsing
        raise ConfigError(f"{where}: is too long, or has keys of too many parts, for a recipe")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError, OverflowError) as error:  # dates that are none, too
        raise ConfigError(f"{where}: not valid TOML ({error})") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not (equals and len(parts) == 2 and all(parts)):
        raise ConfigError(f"--set {override}: needs the form table.key=value")
    try:
        value = _parse_toml(f"value = {text}", override)["value"]
    except ConfigError:
        value = text.strip()  # a bare word is a string: --set loop.run=runs/one
    table = values.setdefault(parts[0], {})
    if not isinstance(table, dict):
        raise ConfigError(f"--set {override}: {parts[0]} is not a table")
    table[parts[1]] = value


def write_resolved(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as JSON beside a run."""
    save_text(path, json.dumps(recipe.to_dict(), indent=2) + "\n")
