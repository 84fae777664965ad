"""The base of all configs: JSON-safe values, checked against the limits in their annotations when one is made."""

from __future__ import annotations

import dataclasses
import operator
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from ..errors import ConfigError

C = TypeVar("C", bound="Config")
# A field's annotation carries its limits: comparisons with a number, or a tuple of choices. What no network comes
# near is refused: beyond it a file is damaged, and building it would take hours or memory.
LIMITS: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "a multiple of": lambda value, number: value % number == 0,
}


def _problem(value: Any, hint: Any) -> str:
    """What is wrong with a JSON value for an annotation ("must be > 0"); empty if nothing is."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    wrong = "is not of type {}"
    if origin is Annotated:
        if problem := _problem(value, args[0]):
            return problem
        for limit in args[1:]:
            if isinstance(limit, tuple):
                met, limit = value in limit, f"one of {', '.join(limit)}"
            else:
                comparison, _, number = limit.rpartition(" ")
                met = LIMITS[comparison](value, float(number))
            if not met:
                return f"must be {limit}"
        return ""
    if origin in (typing.Union, types.UnionType):
        return "" if any(not _problem(value, a) for a in args) else wrong
    if origin is tuple:
        if args[1:] == (Ellipsis,) and isinstance(value, tuple):
            args = args[:1] * len(value)
        if not isinstance(value, tuple) or len(value) != len(args):
            return wrong
        return next(filter(None, map(_problem, value, args)), "")
    if hint in (int, float):  # an int may be a float, a bool is no int; JSON knows numbers too large to count with
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        return "" if whole or (hint is float and isinstance(value, float)) else wrong
    return "" if isinstance(value, hint) else wrong


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs. `kind` names the network in checkpoint headers."""

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self), include_extras=True)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if problem := _problem(value, hints[field.name]):
                kind = typing.get_type_hints(type(self))[field.name]
                problem = problem.format(kind.__name__ if isinstance(kind, type) else kind)
                raise ConfigError(f"{self.kind} config: {field.name}={value!r} {problem}")
        self.validate()

    def require(self, condition: bool, message: str) -> None:
        """Raises: ConfigError with the message if the condition does not hold."""
        if not condition:
            raise ConfigError(f"{self.kind} config: {message}")

    def require_multiple(self, name: str, of: str) -> None:
        """Raises: ConfigError unless a field is a multiple of another."""
        value, factor = getattr(self, name), getattr(self, of)
        self.require(value % factor == 0, f"{name}={value} is not a multiple of {of}={factor}")

    def validate(self) -> None:
        """Check relations between fields; overridden by each config. Raises: ConfigError."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[C], values: dict[str, Any]) -> C:
        """Build from JSON (lists become tuples). Raises: ConfigError naming unknown, missing or bad fields."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"{cls.kind} config: unknown fields {unknown}; known are {sorted(known)}")
        try:
            return cls(**{k: _tuples(v) for k, v in values.items()})
        except (TypeError, RecursionError) as error:
            raise ConfigError(f"{cls.kind} config: {error}") from None
