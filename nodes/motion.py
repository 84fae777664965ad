"""How head and eyes move, from curves of other nodes, a filmed person, or an emotion."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..letstalk_core.networks.motion_channels import MOVEMENTS
from ..letstalk_core.sampling.motion_curves import EMOTIONS
from .adapters.motion import make_motion
from .adapters.schema import Curve, Motion, make_schema
from .adapters.widgets import widget

TOOLTIPS = {
    "smile": "Smile against the portrait's: 0 as in it, 0.4 a broad one.",
    "blink": "Lids: 0 open, 1 shut.",
    "gaze_x": "Eyes to the side: 0.35 far to the right of the picture, -0.35 to the left.",
    "gaze_y": "Eyes down: 0.35 far, negative up.",
    "brow": "Brows: 0.3 raised, negative lowered.",
    "shift_x": "The head's place, in widths of the picture: 0.02 to the right.",
    "shift_y": "The head's place, in widths of the picture: 0.01 down.",
    "roll": "The head leans, in radians: 0.04 clockwise.",
    "yaw": "The head turns: 1 is 20 degrees to the right of the picture; 0.4 is usual.",
    "pitch": "The head nods: 1 is 20 degrees down; 0.25 is usual.",
    "scale": "The head comes nearer: 0.01 is one per cent larger.",
}


class LetsTalkMotionCurves(io.ComfyNode):
    """FLOAT lists, one value a frame, and a film, -> LETSTALK_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkMotionCurves",
            display_name="LetsTalk Motion Curves",
            category="LetsTalk/conditioning",
            description="How head, eyes and smile move: curves of one value a frame, such as KJNodes' Spline"
            " Editor makes, a video of somebody who moves so, an emotion, or all of them. Wire motion into"
            " LetsTalk Conditioning. What is not wired is drawn from the seed.",
            search_aliases=["driving video", "expression", "head pose", "animation curve"],
            is_input_list=True,
            inputs=[
                io.Combo.Input(
                    "emotion",
                    options=list(EMOTIONS),
                    default="neutral",
                    tooltip="A look that is added to all other movement within the first second.",
                ),
                widget("strength", "How strong the emotion is; 1 is usual."),
                io.Boolean.Input(
                    "back_and_forth",
                    default=False,
                    tooltip="Behind their end, curves run back and forth. Off: they hold their last value. A video"
                    " always runs back and forth.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="Somebody who moves as the portrait should: head, lids, gaze and smile are read from"
                    " it, unless a curve is wired.",
                ),
                *(
                    Curve.Input(
                        name, optional=True, tooltip=f"{TOOLTIPS[name]} A list, one value a frame, or one."
                    )
                    for name in MOVEMENTS
                ),
            ],
            outputs=[Motion.Output(display_name="motion")],
        )

    @classmethod
    def execute(
        cls, emotion: list[str], strength: list[float], back_and_forth: list[bool], **inputs: Any
    ) -> io.NodeOutput:
        video = inputs.pop("video", None)
        film = video[0] if video else None
        return io.NodeOutput(make_motion(inputs, film, emotion[0], strength[0], back_and_forth[0]))
