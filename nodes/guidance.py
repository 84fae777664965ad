"""Nodes for native samplers: a guider with separate scales for audio and portrait, and the model's own sigmas."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..letstalk_core.sampling.guidance import as_scale, check_scales
from .adapters.guider import make_guider, make_model_sigmas
from .adapters.schema import make_schema
from .adapters.widgets import widget

CATEGORY = "LetsTalk/sampling"


class LetsTalkGuiderNode(io.ComfyNode):
    """GUIDER for SamplerCustomAdvanced, the Long Video Sampler and Talking Video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkGuider",
            display_name="LetsTalk Guider",
            category=CATEGORY,
            description="Guides a LetsTalk model towards the speech and towards the portrait, each with a scale of"
            " its own. Runs up to three passes as one batch; scales of 1 cost one pass.",
            search_aliases=["cfg", "audio guidance"],
            inputs=[
                io.Model.Input("model", tooltip="A LetsTalk model from Load DiT, LoRA and patches applied."),
                io.Conditioning.Input("positive", tooltip="From LetsTalk Conditioning; no negative is needed."),
                widget(
                    "audio_scale",
                    "How much more than learned the mouth follows the speech, as a factor. 0: the model's"
                    " own value; 1: no guidance, as for the demo model, which has it trained in; much more"
                    " distorts the face. Anything but 1 doubles the work.",
                ),
                widget(
                    "portrait_scale",
                    "How much more than learned the face keeps to the portrait, as a factor. 1: no"
                    " guidance. A value that differs from 1 and from audio_scale adds one more pass.",
                ),
            ],
            outputs=[io.Guider.Output(display_name="guider")],
        )

    @classmethod
    def execute(cls, model: Any, positive: Any, audio_scale: Any, portrait_scale: Any) -> io.NodeOutput:
        return io.NodeOutput(make_guider(model, positive, audio_scale, portrait_scale))


class LetsTalkScaleSchedule(io.ComfyNode):
    """FLOAT list for audio_scale and portrait_scale."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkScaleSchedule",
            display_name="LetsTalk Scale Schedule",
            category=CATEGORY,
            description="A guidance scale that changes over the sampling steps. Wire it into audio_scale or"
            " portrait_scale of any LetsTalk node.",
            search_aliases=["cfg schedule", "guidance schedule", "float list"],
            inputs=[
                io.String.Input(
                    "scales",
                    default="1.6:1.0",
                    tooltip="Scales from the first step to the last, in straight lines between them: 1.6:1.0 falls"
                    " evenly, 1:2:2:1 is highest in the middle; as many as there are steps are one a step.",
                )
            ],
            outputs=[io.Float.Output(display_name="scales", tooltip="A list of numbers on one wire.")],
        )

    @classmethod
    def execute(cls, scales: str) -> io.NodeOutput:
        scale = as_scale(scales)
        check_scales(scale, scale)
        return io.NodeOutput(list(scale) if isinstance(scale, tuple) else scale)


class LetsTalkSigmas(io.ComfyNode):
    """SIGMAS for native samplers that equal those of the standalone pipeline."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkSigmas",
            display_name="LetsTalk Sigmas",
            category=CATEGORY,
            description="The noise levels a LetsTalk model is sampled at, the same as in the command line.",
            search_aliases=["scheduler", "steps", "shift"],
            inputs=[
                io.Model.Input("model", tooltip="A LetsTalk model from Load DiT."),
                widget(
                    "steps",
                    "Sampling steps of every clip. More takes longer and follows the model more closely."
                    " 0: the model's own number.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=["model", "karras"],
                    default="model",
                    tooltip="model: evenly spread over the levels the model was trained at. karras: more steps at"
                    " low noise.",
                ),
                widget(
                    "shift",
                    "Flow models with the schedule `model`: above 1 more steps at high noise, below 1 more"
                    " at low noise. 0: the model's own, which ModelSamplingSD3 can change.",
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas")],
        )

    @classmethod
    def execute(cls, model: Any, steps: int, schedule: str, shift: float) -> io.NodeOutput:
        return io.NodeOutput(make_model_sigmas(model, steps, schedule, shift))
