"""The denoiser as ComfyUI runs it: its layers, attention, patches and wrappers around the core network.

Numbers are those of the standalone pipeline: the core denoiser does all that is not the network, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import optimized_attention
from einops import rearrange
from torch import Tensor

from ...letstalk_core.errors import ConfigError
from ...letstalk_core.networks.configs import AudioProjectionConfig, DiTConfig
from ...letstalk_core.networks.nn.attention import Attend, softmax_attention
from ...letstalk_core.networks.projection import AudioProjection
from ...letstalk_core.networks.transformer.dit import LetsTalkDiT
from ...letstalk_core.sampling.denoisers import make_denoiser

CACHE_OPTION = "letstalk_cache"
TOKENS_KEY = "letstalk.audio_tokens"
FAST_HEAD_DIMS = (64, 128)  # the sizes that every attention ComfyUI can be started with was made for
SMALLEST_SIGMA = 1e-8


class ExactInputs(NamedTuple):
    """What the network is to work on, before ComfyUI rounds it to the compute dtype: it leaves tuples as they are.

    x: (b, c, f, h, w) noisy sample. sigma: (b,). portrait: (b, c, h, w). audio_states: (b, f, window, layers,
    dim). audio_gain: (b, 1, 1, 1), 1 or 0 for silence. memory: (b, m, c, h, w). movement: (b, f, channels), for
    networks conditioned on motion. All float32.
    """

    x: Tensor
    sigma: Tensor
    portrait: Tensor
    audio_states: Tensor
    audio_gain: Tensor
    memory: Tensor
    movement: Tensor | None = None


class CacheStore:
    """What depends on the conditions alone, kept for the steps of one run: a dict for each batch of conditions.

    An object, because ComfyUI copies dicts in the options it hands on at every step.
    """

    def __init__(self) -> None:
        self._caches: dict[tuple[Any, ...], dict[str, Any]] = {}

    def of(self, *key: Any) -> dict[str, Any]:
        return self._caches.setdefault(key, {})

    def find(self, name: str) -> list[Any]:
        """What all batches keep under this name."""
        return [cache[name] for cache in self._caches.values() if name in cache]


class ComfyDiT(LetsTalkDiT):
    """LetsTalkDiT with the audio projection of its checkpoint as one more child, called the way ComfyUI calls."""

    def __init__(
        self,
        config: DiTConfig,
        projection: AudioProjectionConfig,
        *,
        operations: Any,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(config, operations=operations, device=device, dtype=dtype)
        self.audio_projection = AudioProjection(projection, operations=operations, device=device, dtype=dtype)
        self.dtype = dtype  # ComfyUI asks for the dtype of the weights by this name
        self.in_channels = config.in_channels  # nodes ask for those of the latents, as RenormCFG does

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        *,
        exact: ExactInputs,
        cache: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """What ComfyUI's sampling type expects of a model, float32. x: (b, c, f, h, w) in the compute dtype.

        The network starts from `exact`; what wrappers change in x is changed there too, so that nothing but
        their change is rounded.
        """
        options = transformer_options or {}
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options
        )
        if not wrappers:  # one graph for torch.compile, which an executor would break
            return self._predict(x, timestep, context, options, exact=exact, cache=cache)
        given = x
        x = x.clone()  # in float32 it is the sampler's own tensor, and some wrappers add to it in place
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._predict, self, wrappers)
        return executor.execute(x, timestep, context, options, exact=exact, cache=cache, given=given)

    def _predict(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor | None,
        transformer_options: dict[str, Any],
        *,
        exact: ExactInputs,
        cache: dict[str, Any] | None,
        given: Tensor | None = None,
    ) -> Tensor:
        """`given` is x before the wrappers."""
        dtype = x.dtype
        if given is not None:
            exact = changed_inputs(self.config.prediction, exact, x, given)
        network: Any = _Network(self, attention_of(transformer_options), block_runner(transformer_options))
        denoiser = make_denoiser(network, self.config, dtype=dtype)
        denoised = denoiser(
            rearrange(exact.x, "b c f h w -> b f c h w"),
            exact.sigma,
            portrait=exact.portrait,
            audio=self._audio_tokens(exact, dtype, cache),
            memory=exact.memory,
            movement=None if exact.movement is None else self.audio_projection.movement_of(exact.movement, dtype),
            cache=cache,
        )
        return prediction_of(
            self.config.prediction, exact.x.float(), rearrange(denoised, "b f c h w -> b c f h w"), exact.sigma
        )

    def _audio_tokens(self, exact: ExactInputs, dtype: torch.dtype, cache: dict[str, Any] | None) -> Tensor:
        """Tokens (b, f, k, d), zeros where the gain is 0."""
        known = None if cache is None else cache.get(TOKENS_KEY)
        if known is not None:
            return known
        tokens: Tensor = self.audio_projection(exact.audio_states.to(dtype)).float() * exact.audio_gain
        if cache is not None:
            cache[TOKENS_KEY] = tokens
        return tokens


class _Network:
    """The core forward pass of a ComfyDiT, with this call's attention and patches."""

    def __init__(self, dit: ComfyDiT, attend: Attend, run_block: Callable[..., Any] | None) -> None:
        self.dit, self.attend, self.run_block = dit, attend, run_block

    def __call__(self, x: Tensor, timestep: Tensor, **conditions: Any) -> Tensor:
        return LetsTalkDiT.forward(
            self.dit, x, timestep, **conditions, attend=self.attend, run_block=self.run_block
        )

    def parameters(self) -> Any:
        return self.dit.parameters()


def changed_inputs(prediction: str, exact: ExactInputs, x: Tensor, given: Tensor) -> ExactInputs:
    """`exact` with what turned the network's input from `given` into `x`; networks of noise see it scaled.

    Raises: ConfigError for another shape.
    """
    if x.shape != given.shape:
        raise ConfigError(
            f"model: a patch turned its input of {list(given.shape)} into {list(x.shape)}; LetsTalk models need"
            " the shape as it is, so remove that patch"
        )
    change = x.float() - given.float()
    if prediction != "flow":
        sigma = exact.sigma.float().view(-1, *[1] * (x.ndim - 1))
        change = change * (1 + sigma**2).sqrt()
    return exact._replace(x=exact.x + change)


def prediction_of(prediction: str, x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """What a network of this prediction type would have returned: ComfyUI turns it into `denoised` again."""
    sigma = sigma.float().clamp_min(SMALLEST_SIGMA).view(-1, *[1] * (x.ndim - 1))
    if prediction == "v":
        return (x / (1 + sigma**2) - denoised) * (1 + sigma**2).sqrt() / sigma
    return (x - denoised) / sigma


def attention_of(options: dict[str, Any]) -> Attend:
    """Softmax attention for a call: ComfyUI's, with the override that a node may have set.

    Plain torch, which is exact, on the CPU, in float32, and for heads that the faster kinds were not made for.
    """
    overridden = "optimized_attention_override" in options

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        fast = q.is_cuda and q.dtype != torch.float32 and q.shape[-1] in FAST_HEAD_DIMS
        if not overridden and not fast:
            return softmax_attention(q, k, v)
        heads = q.shape[1]
        # Not every attention knows skip_output_reshape, so the heads are put apart again here.
        y = optimized_attention(q, k, v, heads, skip_reshape=True, transformer_options=options)
        return rearrange(y, "b n (h d) -> b h n d", h=heads)

    return attend


def block_runner(options: dict[str, Any]) -> Callable[..., Any] | None:
    """Runs blocks through the patches that nodes set for "dit" blocks ("double_block", index); None without any.

    A patch sees the tokens of the clip as `img`, those of the memory as `txt`, the timestep as `vec`.
    """
    patches = options.get("patches_replace", {}).get("dit", {})
    if not any(key[0] == "double_block" for key in patches):
        return None

    def run(index: int, block: Any, x: Tensor, memory: Tensor, carried: Tensor | None, *others: Any) -> Any:
        patch = patches.get(("double_block", index))
        if patch is None:
            return block(x, memory, carried, *others)

        def original(args: dict[str, Any]) -> dict[str, Any]:
            beside = args.get("carried", carried)
            img, txt, beside = block(args["img"], args["txt"], beside, args["vec"], *others[1:])
            return {"img": img, "txt": txt, "carried": beside}

        arguments = {"img": x, "txt": memory, "vec": others[0], "pe": None, "carried": carried}
        arguments["transformer_options"] = options
        out = patch(arguments, {"original_block": original})
        return out["img"], out["txt"], out.get("carried", carried)

    return run
