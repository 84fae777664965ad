"""Load DiT: a LetsTalk checkpoint as a MODEL that ComfyUI loads, offloads, casts, patches and samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...letstalk_core.errors import CheckpointError, ConfigError
from ...letstalk_core.networks.checkpoint import check_keys, load_tensors, read_header
from ...letstalk_core.networks.configs import AudioProjectionConfig, DiTConfig
from ...letstalk_core.networks.transformer.activations import peak_activation_elements
from ...letstalk_core.sampling.schedules import BETA_FIRST, BETA_LAST, TRAIN_STEPS, default_shift
from .conditions import model_conditions
from .dit import CACHE_OPTION, CacheStore, ComfyDiT, ExactInputs
from .latent_format import LetsTalkLatentFormat, autoencoder_beside
from .progress import interruptible, warn

WEIGHT_DTYPES: dict[str, torch.dtype | None] = {
    "default": None,  # what ComfyUI chooses for the device
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
MODEL_TYPES = {
    "flow": comfy.model_base.ModelType.FLOW,
    "epsilon": comfy.model_base.ModelType.EPS,
    "v": comfy.model_base.ModelType.V_PREDICTION,
}
PARTS = {"dit": "", "audio_projection": "audio_projection."}  # kind -> prefix of its keys in the MODEL

log = logging.getLogger(__name__)


class LetsTalkConfig(comfy.supported_models_base.BASE):
    """What ComfyUI asks of a kind of model."""

    unet_extra_config: dict[str, Any] = {}
    latent_format = LetsTalkLatentFormat
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]

    def __init__(self, dit: DiTConfig, projection: AudioProjectionConfig) -> None:
        super().__init__({"config": dit, "projection": projection})
        self.latent_format.latent_channels = dit.in_channels
        if dit.prediction == "flow":
            self.sampling_settings = {"shift": default_shift(dit), "multiplier": TRAIN_STEPS}
        else:  # ComfyUI calls plain linear betas sqrt_linear
            self.sampling_settings = {
                "beta_schedule": "sqrt_linear",
                "linear_start": BETA_FIRST,
                "linear_end": BETA_LAST,
            }

    def inpaint_model(self) -> bool:
        return False

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> LetsTalkModel:
        return LetsTalkModel(self, device=device)


class LetsTalkModel(comfy.model_base.BaseModel):
    """The network, its sampling type and its conditions. `path` is the file it came from."""

    def __init__(self, config: LetsTalkConfig, device: Any = None) -> None:
        self_config: DiTConfig = config.unet_config["config"]
        super().__init__(config, MODEL_TYPES[self_config.prediction], device=device, unet_model=ComfyDiT)
        interruptible(self.diffusion_model)
        self.dit_config = self_config
        self.projection_config: AudioProjectionConfig = config.unet_config["projection"]
        self.path: Path | None = None
        self._warned: set[tuple[int, ...]] = set()
        self._coming_dtype: torch.dtype | None = None  # to compute in, of the patcher that is about to be loaded

    def extra_conds(self, **conditioning: Any) -> dict[str, Any]:
        """Tensors for the network out of one CONDITIONING. Raises: ConfigError naming the input."""
        tensors = model_conditions(self.dit_config, self.projection_config, **conditioning)
        self._warn_of_size(tuple(tensors["portrait"].shape[-2:]))
        return {name: comfy.conds.CONDRegular(tensor) for name, tensor in tensors.items()}

    def _warn_of_size(self, size: tuple[int, ...]) -> None:
        """Once for each size (latent rows, columns) that is smaller than what the model was trained on."""
        trained = tuple(n * self.dit_config.patch_size for n in self.dit_config.grid_size)
        if size in self._warned or size[0] * size[1] >= trained[0] * trained[1]:
            return
        self._warned.add(size)
        warn(
            f"the video is {size[1]} x {size[0]} latent positions, the model was trained on {trained[1]} x"
            f" {trained[0]}; smaller pictures come out blurred or broken, so raise width and height in LetsTalk"
            " Encode Portrait"
        )

    def _apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """As in the base class, but the network also gets its inputs as they are before ComfyUI rounds them."""
        options = transformer_options or {}
        conditions = {
            name: kwargs.pop(name).to(x.device, torch.float32) for name in ExactInputs._fields if name in kwargs
        }
        exact = ExactInputs(x=x.float(), sigma=t.float(), **conditions)
        return super()._apply_model(
            x, t, c_concat, c_crossattn, control, options, exact=exact, cache=self._cache(options, exact), **kwargs
        )

    def _cache(self, options: dict[str, Any], exact: ExactInputs) -> dict[str, Any] | None:
        """The cache of this batch of conditions, none where weights change between steps: LoRA hooks, training."""
        store, uuids = options.get(CACHE_OPTION), options.get("uuids")
        hooked = getattr(self.current_patcher, "current_hooks", None) is not None
        if not isinstance(store, CacheStore) or not uuids or hooked or torch.is_grad_enabled():
            return None
        return store.of(*uuids, exact.x.shape, exact.memory.shape)

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Any = None) -> float:
        """Bytes that a pass over latents (b, c, f, h, w) needs besides the weights."""
        batch, _, *clip = input_shape
        frames, height, width = clip if len(clip) == 3 else (1, *clip)
        dtype = self._coming_dtype or self.manual_cast_dtype or self.get_dtype()
        elements = peak_activation_elements(
            self.dit_config,
            audio_tokens=self.projection_config.tokens,
            batch=batch,
            frames=frames,
            height=height,
            width=width,
            float16=dtype == torch.float16,
        )
        return float(elements * mm.dtype_size(dtype))


def _fresh_cache(
    executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
) -> Any:
    """Wrapper of one run: gives its steps a cache. The guider has its own copy of the options during a run.

    Raises: ConfigError for sigmas of another kind of model.
    """
    check_sigmas(letstalk_model(executor.class_obj.model_patcher).dit_config.prediction, sigmas)
    executor.class_obj.model_options["transformer_options"][CACHE_OPTION] = CacheStore()
    return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)


def _prepare_training(executor: Any, guider: Any, *args: Any, **kwargs: Any) -> Any:
    """Wrapper of a sampler that trains: its conditions without lists of tensors, which ComfyUI 0.3.64 takes apart
    number by number. What the network needs of them is in `model_conds` by now.
    """
    if torch.is_grad_enabled():
        guider.conds = {
            name: [{k: v for k, v in cond.items() if k != "reference_latents"} for cond in conds]
            for name, conds in guider.conds.items()
        }
    return executor(guider, *args, **kwargs)


def check_sigmas(prediction: str, sigmas: Tensor) -> None:
    """Raises: ConfigError for noise levels that no sample of a flow model has."""
    first = float(sigmas[0]) if sigmas.numel() else 0.0  # training nodes count upwards and do not look at them
    if prediction == "flow" and first > 1 + 1e-3:
        raise ConfigError(
            f"sigmas: begin at {first:.4g}, but the noise of this flow model goes from 1 to 0; they are those of"
            " another model, so connect LetsTalk Sigmas, or a scheduler node over this model"
        )


def _prepare_sampling(executor: Any, patcher: Any, *args: Any, **kwargs: Any) -> Any:
    """Wrapper of loading: ComfyUI makes room before it patches the model with the dtype to compute in."""
    model = patcher.model
    model._coming_dtype = patcher.get_model_object("manual_cast_dtype") or model.get_dtype()
    try:
        return executor(patcher, *args, **kwargs)
    finally:
        model._coming_dtype = None


def load_dit(path: Path, weight_dtype: str = "default") -> comfy.model_patcher.ModelPatcher:
    """The MODEL of a LetsTalk file. `weight_dtype` is how weights are stored; see WEIGHT_DTYPES.

    Raises: CheckpointError for a file that is missing, damaged or of another kind, or whose tensors do not fit.
    """
    if weight_dtype not in WEIGHT_DTYPES:
        raise ConfigError(f"weight_dtype: {weight_dtype!r} is unknown; choose one of {', '.join(WEIGHT_DTYPES)}")
    header = read_header(path)
    parts = {kind: header.part(kind) for kind in PARTS}
    dit, projection = (parts[kind][1] for kind in PARTS)
    if projection.token_dim != dit.audio_token_dim:
        raise CheckpointError(
            f"{path}: its audio projection gives tokens of {projection.token_dim}, its dit takes"
            f" {dit.audio_token_dim}; use files of one training"
        )
    tensors = {kind: load_tensors(path, prefix=f"{name}.") for kind, (name, _) in parts.items()}
    state = {PARTS[kind] + key: tensor for kind, found in tensors.items() for key, tensor in found.items()}
    config = LetsTalkConfig(dit, projection)
    device, offload = mm.get_torch_device(), mm.unet_offload_device()
    supported = config.supported_inference_dtypes
    dtype = WEIGHT_DTYPES[weight_dtype] or mm.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=supported,
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, device, supported))
    model = config.get_model(state, device=offload)
    needed = model.diffusion_model.state_dict()
    projected = PARTS["audio_projection"]
    for kind, found in tensors.items():
        own = {
            key.removeprefix(PARTS[kind]): tensor
            for key, tensor in needed.items()
            if key.startswith(projected) == (kind == "audio_projection")
        }
        check_keys(path, found, own)
    model.diffusion_model.load_state_dict(state)
    model.eval().requires_grad_(False)
    model.path = path
    beside = autoencoder_beside(path, dit.in_channels)
    if beside is not None:
        model.latent_format.set_colours(beside.latent_rgb_factors, beside.latent_rgb_bias)
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)
    patcher.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "letstalk", _prepare_sampling)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "letstalk", _fresh_cache)
    patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "letstalk", _prepare_training)
    return patcher


def letstalk_model(patcher: Any) -> LetsTalkModel:
    """The LetsTalk model inside a MODEL. Raises: ConfigError for a MODEL of another kind."""
    model = getattr(patcher, "model", None)
    if not isinstance(model, LetsTalkModel):
        raise ConfigError(
            f"model: is a {type(model).__name__}, not a LetsTalk model; connect LetsTalk Load DiT, directly or"
            " through LoRA and model patch nodes"
        )
    return model
