"""The long-video samplers: clips of any number, each conditioned on the memory of those before it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..letstalk_core.errors import ConfigError
from .adapters.carry import OFF, SIZES
from .adapters.clip_run import prepare_run
from .adapters.guider import schedule_names
from .adapters.provenance import plain_values
from .adapters.render import IMAGES, Part, render_latents, render_video
from .adapters.schema import Memory, MemorySettingsType, make_schema
from .adapters.video_input import lazy_frames
from .adapters.widgets import puppet, references, timing, widget
from .adapters.wiring import is_wired

CATEGORY = "LetsTalk/sampling"
DRIFT = "Plot of how much each clip is like the portrait, 0 to 1: identity, colour, sharpness."
FOLDED = frozenset(
    {"schedule", "crf", "work_folder", "unfinished", "retake_from", "retake_to", "retake_seed", "detail", "puppet"}
)
RENDERING = ("crf", "audio", "work_folder", "unfinished", "detail", "references", "puppet")  # not of the run
IMAGES_OUTPUT = 1  # of Talking Video


def _inputs() -> list[Any]:
    """What both samplers take, `guider` before the numbers that it replaces."""
    return [
        io.Model.Input(
            "model",
            optional=True,
            tooltip="Model of LetsTalk Load DiT, with LoRA or patches if you like. Needs positive; not used when a"
            " guider is connected.",
        ),
        io.Conditioning.Input(
            "positive",
            optional=True,
            tooltip="Portrait and speech from LetsTalk Conditioning. Null conditions for guidance are derived from"
            " it. Not used when a guider is connected.",
        ),
        io.Guider.Input(
            "guider",
            optional=True,
            tooltip="Replaces model, positive and both scales: LetsTalk Guider, or ComfyUI's CFGGuider or"
            " DualCFGGuider over LetsTalk conditionings.",
        ),
        widget(
            "seed",
            "Start of all noise. Same graph, seed and device give the same video; another seed changes"
            " motion, not the person. Every clip has noise of its own.",
        ),
        widget(
            "steps",
            "Steps for each clip; time grows with them. 0: the model's own number, usually 12 for flow"
            " models and 30 for others. Not used when sigmas are connected.",
        ),
        io.Combo.Input(
            "schedule",
            options=schedule_names(),
            default="model",
            tooltip="Noise schedule. model and karras are those of the standalone program, the others are"
            " ComfyUI's. Not used when sigmas are connected.",
        ),
        widget(
            "audio_scale",
            "How strongly speech drives the face. 0: the model's own way, for the demo 1 with clear lips"
            " trained in. 1 is plain, more exaggerates; values other than 1 cost one more pass per step.",
        ),
        widget(
            "portrait_scale",
            "How strongly the portrait holds: 1 plain, more stiffens the picture. Values other than 1 cost"
            " one more pass per step.",
        ),
        widget(
            "max_frames",
            "Frames to make, for a quick test or a part. 0: to the end of the speech. To go on with"
            " another sampler, use a multiple of the model's clip length and set first_frame there.",
        ),
        io.Sampler.Input(  # type: ignore[attr-defined] # a sampler of the same name hides it from mypy
            "sampler",
            optional=True,
            tooltip="Any of ComfyUI's samplers; those that add noise get a seed per clip. Without it euler for"
            " flow models and dpmpp_2m for others, which sample models of learned variance by their mean.",
        ),
        io.Sigmas.Input(
            "sigmas", optional=True, tooltip="Noise levels of every clip; replaces steps and schedule."
        ),
        io.Noise.Input(
            "noise",
            optional=True,
            tooltip="Replaces the noise and the seed; later clips use the same kind of noise with derived seeds.",
        ),
        MemorySettingsType.Input(
            "memory_settings", optional=True, tooltip="How clips remember; without it the model's own way."
        ),
        Memory.Input(
            "memory",
            optional=True,
            tooltip="Memory of an earlier sampler or file: goes on with that video instead of starting from the"
            " portrait. Set first_frame in LetsTalk Conditioning to where it ended.",
        ),
    ]


class LetsTalkLongVideoSampler(io.ComfyNode):
    """All clips as latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkLongVideoSampler",
            display_name="LetsTalk Long Video Sampler",
            category=CATEGORY,
            description="Samples a video of any length clip by clip and gives out its latents, for VAE Decode and"
            " other nodes. For long videos use LetsTalk Talking Video: it never holds the frames in memory.",
            folded=FOLDED,
            search_aliases=["long video", "latents"],
            inputs=[
                *_inputs(),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Only for watching: finished clips are decoded and play in the node while the next one"
                    " is made.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="All frames, [1, channels, frames, height, width]."
                ),
                Memory.Output(display_name="memory", tooltip="What the next sampler goes on from."),
                io.Image.Output(display_name="drift", tooltip=DRIFT),
                *timing(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, vae: Any = None, **inputs: Any) -> io.NodeOutput:
        run = prepare_run(**inputs)
        samples = render_latents(run, cls.hidden.unique_id, vae)
        shown = {"letstalk": [run.summary]}
        return io.NodeOutput({"samples": samples}, run.bank, run.drift_image(), run.fps, run.frames, ui=shown)


class LetsTalkTalkingVideo(io.ComfyNode):
    """All clips into a video file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkTalkingVideo",
            display_name="LetsTalk Talking Video",
            category=CATEGORY,
            description="Samples, decodes and encodes a video of any length clip by clip, with its sound. Memory"
            " use does not grow with the length. Connect Save Video to keep the file.",
            folded=FOLDED,
            search_aliases=["long video", "video to file", "resume"],
            inputs=[
                io.Vae.Input("vae", tooltip="Autoencoder that the portrait was encoded with."),
                *_inputs(),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Sound of the video instead of the encoded speech: another version of the whole"
                    " recording, say with music. start_seconds of Encode Audio is skipped in it too: do not wire"
                    " its output sound here.",
                ),
                widget("crf", "H.264 quality (x264): 18 looks lossless, 23 is smaller, 51 is worst."),
                io.String.Input(
                    "work_folder",
                    default="",
                    optional=True,
                    tooltip="Name of a folder in output/letstalk_work that keeps finished clips, also when the"
                    " video is done, for retakes. Other settings than its own are refused. Empty: a folder"
                    " named by the settings, deleted when the video is done.",
                ),
                widget(
                    "unfinished",
                    "What to do with clips that an earlier run of the same settings has finished before it"
                    " was cancelled or killed: continue after them, or delete them and start anew.",
                    optional=True,
                ),
                widget(
                    "retake_from",
                    "Where the retake begins, in seconds of the video, rounded down to a segment of"
                    " about two seconds. Needs retake_to.",
                    optional=True,
                ),
                widget(
                    "retake_to",
                    "Where the retake of the finished video in work_folder ends, in seconds; the rest"
                    " stays as it is. All other settings must be those of that video. 0: no retake.",
                    optional=True,
                ),
                widget(
                    "retake_seed",
                    "Noise of the retake; another number gives another take. seed stays that of the video.",
                    optional=True,
                ),
                io.Combo.Input(
                    "detail",
                    options=[*SIZES, OFF],
                    default=SIZES[0],
                    optional=True,
                    tooltip="Brings the portrait's own skin, hair, clothes and background into the frames, if"
                    " the model has carry.safetensors. Larger sizes take their detail from the picture given"
                    " to Encode Portrait: double size makes 512 of 256 pixels. off: plain frames.",
                ),
                references(),
                puppet(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="H.264 with AAC, a file in ComfyUI's temp folder."),
                io.Image.Output(
                    display_name="images",
                    tooltip="All frames. Costs memory only where it is wired: a minute at 512x512 is 4.4 GiB.",
                ),
                Memory.Output(display_name="memory", tooltip="What the next sampler goes on from."),
                io.Image.Output(display_name="drift", tooltip=DRIFT),
                io.Image.Output(display_name="last_frame"),
                *timing(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.dynprompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, vae: Any, retake_from: float = 0.0, retake_to: float = 0.0, retake_seed: int = 1, **inputs: Any
    ) -> io.NodeOutput:
        if retake_from > 0 and retake_to <= 0:
            raise ConfigError(
                f"retake_from: {retake_from:g} s is set, but retake_to is 0; set retake_to to the second at which"
                " the retake ends, or retake_from to 0"
            )
        rendering = {name: inputs.pop(name) for name in RENDERING if name in inputs}
        run = prepare_run(**inputs)
        everything = is_wired(cls.hidden.dynprompt, cls.hidden.unique_id, IMAGES_OUTPUT)
        part = Part(retake_from, retake_to, retake_seed) if retake_to > 0 else None
        numbers = plain_values(inputs)
        result = render_video(
            run,
            vae,
            node_id=cls.hidden.unique_id,
            images=IMAGES[everything],
            settings={**numbers, "seed": run.seed, "steps": run.steps, "model": run.summary["model"]},
            prompt=cls.hidden.prompt,
            extra=cls.hidden.extra_pnginfo,
            part=part,
            **rendering,
        )
        saved = ui.SavedResult(result.path.name, "", io.FolderType.temp)
        shown = {**ui.PreviewVideo([saved]).as_dict(), "letstalk": [run.summary]}
        last = result.images[-1:].clone()
        size = (last.shape[1], last.shape[2])
        frames = result.images if everything else lazy_frames(result.path, run.frames, size)
        more = (run.bank, run.drift_image(), last, run.fps, run.frames)
        return io.NodeOutput(result.video, frames, *more, ui=shown)
