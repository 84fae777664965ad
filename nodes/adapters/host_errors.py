"""Errors of the core in the words of ComfyUI: what to set in a node, not which option of a command to give.

The texts are those of the core, which knows no host. `locales/<language>/errors.json` translates the common ones:
a list of [pattern, text], the pattern for the whole English message, the text with its groups as \\1, \\2.
"""

from __future__ import annotations

import functools
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths

from ...letstalk_core.errors import LetsTalkError

LOCALES = Path(__file__).resolve().parents[2] / "locales"
WORDS = (  # (what the core or the command line says, what it is called here)
    (
        r"; repeat its command, or delete the folder \(--restart\) to start anew",
        "; use its settings again, set unfinished to `start anew`, or choose another work_folder",
    ),
    (r"delete the folder \(--restart\) to start anew", "set unfinished to `start anew`"),
    (r"was made with --keep-work", "was made with a work_folder"),
    (r"use float32 \(--dtype float32\)", "set weight_dtype to `default` in LetsTalk Load DiT"),
    (r"--restart", "unfinished = `start anew`"),
)


def in_words_of_comfyui(text: str) -> str:
    """A message of the core for someone who sees nodes, in the language of the browser if it is known."""
    for pattern, words in WORDS:
        text = re.sub(pattern, words, text)
    for expression, translated in _translations(_language()):
        found = expression.fullmatch(text)
        if found is not None:
            return found.expand(translated)
    return text


def with_host_errors(node: Any) -> Any:
    """A node class whose `execute` raises errors of the core under short names, in the words of ComfyUI."""
    inner = node.execute.__func__
    if hasattr(inner, "__wrapped__"):
        return node

    @functools.wraps(inner)
    def execute(cls: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return inner(cls, *args, **kwargs)
        except LetsTalkError as error:
            raise _short(type(error))(in_words_of_comfyui(str(error))) from error

    node.execute = classmethod(execute)
    return node


def _short(kind: type[LetsTalkError]) -> type[LetsTalkError]:
    """The same class by a name that fits a dialog: ComfyUI shows the module too, which is a path for packs."""
    return kind if kind.__module__ == "LetsTalk" else type(kind.__name__, (kind,), {"__module__": "LetsTalk"})


def _language() -> str:
    """Of the browser, as its settings say, e.g. "zh"; "en" where nothing is known."""
    path = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("Comfy.Locale", "en")
    except (OSError, ValueError, AttributeError):
        return "en"
    return found if isinstance(found, str) else "en"


@lru_cache
def _translations(language: str) -> list[tuple[re.Pattern[str], str]]:
    path = LOCALES / language / "errors.json"
    if not language.isalpha() or not path.is_file():
        return []
    pairs: list[list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return [(re.compile(pattern, re.DOTALL), text) for pattern, text in pairs]
