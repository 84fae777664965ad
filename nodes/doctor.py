"""A report to read, or to paste into a question: what is installed, what was found, how fast it is."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .adapters.doctor import report
from .adapters.schema import make_schema
from .adapters.widgets import widget


class LetsTalkDoctor(io.ComfyNode):
    """Versions, files, memory and, of what is wired in, the speed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkDoctor",
            display_name="LetsTalk Doctor",
            category="LetsTalk",
            description="Reports versions, memory, attention, model files with their hashes, the video encoder and"
            " the face detector; and, for what is wired in, the expected seconds per second of video.",
            search_aliases=["diagnose", "benchmark", "report"],
            is_output_node=True,
            inputs=[
                widget("steps", "Sampling steps for which the time is estimated. 0: the model's own number."),
                io.Boolean.Input(
                    "audio_guidance",
                    default=False,
                    tooltip="Estimate with audio guidance (an audio scale other than 1), which doubles the work of"
                    " a step.",
                ),
                io.Model.Input(
                    "model", optional=True, tooltip="From LetsTalk Load DiT: measures one step of a clip."
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="From LetsTalk Load Autoencoder: measures the decoding of a clip.",
                ),
                io.AudioEncoder.Input(
                    "audio_encoder", optional=True, tooltip="Measures the encoding of one second of sound."
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="The report as text.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")  # files and memory change without any input changing

    @classmethod
    def execute(
        cls, steps: int, audio_guidance: bool, model: Any = None, vae: Any = None, audio_encoder: Any = None
    ) -> io.NodeOutput:
        text = report(model, vae, audio_encoder, steps, audio_guidance)
        return io.NodeOutput(text, ui=ui.PreviewText(text))
