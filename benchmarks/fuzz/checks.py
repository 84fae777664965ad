"""Calling what has to survive: our errors are answers, all others are defects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

REFUSALS: list[str] = []  # names of our errors that came in this case


def is_ours(error: BaseException) -> bool:
    """Whether it is one of our errors; by name, because the nodes' copy of the core has classes of its own."""
    return any(base.__name__ == "LetsTalkError" for base in type(error).__mro__)


def attempt(function: Callable[[Any], Any], value: Any) -> Any:
    """The result, or None where one of our errors comes."""
    try:
        return function(value)
    except Exception as error:
        if not is_ours(error):
            raise
        REFUSALS.append(type(error).__name__)
        return None


def tolerated(function: Callable[[Any], Any], value: Any) -> None:
    found = attempt(function, value)
    if isinstance(found, Iterator):
        for _ in islice(found, 1000):
            pass
