"""Inputs and outputs that several nodes have: one range for one word."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .work import UNFINISHED

__all__ = ["MAX_SEED", "SCALES", "references", "shared", "timing"]

MAX_SEED = 0xFFFF_FFFF_FFFF_FFFF
SCALES = (
    "audio_scale",
    "portrait_scale",
)  # a list of numbers may be wired to them, which are spread over the steps
_SIDE = (io.Int, {"default": 256, "min": 32, "max": 4096, "step": 32})
_SHARED: dict[str, tuple[Any, dict[str, Any]]] = {
    "seed": (io.Int, {"default": 0, "min": 0, "max": MAX_SEED, "control_after_generate": True}),
    "steps": (io.Int, {"default": 0, "min": 0, "max": 1000}),
    "movement": (io.Float, {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05}),
    "audio_scale": (io.Float, {"default": 0.0, "min": 0.0, "max": 20.0, "step": 0.1}),
    "portrait_scale": (io.Float, {"default": 1.0, "min": 0.0, "max": 20.0, "step": 0.1}),
    "width": _SIDE,
    "height": _SIDE,
    "margin": (io.Float, {"default": 0.6, "min": 0.0, "max": 3.0, "step": 0.05}),
    "crf": (io.Int, {"default": 18, "min": 1, "max": 51}),
    "unfinished": (io.Combo, {"options": list(UNFINISHED), "default": UNFINISHED[0]}),
}


def shared(name: str, tooltip: str, *, optional: bool = False) -> Any:
    """The input of this name with its usual range; what it does here, the node says."""
    kind, limits = _SHARED[name]
    return kind.Input(name, **limits, tooltip=tooltip, optional=optional)


def references() -> Any:
    """More pictures of the person in the portrait."""
    return io.Image.Input(
        "references",
        optional=True,
        tooltip="More pictures of the same person, as a batch: mouth open, smiling, turned a little. Frames that"
        " look like one take their detail from it, in the face only with puppet off; each costs as much time as"
        " the portrait's detail. Any framing.",
    )


def puppet() -> Any:
    """Whether a photograph's face is drawn from the photograph."""
    return io.Boolean.Input(
        "puppet",
        default=True,
        optional=True,
        tooltip="Draws lips, lids and gaze of a photograph from the photograph itself, as the speech says, if the"
        " model has lips.safetensors. Off: the model's own face, as drawn faces have it.",
    )


def timing() -> list[Any]:
    """The last outputs of what makes a video."""
    return [
        io.Float.Output(display_name="fps", tooltip="Frames per second, for Create Video and others."),
        io.Int.Output(display_name="frames", tooltip="Number of frames."),
    ]
