"""A few minutes of a person's video become that person's own model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..letstalk_core.errors import ConfigError
from .adapters.audio import load_audio_encoder
from .adapters.inputs import load_picture_file
from .adapters.model import load_dit
from .adapters.personalize import EXISTING, model_folder, personalize, source_video
from .adapters.progress import say_on_node
from .adapters.schema import make_schema
from .adapters.vae import load_vae
from .adapters.widgets import widget


class LetsTalkPersonalize(io.ComfyNode):
    """VIDEO, or IMAGE and AUDIO, of one person -> MODEL, VAE, AUDIO_ENCODER of that person."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkPersonalize",
            display_name="LetsTalk Personalize",
            folded=frozenset({"existing"}),
            category="LetsTalk",
            description="Trains the bundled model further on a few minutes of a person, who must have agreed, and"
            " keeps the result in models/letstalk. Cancelled, it goes on when queued again.",
            search_aliases=["train", "fine-tune", "presenter", "digital twin", "own model"],
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "name",
                    default="my presenter",
                    tooltip="Folder in models/letstalk that the model is kept in; also named in the metadata.",
                ),
                io.Boolean.Input(
                    "consent",
                    default=False,
                    tooltip="The person in the video has agreed to this. Nothing is trained without.",
                ),
                widget(
                    "minutes",
                    "Minutes of training; a CPU wants an hour or more, a GPU much less. Preparing comes on top.",
                ),
                io.Boolean.Input(
                    "lora",
                    default=False,
                    tooltip="Train a LoRA of a few MB (lora.safetensors in the folder) and the decoder alone: less"
                    " like the person, but it can be put on top of the bundled model.",
                ),
                io.Combo.Input(
                    "existing",
                    options=EXISTING,
                    default=EXISTING[0],
                    optional=True,
                    tooltip="If there is a model of this name already: use it as it is, or train anew.",
                ),
                io.Video.Input(
                    "video", optional=True, tooltip="One person who speaks, three minutes or more, with its sound."
                ),
                io.Image.Input("images", optional=True, tooltip="Instead of video: its frames. Wire audio too."),
                io.Audio.Input("audio", optional=True, tooltip="The sound that was recorded with images."),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    optional=True,
                    tooltip="Frames per second of images. A video has its own.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="As from LetsTalk Load DiT."),
                io.Vae.Output(display_name="vae", tooltip="As from LetsTalk Load Autoencoder."),
                io.AudioEncoder.Output(display_name="audio_encoder"),
                io.Image.Output(display_name="portrait", tooltip="A calm frame of the person, to animate."),
                io.String.Output(display_name="folder", tooltip="Where the files are."),
                io.String.Output(display_name="report", tooltip="Lips, sharpness and identity, before and after."),
            ],
        )

    @classmethod
    def execute(
        cls,
        name: str,
        consent: bool,
        minutes: float,
        lora: bool,
        existing: str = EXISTING[0],
        video: Any = None,
        images: Any = None,
        audio: Any = None,
        fps: float = 25.0,
    ) -> io.NodeOutput:
        folder = model_folder(name)
        file = folder / "report" / "report.md"
        if existing == EXISTING[0] and (folder / "portrait.png").is_file() and not (folder / "work").exists():
            report = file.read_text(encoding="utf-8") if file.is_file() else ""
        else:
            if not consent:
                raise ConfigError("consent: is off; switch it on if the person in the video has agreed")
            with source_video(folder, video, images, audio, fps) as source:
                report = personalize(source, folder, minutes, lora, say_on_node)
        return io.NodeOutput(
            load_dit(folder / "dit.safetensors"),
            load_vae(folder / "autoencoder.safetensors"),
            load_audio_encoder(folder / "audio_encoder.safetensors"),
            load_picture_file(folder / "portrait.png"),
            str(folder),
            report,
        )
