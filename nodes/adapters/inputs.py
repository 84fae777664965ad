"""What nodes get: values checked against their schema, and files as ComfyUI's IMAGE, MASK and AUDIO."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...letstalk_core.errors import ConfigError, LetsTalkError
from ...letstalk_core.media.audio.decode import load_sound
from ...letstalk_core.media.portrait.image import load_with_alpha
from ...letstalk_core.pixels import from_bytes
from .folders import fingerprint, resolve_input
from .host_errors import in_words_of_comfyui
from .widgets import SCALES

FILES = {"audio", "audio_encoder", "autoencoder", "image", "memory_file", "model"}  # combos looked up when used


def with_checked_inputs(node: Any) -> Any:
    """A node class whose `execute` first holds every number, text and choice to the limits of its own schema.

    ComfyUI does so for what is typed into a widget only; what comes over a link may be anything.
    """
    inner = node.execute.__func__
    if getattr(inner, "checks_inputs", False):
        return node

    def execute(cls: Any, *args: Any, **kwargs: Any) -> Any:
        widgets = _widgets(node)
        given = {**dict(zip(widgets, args, strict=False)), **kwargs}
        for name, widget in widgets.items():
            for value in _values(node, given, name):
                _check(name, value, widget)
        return inner(cls, **given)

    execute.checks_inputs = True  # type: ignore[attr-defined]
    node.execute = classmethod(execute)
    return node


def _values(node: Any, given: dict[str, Any], name: str) -> list[Any]:
    """What came for an input: one value, or of a list, where one may come, every one of them."""
    if name not in given:
        return []
    value = given[name]
    listed = name in SCALES or node.define_schema().is_input_list
    return value if listed and isinstance(value, list) else [value]


@cache
def _widgets(node: Any) -> dict[str, Any]:
    return {entry.id: entry for entry in node.define_schema().inputs}


def _check(name: str, value: Any, widget: Any) -> None:
    """Raises: ConfigError naming the input and what it may be."""
    if value is None and widget.optional:
        return
    if isinstance(widget, (io.Int.Input, io.Float.Input)):
        whole = isinstance(widget, io.Int.Input)
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and not (whole and value % 1)
        if not fits or not widget.min <= value <= widget.max:  # NaN is neither
            kind = "a whole number" if whole else "a number"
            raise ConfigError(
                f"{name}: is {_short(value)}; must be {kind} from {widget.min:,} to {widget.max:,}. Correct it, or"
                " the node that it is linked to"
            )
    elif isinstance(widget, io.Combo.Input):
        if not isinstance(value, str) or (name not in FILES and value not in widget.options):
            raise ConfigError(f"{name}: is {_short(value)}; must be one of {list(widget.options)}")
    elif isinstance(widget, io.String.Input):
        if not isinstance(value, str) or "\0" in value:
            raise ConfigError(f"{name}: is {_short(value)}; must be a text")
    elif isinstance(widget, io.Boolean.Input) and value not in (True, False):
        raise ConfigError(f"{name}: is {_short(value)}; must be true or false")


def _short(value: Any) -> str:
    return repr(value)[:60] if isinstance(value, (int, float, str)) else f"of type {type(value).__name__}"


def file_checks(name: str, find: Callable[[str], Path], beside: str = "") -> tuple[Any, Any]:
    """`validate_inputs` and `fingerprint_inputs` of a node whose input `name` is looked up by `find`.

    A linked name, or a file that goes later, is an error when the node runs. What changes with the file: it, and
    one of the name `beside` in its folder. ComfyUI says the reason of every input that the first of them names.
    """

    def validate(cls: Any, /, **inputs: Any) -> bool | str:
        try:
            return inputs[name] is None or bool(find(inputs[name]))
        except LetsTalkError as error:
            return in_words_of_comfyui(str(error))

    def state(cls: Any, /, **inputs: Any) -> str:
        try:
            return fingerprint(find(inputs[name]), beside)
        except (LetsTalkError, OSError, TypeError):
            return f"missing: {inputs[name]}"

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    validate.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("cls", kind), inspect.Parameter(name, kind)]
    )
    return classmethod(validate), classmethod(state)


def load_image(name: str) -> tuple[Tensor, Tensor]:
    """IMAGE (1, h, w, 3), and MASK (1, h, w) that is 1 where the picture is transparent, as LoadImage gives them.

    The mask editor saves what was painted as transparency, so the colours under it stay. Raises: MediaError.
    """
    path = resolve_input("portrait", name)
    image, alpha = load_with_alpha(path, background=None)
    mask = torch.zeros(64, 64) if alpha is None else 1 - from_bytes(alpha)
    return from_bytes(image)[None], mask[None]


def load_picture_file(path: Path) -> Tensor:
    """IMAGE (1, h, w, 3) of a file that this pack wrote. Raises: MediaError."""
    return from_bytes(load_with_alpha(path, background=None)[0])[None]


def load_audio(name: str) -> dict[str, Any]:
    """AUDIO of the whole file at its own rate, mono or stereo. Raises: MediaError."""
    waveform, sample_rate = load_sound(resolve_input("speech", name))
    return {"waveform": waveform[None], "sample_rate": sample_rate}
