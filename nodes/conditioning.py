"""Portrait and speech as conditions of the model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..letstalk_core.errors import ConfigError
from .adapters.audio import encode_audio, reuse_output, sound_of
from .adapters.conditioning import encode_portrait, make_conditioning
from .adapters.schema import Motion, make_schema
from .adapters.widgets import widget

CATEGORY = "LetsTalk/conditioning"


class LetsTalkEncodeAudio(io.ComfyNode):
    """AUDIO -> AUDIO_ENCODER_OUTPUT timed to video frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkEncodeAudio",
            display_name="LetsTalk Encode Audio",
            category=CATEGORY,
            description="What is said in every video frame. Wire an audio encoder (LetsTalk's or ComfyUI's"
            " wav2vec2), or the output of the native Audio Encoder Encode for the same audio.",
            search_aliases=["wav2vec2", "speech features"],
            folded=frozenset({"silence_threshold", "normalize", "as_authors"}),
            inputs=[
                io.Audio.Input(
                    "audio",
                    tooltip="The speech that drives the face; the video plays it too. Of a song, wire separated"
                    " vocals here and the mix to audio of Talking Video.",
                ),
                io.AudioEncoder.Input(
                    "audio_encoder",
                    optional=True,
                    tooltip="LetsTalk Load Audio Encoder (speech of any length), or ComfyUI's AudioEncoderLoader"
                    " with a wav2vec2. It must be the one that the model was trained with.",
                ),
                io.AudioEncoderOutput.Input(
                    "encoder_output",
                    optional=True,
                    tooltip="Instead of audio_encoder: what AudioEncoderEncode made of the same, whole audio."
                    " silence_threshold does nothing then.",
                ),
                widget("fps", "Video frames per second. Models are trained at 25; other rates are less exact."),
                widget(
                    "silence_threshold",
                    "dB of full scale. The encoder hears silence where the sound is quieter, so that"
                    " noise in pauses moves no mouth. -100: off. The video keeps its sound.",
                ),
                widget("start_seconds", "Seconds of the audio to skip: the video starts there."),
                widget(
                    "length_seconds", "Seconds of audio to use, and so the length of the video. 0: to the end."
                ),
                io.Boolean.Input(
                    "normalize",
                    default=True,
                    optional=True,
                    tooltip="The encoder hears the speech at -23 LUFS; what plays stays as it is. Off: as"
                    " recorded, as in the paper. Not used with encoder_output.",
                ),
                io.Boolean.Input(
                    "as_authors",
                    default=False,
                    optional=True,
                    tooltip="For converted checkpoints of the paper's authors: as recorded, every started frame"
                    " counts, and zeros fill the last 16 frames. silence_threshold and normalize do nothing then.",
                ),
            ],
            outputs=[
                io.AudioEncoderOutput.Output(display_name="audio"),
                io.Int.Output(display_name="frames"),
                io.Audio.Output(
                    display_name="sound",
                    tooltip="The sound of these frames, for Create Video: it begins at start_seconds.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, audio: Any, audio_encoder: Any = None, encoder_output: Any = None, **inputs: Any
    ) -> io.NodeOutput:
        if (audio_encoder is None) == (encoder_output is None):
            raise ConfigError("audio_encoder, encoder_output: connect one of them, and not both")
        if encoder_output is None:
            output, frames = encode_audio(audio, audio_encoder, **{"normalize": True, **inputs})
        elif inputs.get("as_authors"):
            raise ConfigError("as_authors: needs audio_encoder; connect that instead of encoder_output")
        else:
            cut = {name: inputs[name] for name in ("fps", "start_seconds", "length_seconds")}
            output, frames = reuse_output(encoder_output, audio, **cut)
        return io.NodeOutput(output, frames, sound_of(output))


class LetsTalkEncodePortrait(io.ComfyNode):
    """IMAGE -> the portrait's LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkEncodePortrait",
            display_name="LetsTalk Encode Portrait",
            category=CATEGORY,
            description="The middle of a picture, scaled to the size of the video and encoded. Use LetsTalk Crop"
            " Portrait first for pictures in which the face is small.",
            search_aliases=["vae encode", "reference image"],
            folded=frozenset({"frame", "as_authors"}),
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="A picture of a face, or frames of a video; of another shape, the middle is used.",
                ),
                io.Vae.Input("vae", tooltip="LetsTalk Load Autoencoder: the one that the model was trained with."),
                widget("width", "Width of the video in pixels (demo model: 256)."),
                widget("height", "Height of the video in pixels (demo model: 256)."),
                widget(
                    "frame",
                    "Which picture of several to use, counted from 1. 0: the first with a good face.",
                    optional=True,
                ),
                io.Boolean.Input(
                    "as_authors",
                    default=False,
                    optional=True,
                    tooltip="Scaled bilinearly, as the paper's authors do: for their converted checkpoints.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="portrait")],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        return io.NodeOutput(encode_portrait(**inputs))


class LetsTalkConditioning(io.ComfyNode):
    """Portrait and speech -> CONDITIONING, positive and negative, and an empty LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkConditioning",
            display_name="LetsTalk Conditioning",
            category=CATEGORY,
            description="Joins portrait and speech for samplers. Native samplers make one clip of clip_frames with"
            " positive, negative and latent; LetsTalk's samplers need positive only and make the whole video.",
            search_aliases=["audio conditioning"],
            inputs=[
                io.Latent.Input("portrait", tooltip="From LetsTalk Encode Portrait."),
                io.AudioEncoderOutput.Input("audio", tooltip="From LetsTalk Encode Audio."),
                widget(
                    "first_frame", "Frame of the speech at which the video starts (25 are one second at 25 fps)."
                ),
                widget(
                    "clip_frames",
                    "Frames of the empty latent for native samplers: what the model was trained on, 16.",
                ),
                widget(
                    "movement",
                    "How much head, brows and gaze move: 0 holds the head still, 1 is usual. Eyes blink at"
                    " any value. For models conditioned on motion, such as the demo; others move as they learned.",
                    optional=True,
                ),
                Motion.Input(
                    "motion",
                    optional=True,
                    tooltip="From LetsTalk Motion Curves: how head and eyes move, instead of at random.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(
                    display_name="negative", tooltip="The same without speech, for samplers with one cfg."
                ),
                io.Latent.Output(display_name="latent"),
                io.Int.Output(display_name="frames", tooltip="Frames of the speech from first_frame on."),
            ],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        return io.NodeOutput(*make_conditioning(**inputs))
