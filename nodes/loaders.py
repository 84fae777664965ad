"""Loading models, a portrait and a recording; the bundled demo of each is always in the list."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from .adapters.audio import load_audio_encoder
from .adapters.folders import list_inputs, list_models, resolve_input, resolve_model
from .adapters.inputs import file_checks, load_audio, load_image
from .adapters.model import WEIGHT_DTYPES, load_dit
from .adapters.schema import make_schema
from .adapters.vae import load_vae

CATEGORY = "LetsTalk/loaders"
# No `upload=` below: frontend 1.27 cannot make a node with audio_upload that is not its own; js/loader.js uploads.


class LetsTalkLoadAutoencoder(io.ComfyNode):
    """File -> VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkLoadAutoencoder",
            display_name="LetsTalk Load Autoencoder",
            category=CATEGORY,
            description="Loads a DC-AE as a native VAE: LetsTalk's own file or a public one (diffusers or original"
            " format).",
            search_aliases=["dc-ae", "vae loader"],
            inputs=[
                io.Combo.Input(
                    "autoencoder",
                    options=list_models("autoencoder"),
                    tooltip="File in models/letstalk or models/vae. It must be the one that the DiT was made for.",
                )
            ],
            outputs=[io.Vae.Output(display_name="vae")],
        )

    validate_inputs, fingerprint_inputs = file_checks("autoencoder", partial(resolve_model, "autoencoder"))

    @classmethod
    def execute(cls, autoencoder: str) -> io.NodeOutput:
        return io.NodeOutput(load_vae(resolve_model("autoencoder", autoencoder)))


class LetsTalkLoadDiT(io.ComfyNode):
    """File -> MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkLoadDiT",
            display_name="LetsTalk Load DiT",
            category=CATEGORY,
            description="Loads the video diffusion transformer with its audio projection as a native MODEL: LoRA"
            " loaders, samplers and torch.compile nodes of ComfyUI work with it.",
            search_aliases=["diffusion model loader"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=list_models("dit"),
                    tooltip="File in models/letstalk or models/diffusion_models.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="How weights are kept. default: ComfyUI chooses for your device. fp8 halves the memory"
                    " of 16-bit weights and costs a little quality; computing stays in 16 or 32 bits.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    validate_inputs, fingerprint_inputs = file_checks("model", partial(resolve_model, "dit"))

    @classmethod
    def execute(cls, model: str, weight_dtype: str) -> io.NodeOutput:
        return io.NodeOutput(load_dit(resolve_model("dit", model), weight_dtype))


class LetsTalkLoadAudioEncoder(io.ComfyNode):
    """File -> AUDIO_ENCODER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkLoadAudioEncoder",
            display_name="LetsTalk Load Audio Encoder",
            category=CATEGORY,
            description="Loads a wav2vec2 that gives one state per video frame, for speech of any length. The"
            " native AudioEncoderEncode accepts it too.",
            search_aliases=["wav2vec2"],
            inputs=[
                io.Combo.Input(
                    "audio_encoder",
                    options=list_models("audio_encoder"),
                    tooltip="File in models/letstalk or models/audio_encoders: LetsTalk's own, or a public"
                    " wav2vec2 safetensors. It must be the one that the DiT was trained with.",
                )
            ],
            outputs=[io.AudioEncoder.Output(display_name="audio_encoder")],
        )

    validate_inputs, fingerprint_inputs = file_checks(
        "audio_encoder", partial(resolve_model, "audio_encoder"), "config.json"
    )

    @classmethod
    def execute(cls, audio_encoder: str) -> io.NodeOutput:
        return io.NodeOutput(load_audio_encoder(resolve_model("audio_encoder", audio_encoder)))


class LetsTalkLoadPortrait(io.ComfyNode):
    """Bundled or uploaded picture -> IMAGE, MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkLoadPortrait",
            display_name="LetsTalk Load Portrait",
            category=CATEGORY,
            description="A bundled portrait or a picture from ComfyUI's input folder. Drop a picture on the node"
            " to upload it. Rotation and colour profile are applied; transparent parts keep their colours.",
            search_aliases=["load image", "face"],
            inputs=[
                io.Combo.Input(
                    "image",
                    options=list_inputs("portrait"),
                    tooltip="Bundled portraits (like photographs, or drawn; of people who do not exist), or a"
                    " picture from the input folder; `name [output]` is one from the output folder.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.Mask.Output(
                    display_name="mask", tooltip="1 where the picture is transparent; empty if it is nowhere."
                ),
            ],
        )

    validate_inputs, fingerprint_inputs = file_checks("image", partial(resolve_input, "portrait"))

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        return io.NodeOutput(*load_image(image))


class LetsTalkLoadSpeech(io.ComfyNode):
    """Bundled or uploaded recording -> AUDIO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="LetsTalkLoadSpeech",
            display_name="LetsTalk Load Speech",
            category=CATEGORY,
            description="A bundled recording, or sound from ComfyUI's input folder (of a video file, too). Drop a"
            " file on the node to upload it.",
            search_aliases=["load audio", "voice"],
            inputs=[
                io.Combo.Input(
                    "audio",
                    options=list_inputs("speech"),
                    tooltip="Bundled speech, or a sound or video file from the input folder; `name [output]` is"
                    " one from the output folder. It keeps its rate, and is at most stereo.",
                )
            ],
            outputs=[io.Audio.Output(display_name="audio")],
        )

    validate_inputs, fingerprint_inputs = file_checks("audio", partial(resolve_input, "speech"))

    @classmethod
    def execute(cls, audio: str) -> io.NodeOutput:
        return io.NodeOutput(load_audio(audio))
