"""A filmed person says another recording."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..letstalk_core.generate.dub import LENGTHS
from .adapters.dub import FPS, dub_video
from .adapters.folders import list_bundles, resolve_bundle
from .adapters.inputs import file_checks
from .adapters.schema import make_schema
from .adapters.widgets import timing, widget


class LetsTalkDub(io.ComfyNode):
    """VIDEO or IMAGE, and AUDIO -> VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkDub",
            display_name="LetsTalk Dub",
            category="LetsTalk",
            description="Other words for a filmed person: the mouth speaks the audio, while head, eyes and all"
            " else stay as filmed, in the video's own size. Ask the person first.",
            search_aliases=["dubbing", "video to video", "redub", "translate video", "visual dubbing"],
            folded=frozenset({"fps", "steps", "audio_scale", "unfinished"}),
            inputs=[
                io.Audio.Input("audio", tooltip="The new speech. The result plays it."),
                io.Combo.Input(
                    "model",
                    options=list_bundles(),
                    tooltip="The bundled models, or a folder in models/letstalk with dit, autoencoder and"
                    " audio_encoder.safetensors.",
                ),
                widget("seed", "Noise seed."),
                io.Combo.Input(
                    "length",
                    options=list(LENGTHS),
                    default=LENGTHS[0],
                    tooltip="Where audio and video are not equally long: cut the longer one, loop the video back"
                    " and forth under all of the audio, or stop with an error.",
                ),
                io.Video.Input(
                    "video", optional=True, tooltip="The film of a person, seen from the front. Or wire images."
                ),
                io.Image.Input("images", optional=True, tooltip="Instead of video: its frames."),
                widget(
                    "fps", "Frames per second of images. A video has its own; the result has 25.", optional=True
                ),
                widget("steps", "Sampling steps for each clip. 0: the model's own number.", optional=True),
                widget("audio_scale", "Audio guidance scale. 0: the model's own, 1: none.", optional=True),
                widget(
                    "unfinished",
                    "After a cancelled run of the same settings and seed: continue after its clips, or start"
                    " anew.",
                    optional=True,
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="H.264 with AAC, a file in ComfyUI's temp folder."),
                *timing(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    validate_inputs, fingerprint_inputs = file_checks(
        "model", lambda name: resolve_bundle(name) / "dit.safetensors"
    )

    @classmethod
    def execute(cls, audio: Any, model: str, seed: int, length: str, **inputs: Any) -> io.NodeOutput:
        hidden = cls.hidden
        numbers = {k: v for k, v in inputs.items() if isinstance(v, (int, float, str, list))}
        video, path, frames = dub_video(
            audio=audio,
            model=model,
            seed=seed,
            length=length,
            node_id=hidden.unique_id,
            settings={"seed": seed, "length": length, "model": model, **numbers},
            prompt=hidden.prompt,
            extra=hidden.extra_pnginfo,
            **inputs,
        )
        saved = ui.SavedResult(path.name, "", io.FolderType.temp)
        return io.NodeOutput(video, FPS, frames, ui=ui.PreviewVideo([saved]))
