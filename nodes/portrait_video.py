"""The short way: a picture and a recording in, a talking video out."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .adapters.clip_run import model_name
from .adapters.folders import list_bundles, resolve_bundle
from .adapters.images import AUTO, FACE_CHOICES
from .adapters.inputs import file_checks
from .adapters.portrait_video import FPS, RESULTS, animate, load_bundle
from .adapters.provenance import plain_values
from .adapters.schema import BoundingBox, make_schema
from .adapters.widgets import puppet, references, timing, widget
from .adapters.wiring import is_wired

FOLDED = frozenset({"steps", "audio_scale", "face", "margin", "crf", "unfinished", "puppet"})
IMAGES_OUTPUT = 1


class LetsTalkPortraitVideo(io.ComfyNode):
    """IMAGE and AUDIO -> VIDEO: finds the face, animates it, and puts it back into the picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkPortraitVideo",
            display_name="Talking Portrait",
            category="LetsTalk",
            description="Makes the person in a picture speak a recording of any length: finds the face, animates"
            " it and puts it back into the picture. Connect Load Image, Load Audio and Save Video.",
            search_aliases=[
                *("talking", "lip sync", "talking head", "audio to video", "portrait", "avatar", "lipsync"),
                *("speech to video", "portrait animation", "talking photo"),
            ],
            folded=FOLDED,
            inputs=[
                io.Image.Input("image", tooltip="A picture with a face, of any size; of several, a good one."),
                io.Audio.Input(
                    "audio", tooltip="The speech that drives the face, of any length. The video plays it."
                ),
                io.Combo.Input(
                    "model",
                    options=list_bundles(),
                    tooltip="The bundled models, or a folder in models/letstalk with dit, autoencoder and"
                    " audio_encoder.safetensors.",
                ),
                widget("seed", "Noise seed. Another seed changes the motion, not the person."),
                widget("movement", "How much head, brows and gaze move: 0 holds the head still, 1 is usual."),
                widget("max_seconds", "Length of the video, for a quick test. 0: all of the audio."),
                io.Combo.Input(
                    "result",
                    options=list(RESULTS),
                    default=RESULTS[0],
                    tooltip="whole picture: the face moves in its picture. face only: the crop that is animated.",
                ),
                widget("steps", "Sampling steps for each clip. 0: the model's own number.", optional=True),
                widget(
                    "audio_scale",
                    "Audio guidance scale. 0: the model's own, 1: none; more exaggerates the lips and"
                    " doubles the time.",
                    optional=True,
                ),
                io.Combo.Input(
                    "face",
                    options=FACE_CHOICES,
                    default=AUTO,
                    optional=True,
                    tooltip="Where the face is. auto: the mask or bbox if wired, else it is found; portraits"
                    " and pictures without a face stay whole.",
                ),
                widget(
                    "margin",
                    "Room around the face that is animated with it, in parts of the size of the face.",
                    optional=True,
                ),
                widget(
                    "crf", "H.264 quality (x264): 18 looks lossless, 23 is smaller, 51 is worst.", optional=True
                ),
                widget(
                    "unfinished",
                    "After a cancelled run of the same settings and seed: continue after its clips, or"
                    " start anew.",
                    optional=True,
                ),
                io.Audio.Input(
                    "sound",
                    optional=True,
                    tooltip="What the video plays instead of audio, e.g. the mix with music when audio is the"
                    " separated vocals.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="Marks the face to animate: all above 0.5."),
                BoundingBox.Input(
                    "bbox", optional=True, tooltip="Face box (x, y, width, height) in pixels, of a detection pack."
                ),
                references(),
                puppet(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="H.264 with AAC, a file in ComfyUI's temp folder."),
                io.Image.Output(display_name="images", tooltip="All frames. Costs memory only where it is wired."),
                io.Image.Output(display_name="last_frame"),
                *timing(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.dynprompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    validate_inputs, fingerprint_inputs = file_checks(
        "model", lambda name: resolve_bundle(name) / "dit.safetensors"
    )

    @classmethod
    def execute(cls, image: Any, audio: Any, model: str, seed: int, **inputs: Any) -> io.NodeOutput:
        hidden = cls.hidden
        bundle = load_bundle(model)
        numbers = plain_values(inputs)
        run, video = animate(
            bundle,
            image,
            audio,
            seed=seed,
            node_id=hidden.unique_id,
            every_frame=is_wired(hidden.dynprompt, hidden.unique_id, IMAGES_OUTPUT),
            settings={"seed": seed, **numbers, "model": model_name(bundle.model)},
            prompt=hidden.prompt,
            extra=hidden.extra_pnginfo,
            **inputs,
        )
        saved = ui.SavedResult(video.path.name, "", io.FolderType.temp)
        shown = {**ui.PreviewVideo([saved]).as_dict(), "letstalk": [run.summary]}
        return io.NodeOutput(video.video, video.images, video.last, FPS, run.frames, ui=shown)
