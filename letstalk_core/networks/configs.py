"""Shapes of the networks: frozen, JSON-safe, checked when made. A config alone is enough to rebuild a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..errors import ConfigError
from .config import Config as Config  # research takes it from here
from .motion_channels import units

FUSIONS = ("direct", "siamese", "symbiotic")
PREDICTIONS = ("epsilon", "v", "flow")
BLOCKS = ("ResBlock", "EfficientViTBlock")

STAGES, LAYERS = 12, 512  # at most
Width = Annotated[int, "> 0", "<= 65536"]
Layers = Annotated[int, "> 0", "<= 512"]
Side = Annotated[int, "> 0", "<= 1024"]
Frames = Annotated[int, ">= 0", "<= 4096"]
Positive = Annotated[float, "> 0", "< inf"]


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(Config):
    """Shape of a DC-AE (docs/model.md, Autoencoder). Field names follow the public diffusers config.json files.

    Stage i works at 1/2**i of the image size. A first stage with 0 layers makes the stem itself a down block (and
    the last layer an up block), so the first width is then unused; a later stage of 0 layers only changes size.
    `encoder_qkv_multiscales[i]` lists the kernel sizes of the aggregated qkv copies in the attention blocks of
    stage i.
    """

    kind: ClassVar[str] = "autoencoder"

    latent_channels: Width
    encoder_block_types: tuple[Annotated[str, BLOCKS], ...]
    decoder_block_types: tuple[Annotated[str, BLOCKS], ...]
    encoder_block_out_channels: tuple[Width, ...]
    decoder_block_out_channels: tuple[Width, ...]
    encoder_layers_per_block: tuple[Annotated[int, ">= 0"], ...]
    decoder_layers_per_block: tuple[Annotated[int, ">= 0"], ...]
    encoder_qkv_multiscales: tuple[tuple[Side, ...], ...]
    decoder_qkv_multiscales: tuple[tuple[Side, ...], ...]
    downsample_block_type: Annotated[str, ("conv", "pixel_unshuffle")] = "pixel_unshuffle"
    upsample_block_type: Annotated[str, ("interpolate", "pixel_shuffle")] = "pixel_shuffle"
    decoder_norm_types: tuple[Annotated[str, ("rms_norm", "batch_norm")], ...]  # per stage
    decoder_act_fns: tuple[Annotated[str, ("silu", "relu")], ...]  # per stage
    decoder_conv_act_fn: Annotated[str, ("silu", "relu")] = "relu"  # before the last layer
    encoder_out_shortcut: bool = True
    decoder_in_shortcut: bool = True
    attention_head_dim: Width = 32
    in_channels: Width = 3
    scaling_factor: Positive = 1.0  # latents * scaling_factor is what the denoiser sees
    image_size: Width = 512  # trained image size, pixels
    latent_rgb_factors: tuple[tuple[float, float, float], ...] = ()  # fitted per channel, for previews
    latent_rgb_bias: tuple[float, ...] = ()

    def validate(self) -> None:
        stages = len(self.encoder_block_out_channels)
        self.require(2 <= stages <= STAGES, f"it has {stages} stages, 2 to {STAGES} are possible")
        for name, value in vars(self).items():
            fits = (
                not name.startswith(("encoder_", "decoder_"))
                or not isinstance(value, tuple)
                or len(value) == stages
            )
            self.require(fits, f"{name}={value} is not one for each of {stages} stages")
        for side, shortcut in (("encoder", self.encoder_out_shortcut), ("decoder", self.decoder_in_shortcut)):
            layers, kernels, widths, blocks = (
                getattr(self, f"{side}_{name}")
                for name in ("layers_per_block", "qkv_multiscales", "block_out_channels", "block_types")
            )
            self.require(sum(layers) <= LAYERS, f"{side}_layers_per_block={layers} are more than {LAYERS} in all")
            odd = all(k % 2 for stage in kernels for k in stage)
            self.require(odd, f"{side}_qkv_multiscales={kernels} must be odd kernel sizes")
            for width, block in zip(widths, blocks, strict=True):
                self.require(
                    block == "ResBlock" or width % self.attention_head_dim == 0,
                    f"attention width {width} is not a multiple of attention_head_dim={self.attention_head_dim}",
                )
            self.require(
                not shortcut or widths[-1] % self.latent_channels == 0,
                f"last {side} width {widths[-1]} is not a multiple of latent_channels={self.latent_channels}",
            )
        self.require(
            len(self.latent_rgb_factors) in (0, self.latent_channels) and len(self.latent_rgb_bias) in (0, 3),
            f"latent_rgb_factors needs {self.latent_channels} rows and latent_rgb_bias 3 numbers",
        )

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent position along each side."""
        return int(2 ** (len(self.encoder_block_out_channels) - 1))


@dataclass(frozen=True, kw_only=True)
class AudioEncoderConfig(Config):
    """Shape of a wav2vec2 encoder; field names are those of `transformers.Wav2Vec2Config`."""

    kind: ClassVar[str] = "audio_encoder"

    hidden_size: Width = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Width = 12
    intermediate_size: Width = 3072
    conv_dim: tuple[Width, ...] = (512, 512, 512, 512, 512, 512, 512)
    conv_kernel: tuple[Side, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[Side, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_extract_norm: Annotated[str, ("group", "layer")] = "group"  # group (base) or layer (large)
    do_stable_layer_norm: bool = False
    num_conv_pos_embeddings: Width = 128
    num_conv_pos_embedding_groups: Width = 16
    layer_norm_eps: Positive = 1e-5

    def validate(self) -> None:
        self.require_multiple("hidden_size", "num_attention_heads")
        self.require_multiple("hidden_size", "num_conv_pos_embedding_groups")
        layers = len(self.conv_dim)
        self.require(1 <= layers <= STAGES, f"it has {layers} convolutions, 1 to {STAGES} are possible")
        same = layers == len(self.conv_kernel) == len(self.conv_stride)
        self.require(same, "conv_dim, conv_kernel and conv_stride differ in length")


@dataclass(frozen=True, kw_only=True)
class AudioProjectionConfig(Config):
    """Shape of the projection from a window of encoder states to a frame's audio tokens (docs/model.md, Audio)."""

    kind: ClassVar[str] = "audio_projection"

    window: Layers = 5  # frames around each frame, odd
    layers: Layers = 12  # encoder layers read
    encoder_dim: Width = 768
    hidden_size: Width = 512
    tokens: Width = 32  # tokens per frame
    token_dim: Width = 768
    movement: tuple[str, ...] = ()  # of `motion_channels.MOVEMENTS`, what it is told; none: it makes them up
    movement_tokens: Width = 2  # tokens per frame that tell it

    def validate(self) -> None:
        units(self.movement)
        self.require(self.window % 2 == 1, f"window={self.window} must be odd")


@dataclass(frozen=True, kw_only=True)
class CarryConfig(Config):
    """Shape of the masks that carry a portrait's detail to decoded frames (docs/model.md, Carry)."""

    kind: ClassVar[str] = "carry"

    hidden_size: Width = 24
    # pixels of the shorter side at which flow and masks are found
    working_size: Annotated[int, ">= 32", "<= 1024", "a multiple of 8"] = 128
    # 3x3 convolutions that correct the flow and find the masks: each sees twice as far as the one before
    correction_layers: Annotated[int, ">= 0", "<= 6"] = 3
    mask_layers: Annotated[int, ">= 0", "<= 6"] = 2


@dataclass(frozen=True, kw_only=True)
class LipsConfig(Config):
    """Shape of the network that reads lips from the audio encoder's states (docs/model.md, Lips)."""

    kind: ClassVar[str] = "lips"

    layers: Layers = 3
    encoder_dim: Width = 128
    hidden_size: Width = 96
    tells_shut: bool = False  # one output more: whether lips meet


@dataclass(frozen=True, kw_only=True)
class DiTConfig(Config):
    """Shape of the video diffusion transformer (docs/model.md, Denoiser) and of the clips it was trained on."""

    kind: ClassVar[str] = "dit"

    hidden_size: Annotated[Width, "a multiple of 4"]  # the position tables need it
    depth: Layers
    num_heads: Width  # temporal and audio attention
    in_channels: Width = 32
    learned_variance: bool = False
    patch_size: Side = 1
    linear_head_dim: Width = 32  # spatial linear attention
    mlp_ratio: Annotated[float, "> 0", "<= 65536"] = 4.0
    audio_token_dim: Width = 768
    portrait_fusion: Annotated[str, FUSIONS] = "symbiotic"
    audio_fusion: Annotated[str, FUSIONS] = "direct"
    spatial_attention: Annotated[str, ("linear", "softmax")] = "linear"  # softmax for comparison
    grid_size: tuple[Side, Side] = (16, 16)  # trained latent grid, rows and columns of patches
    clip_frames: Annotated[Frames, "> 0"] = 16
    memory_frames: Frames = 2  # most recent latent frames read from the memory bank
    anchor_frames: Frames = 0  # anchor frames read before them
    prediction: Annotated[str, PREDICTIONS] = "flow"
    # what the network puts out; sample: clean latents
    output: Annotated[str, ("prediction", "sample")] = "prediction"
    portrait_residual: bool = False  # noise and denoise the difference to the portrait, not the clip itself
    residual_scale: Positive = 1.0  # standard deviation of that difference over the training latents
    fps: Annotated[float, "> 0", "<= 1000"] = 25.0
    memory_noise: float = 0.0  # default sigma of the noise on memory at inference, in latent units
    audio_guidance: Positive = 1.0  # default scale of the audio guidance at inference; 1 is none
    steps: Annotated[int, ">= 0", "<= 1000"] = 0  # default number of sampling steps; 0: usual for its prediction
    shift: Positive = 1.0  # of a flow model's default schedule; above 1 it spends more steps at high noise

    def validate(self) -> None:
        self.require_multiple("hidden_size", "num_heads")
        self.require_multiple("hidden_size", "linear_head_dim")
        goes = self.output == "prediction" or self.prediction == "flow"
        self.require(goes, f"output={self.output!r} must be prediction, or sample with prediction='flow'")
        self.require(
            not (self.learned_variance and self.portrait_residual),
            "learned_variance does not go with portrait_residual; switch one off",
        )
        self.require(
            not self.learned_variance or self.prediction == "epsilon",
            f"learned_variance needs prediction='epsilon', not {self.prediction!r}",
        )

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learned_variance else 1)

    @property
    def bank_frames(self) -> int:
        """Frames the memory bank hands to the model: anchors, then the most recent ones."""
        return self.anchor_frames + self.memory_frames


@dataclass(frozen=True, kw_only=True)
class FacesConfig(Config):
    """Shape of the networks that find faces and their points (`face_landmarks`)."""

    kind: ClassVar[str] = "faces"

    # at 1/2, 1/4, ... 1/32 of the picture
    detector_widths: tuple[Width, Width, Width, Width, Width] = (16, 24, 40, 56, 80)
    mesh_side: Annotated[Side, "a multiple of 32"] = 128  # pixels of an upright face, cut out
    mesh_widths: tuple[Width, Width, Width, Width, Width] = (16, 32, 48, 80, 96)
    code: Width = 80  # numbers that the basis of shapes turns into points
    # Of the qualities of a face, above which its eyes are covered, its mouth is, its eyes are closed; and the
    # height of eyes by their width, up to which they may be.
    limits: tuple[Positive, Positive, Positive, Positive] = (0.6, 0.6, 0.6, 0.16)


_KINDS: dict[str, type[Config]] = {c.kind: c for c in Config.__subclasses__()}


def config_class(kind: str) -> type[Config]:
    """The config class of a checkpoint kind. Raises: ConfigError for an unknown kind."""
    if kind not in _KINDS:
        raise ConfigError(f"unknown kind of model {kind!r}; known are {sorted(_KINDS)}")
    return _KINDS[kind]
