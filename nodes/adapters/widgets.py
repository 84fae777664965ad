"""The inputs of nodes that are numbers, one range for one word, and what several nodes have."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .work import UNFINISHED

MAX_SEED = 0xFFFF_FFFF_FFFF_FFFF
DAY, FRAMES = 86_400.0, 10_000_000  # seconds; more than any recording has
SCALES = ("audio_scale", "portrait_scale")  # to which lists may be wired, one number a step
_SIDE = (io.Int, {"default": 256, "min": 32, "max": 4096, "step": 32})
_RANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "seed": (io.Int, {"default": 0, "min": 0, "max": MAX_SEED, "control_after_generate": True}),
    "steps": (io.Int, {"default": 0, "min": 0, "max": 1000}),
    "movement": (io.Float, {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05}),
    "audio_scale": (io.Float, {"default": 0.0, "min": 0.0, "max": 20.0, "step": 0.1}),
    "portrait_scale": (io.Float, {"default": 1.0, "min": 0.0, "max": 20.0, "step": 0.1}),
    "width": _SIDE,
    "height": _SIDE,
    "margin": (io.Float, {"default": 0.6, "min": 0.0, "max": 3.0, "step": 0.05}),
    "fps": (io.Float, {"default": 25.0, "min": 1.0, "max": 120.0, "step": 0.01}),
    "silence_threshold": (io.Float, {"default": -60.0, "min": -100.0, "max": 0.0, "step": 1.0}),
    "start_seconds": (io.Float, {"default": 0.0, "min": 0.0, "max": DAY, "step": 0.1}),
    "length_seconds": (io.Float, {"default": 0.0, "min": 0.0, "max": DAY, "step": 0.1}),
    "max_seconds": (io.Float, {"default": 0.0, "min": 0.0, "max": DAY, "step": 0.1}),
    "frame": (io.Int, {"default": 0, "min": 0, "max": FRAMES}),
    "first_frame": (io.Int, {"default": 0, "min": 0, "max": FRAMES}),
    "max_frames": (io.Int, {"default": 0, "min": 0, "max": FRAMES}),
    "clip_frames": (io.Int, {"default": 16, "min": 1, "max": 1024}),
    "shift": (io.Float, {"default": 0.0, "min": 0.0, "max": 20.0, "step": 0.05}),
    "noise_sigma": (io.Float, {"default": -1.0, "min": -1.0, "max": 0.99, "step": 0.01}),
    "recent_frames": (io.Int, {"default": -1, "min": -1, "max": 16}),
    "anchor_frames": (io.Int, {"default": -1, "min": -1, "max": 16}),
    "drift_level": (io.Float, {"default": 0.0, "min": 0.0, "max": 0.99, "step": 0.01}),
    "strength": (io.Float, {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05}),
    "minutes": (io.Float, {"default": 30.0, "min": 0.1, "max": 10_000.0, "step": 1.0}),
    "raise_by": (io.Float, {"default": 0.1, "min": -1.0, "max": 1.0, "step": 0.05}),
    "smoothing": (io.Float, {"default": 5.0, "min": 0.0, "max": 100.0, "step": 0.5}),
    "feather": (io.Float, {"default": 0.1, "min": 0.0, "max": 0.5, "step": 0.01}),
    "retake_from": (io.Float, {"default": 0.0, "min": 0.0, "max": 1_000_000.0, "step": 0.1}),
    "retake_to": (io.Float, {"default": 0.0, "min": 0.0, "max": 1_000_000.0, "step": 0.1}),
    "retake_seed": (io.Int, {"default": 1, "min": 0, "max": MAX_SEED}),
    "crf": (io.Int, {"default": 18, "min": 1, "max": 51}),
    "unfinished": (io.Combo, {"options": list(UNFINISHED), "default": UNFINISHED[0]}),
}


def widget(name: str, tooltip: str, *, optional: bool = False) -> Any:
    """The input of this name with its range; what it does here, the node says."""
    kind, limits = _RANGES[name]
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
