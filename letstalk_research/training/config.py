"""Training recipes: TOML files read into frozen dataclasses, one table per part, every key checked by name.

A recipe names its stage (`stage = "autoencoder" | "audio" | "dit" | "faces" | "lips"`) and holds the tables
[model], [data], [loop], [optimizer] and [objective]. `--set table.key=value` changes a key on the command line.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any

from letstalk_core.networks import configs as networks
from letstalk_core.networks.configs import Config

Share = Annotated[float, ">= 0", "<= 1"]
Weight = Annotated[float, ">= 0"]
Interval = Annotated[int, ">= 0"]
Count = Annotated[int, "> 0"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Where batches come from."""

    kind = "[data]"

    folder: str = "data"  # holds manifest.jsonl; for the audio stage, the cache of utterances
    batch_size: Count = 8  # per process
    # threads that prepare batches ahead; 0 prepares them between steps
    workers: Annotated[int, ">= 0", "<= 64"] = 1
    reread_every: Count = 100  # steps between looks for clips added to the manifest
    validation_items: Count = 64  # frames (autoencoder), utterances (audio) or clips (dit) of the validation split
    flip: bool = True  # mirror images at random (autoencoder)
    crop_size: Interval = 0  # pixels of the windows that most batches are cut to (autoencoder); 0: whole images
    crop_share: Share = 0.75  # part of the batches that is
    crop_batch: Count = 8  # windows in such a batch


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Config):
    """How long to train and what to write when. Intervals are in steps; 0 switches a thing off.

    The budget is `steps`, `max_minutes` or both. With both, the schedule's position is that of whichever is
    further along, so training ends, fully decayed, when the first of them is used up. Minutes count the time in
    the loop, with validation and samples; a resumed run goes on counting where its checkpoint was.
    """

    kind = "[loop]"

    run: str = "run"  # folder of checkpoints, logs, samples and exported models
    steps: Interval = 0
    max_minutes: Weight = 0.0
    seed: int = 0
    device: Annotated[str, ("auto", "cpu")] = "auto"  # "cpu", or "auto" for the GPU that accelerate finds
    # auto: bf16 where the hardware multiplies it fast, else fp32
    precision: Annotated[str, ("auto", "fp32", "bf16")] = "auto"
    num_threads: Interval = 0  # CPU threads of torch; 0 leaves its default
    gradient_clip: Annotated[float, "> 0"] = 1.0
    clip_after: Interval = 0  # steps before clipping begins
    skip_factor: float = 8.0  # skip steps whose gradient norm exceeds this times the running median; 0: never
    ema_decay: Annotated[float, ">= 0", "< 1"] = 0.999
    init: str = ""  # exported model to start from
    log_every: Interval = 20
    validate_every: Interval = 500
    sample_every: Interval = 500
    export_every: Interval = 500
    checkpoint_every: Interval = 500
    checkpoint_minutes: float = 10.0  # checkpoint at the latest after so many minutes

    def validate(self) -> None:
        self.require(self.steps > 0 or self.max_minutes > 0, "steps and max_minutes are both 0; give one of them")
        usual = self.skip_factor == 0 or self.skip_factor > 1
        self.require(usual, f"skip_factor={self.skip_factor} must be 0 or > 1")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Config):
    """The optimiser and its schedule: linear warm-up, flat, then cosine decay to `final_factor` times the rate."""

    kind = "[optimizer]"

    # Muon for hidden matrices and convolutions, AdamW for the rest
    name: Annotated[str, ("adamw", "muon")] = "adamw"
    lr: Annotated[float, "> 0"] = 1e-4
    muon_lr: Weight = 0.0  # 0: same as lr (updates are scaled to the size of AdamW's)
    betas: tuple[Annotated[Share, "< 1"], Annotated[Share, "< 1"]] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.0
    muon_momentum: float = 0.95
    muon_max_side: int = 0  # larger matrices (smaller side) stay with AdamW, dear in small batches; 0: no limit
    warmup_steps: Interval = 0
    flat: Share = 1.0  # part of the budget before the decay begins; 1: constant rate
    final_factor: float = 0.03
    accumulate: Count = 1  # batches per step


@dataclass(frozen=True, kw_only=True)
class AutoencoderObjective(Config):
    """Weights of the autoencoder's losses; see `training.autoencoder`."""

    kind = "[objective]"

    mouth_weight: Weight = 4.0  # of a pixel in the mouth's box, against 1 elsewhere
    eyes_weight: Weight = 4.0
    region_softness: Weight = 6.0  # width of the boxes' soft edge, pixels
    gradient_weight: Weight = 0.5  # L1 between finite differences: edges
    multiscale_weight: Weight = 0.5  # L1 of the pictures shrunk 4 and 16 times
    latent_weight: Weight = 1e-3  # pulls latents to zero mean and unit variance per channel
    latent_noise: Weight = 0.05  # noise on latents before decoding, in standard deviations
    decoder_only: bool = False  # freeze the encoder; its latents, and so cached ones, stay valid


@dataclass(frozen=True, kw_only=True)
class SpeechObjective(Config):
    """Utterances that are spoken for a stage, and how crops of them are disturbed; see `training.speech`."""

    kind = "[objective]"

    utterances: Annotated[int, "> 1"] = 2000  # spoken and cached before training
    crop_seconds: tuple[Annotated[float, ">= 0.2"], float] = (2.0, 4.0)
    augment: Share = 0.8  # part of the crops that are disturbed
    silent_share: Share = 0.05  # part of the crops that are silent, with and without noise: rest is learnt too
    recordings: tuple[str, ...] = ()  # folders with metadata.csv, see `data.synthetic.recordings`
    engines: tuple[str, ...] = ()  # "flite", "festival": more voices than espeak-ng's
    speech_share: Share = 0.5  # part of the utterances that recordings and engines speak, if there are any

    def validate(self) -> None:
        low, high = self.crop_seconds
        self.require(low <= high, f"crop_seconds={self.crop_seconds} must be shortest <= longest")


@dataclass(frozen=True, kw_only=True)
class AudioObjective(SpeechObjective):
    """Weights of the curves of the audio stage; see `training.audio`."""

    column_weights: tuple[float, ...] = (3.0, 1.5, 1.5, 1.0, 1.0, 0.5)  # jaw wide round teeth voiced energy
    layer_loss: float = 0.2  # weight of the same loss read from every earlier layer

    def validate(self) -> None:
        super().validate()
        self.require(len(self.column_weights) == 6, f"column_weights={self.column_weights} needs 6 numbers")


@dataclass(frozen=True, kw_only=True)
class CarryObjective(Config):
    """Disturbances and weights of the losses of the masks; see `training.carry`."""

    kind = "[objective]"

    autoencoder: str = ""  # model whose frames the masks see
    mouth_weight: Weight = 4.0  # of a pixel in the mouth's box, against 1 elsewhere
    eyes_weight: Weight = 6.0
    region_softness: Weight = 8.0  # width of the boxes' soft edge, pixels
    gradient_weight: Weight = 0.5  # L1 between finite differences: edges
    multiscale_weight: Weight = 0.5  # L1 of the pictures shrunk 4 and 16 times
    steady_weight: Weight = 1.0  # L1 of the change from frame to frame
    flow_weight: Weight = 0.5  # error of the flow where clips tell it, in half pictures
    latent_noise: Weight = 0.3  # most noise on latents, in standard deviations
    noisy_share: Weight = 0.6  # part of the pairs with noise
    better_share: Weight = 0.4  # part of the pairs whose round trips are drawn towards the truth

    def validate(self) -> None:
        self.require(bool(self.autoencoder), "autoencoder is empty; give the model file the masks are for")


@dataclass(frozen=True, kw_only=True)
class DiTObjective(Config):
    """How the denoiser is trained; see `training.diffusion`. Memory noise: docs/model.md, Memory bank."""

    kind = "[objective]"

    autoencoder: str = ""  # model that decodes the sample strips; empty: no strips
    init_from: str = ""  # SANA transformer whose spatial attention and Mix-FFN to start from
    cold_start: Share = 0.15  # part of the samples whose memory is the portrait repeated
    far_portrait: Share = 0.3  # part of the samples whose portrait is a far frame of the clip
    blink_share: Share = 0.0  # part of the samples that come from clips in which the eyes close
    drop_audio: Share = 0.1
    drop_portrait: Share = 0.1
    drop_memory: Share = 0.1
    # trains guidance by sound into the network: g stands for a scale of 1 / (1 - g)
    model_guidance: Annotated[Share, "< 1"] = 0.0
    timestep_mean: float = 0.0  # logit-normal timesteps (flow)
    timestep_std: Annotated[float, "> 0"] = 1.0
    uniform_timesteps: Share = 0.1  # part of the samples whose timestep is uniform instead
    # of a sample output's loss: errors count by 1 / max(sigma, this)^2
    smallest_sigma: Annotated[Share, "> 0"] = 0.05
    memory_ddpm_steps: Annotated[int, ">= 0", "<= 1000"] = 50  # DDPM noise on memory at a step below this; 0: none
    memory_sigma: float = 0.0  # or Gaussian noise of a level drawn from 0..this, in latent units; 0: none
    memory_mask: Share = 0.25  # part of the memory's positions that is zeroed
    memory_mask_probability: Share = 1.0  # part of the samples in which it is
    pixel_noise_copies: bool = False  # use the noisy encoded copies that `letstalk encode --noisy-copies` wrote
    mouth_weight: float = 2.5  # of a latent cell over the mouth
    eyes_weight: float = 2.0
    vlb_weight: float = 0.001  # of the variance term, when the variance is learned
    gradient_checkpointing: bool = False
    # train changes of this rank to the linear layers of `loop.init` alone; 0: all weights
    lora_rank: Interval = 0
    sample_steps: Count = 8
    sample_clips: int = 3  # validation clips in a sample strip


@dataclass(frozen=True, kw_only=True)
class FacesObjective(Config):
    """Pictures and losses of the networks that find faces; see `training.faces`."""

    kind = "[objective]"

    portraits: str = ""  # folder of stills with portraits.csv and landmarks.npz, to make missing heads of
    drawn: Count = 700  # drawn people among them, and turned heads
    turned: Count = 500
    puppets: Count = 3000  # heads of photo puppets, mouths open as far as they go
    backgrounds: str = ""  # folder of pictures without faces; empty: parts of portraits and drawn textures only
    detector_side: Annotated[int, "> 0", "a multiple of 32"] = 128  # pixels of the detector's pictures
    components: Count = 80  # at most, of the first basis of shapes
    # What learns; less than all goes on from `loop.init`. looks: the second ones at lips and eyes, cheap, and last
    part: Annotated[str, ("all", "mesh", "looks")] = "all"
    point_weight: Weight = 20.0  # of the mean distance of points, in half sides of the crop
    fine_weight: Weight = 3.0  # of lips and eyes among the points
    depth_weight: Weight = 0.3
    place_weight: Weight = 0.3  # of a face's place, size and turn against the score of the cells


@dataclass(frozen=True, kw_only=True)
class LipsObjective(SpeechObjective):
    """What the lips hear through, and the weights of their losses; see `training.lips`."""

    audio_encoder: str = ""  # model file whose states they read; empty: the bundled one
    change_weight: Weight = 0.5  # of the error of the change from frame to frame
    shut_weight: Weight = 0.2  # of the question whether lips meet
    noise: Weight = 0.2  # on the audio states, in their standard deviations
    dropout: Annotated[Share, "< 1"] = 0.2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What all stages share. `to_dict` is what `--dry-run` prints and what lies beside the run as JSON."""

    data: DataConfig = field(default_factory=DataConfig)
    loop: LoopConfig
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    stage: typing.ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        return {"stage": self.stage, **dataclasses.asdict(self)}


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe(Recipe):
    stage = "autoencoder"

    model: networks.AutoencoderConfig
    objective: AutoencoderObjective = field(default_factory=AutoencoderObjective)


@dataclass(frozen=True, kw_only=True)
class CarryRecipe(Recipe):
    stage = "carry"

    model: networks.CarryConfig
    objective: CarryObjective


@dataclass(frozen=True, kw_only=True)
class AudioRecipe(Recipe):
    stage = "audio"

    model: networks.AudioEncoderConfig
    objective: AudioObjective = field(default_factory=AudioObjective)


@dataclass(frozen=True, kw_only=True)
class DiTRecipe(Recipe):
    stage = "dit"

    model: networks.DiTConfig
    projection: networks.AudioProjectionConfig
    objective: DiTObjective = field(default_factory=DiTObjective)


@dataclass(frozen=True, kw_only=True)
class FacesRecipe(Recipe):
    stage = "faces"

    model: networks.FacesConfig
    objective: FacesObjective = field(default_factory=FacesObjective)


@dataclass(frozen=True, kw_only=True)
class LipsRecipe(Recipe):
    stage = "lips"

    model: networks.LipsConfig
    objective: LipsObjective = field(default_factory=LipsObjective)
