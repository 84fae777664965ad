"""The denoiser: a video diffusion transformer with linear spatial attention (docs/model.md, Denoiser)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import ConfigError
from ...protocols import Device, DType
from ..configs import DiTConfig
from ..nn.attention import Attend, softmax_attention
from ..nn.embeddings import PatchEmbedding, TimestepEmbedding, space_table, time_table
from ..nn.layers import Layers
from .blocks import Block, FinalLayer, Modulation
from .fusion import EncodedConditions, SiameseBranch, beside, context_widths

CACHE_KEY = "letstalk.conditions"


class LetsTalkDiT(nn.Module):
    """Predicts noise, v or flow of a noisy clip from a portrait, the speech and the frames before the clip.

    Any latent height, width, clip length and number of memory frames works; positions beyond the trained ranges of
    the config are pressed into them. Set `gradient_checkpointing` to train with less memory and a third more time.
    Raises: ConfigError when shapes of the inputs do not belong together. Source: paper (arXiv 2411.16748).
    """

    def __init__(
        self, config: DiTConfig, *, operations: Any = nn, device: Device = None, dtype: DType = None
    ) -> None:
        super().__init__()
        layers = Layers(operations, device, dtype)
        dim = config.hidden_size
        contexts = context_widths(config)
        self.config = config
        self.gradient_checkpointing = False
        self.patch_embed = PatchEmbedding(config.in_channels, dim, config.patch_size, layers=layers)
        self.time_embed = TimestepEmbedding(dim, layers=layers)
        self.audio_embed = None if config.audio_fusion == "direct" else layers.linear(config.audio_token_dim, dim)
        branches = nn.ModuleDict()
        if config.portrait_fusion == "siamese":
            branches["portrait"] = SiameseBranch(config, temporal=False, layers=layers)
        if config.audio_fusion == "siamese":
            branches["audio"] = SiameseBranch(config, temporal=True, layers=layers)
        self.branches = branches
        self.blocks = nn.ModuleList(
            Block(config, contexts, last=i == config.depth - 1, layers=layers) for i in range(config.depth)
        )
        self.final = FinalLayer(config, layers=layers)

    def init_weights(self) -> None:
        """Fill every weight: Xavier for linears, and zeros where a branch must start as the identity.

        Zero at the start: all modulation (so the gates of space and feed-forward are closed), the output of
        temporal attention (frames start apart, and its own gradient is not zero) and the final layer. Audio is
        not gated, so that its gradient reaches keys and values from the first steps on.
        """
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                if isinstance(module, nn.Conv2d) and module.groups > 1:
                    nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))  # Xavier counts all groups as fan-out
                else:
                    nn.init.xavier_uniform_(module.weight.flatten(1))  # flatten is a view: fills the weight itself
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in (self.time_embed.linear_1, self.time_embed.linear_2):
            nn.init.normal_(layer.weight, std=0.02)
        zero = [m.linear for m in self.modules() if isinstance(m, Modulation)]
        zero += [block.temporal_out for block in self.blocks]
        for layer in [*zero, self.final.linear]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        portrait: Tensor,
        memory: Tensor,
        audio: Tensor,
        *,
        movement: Tensor | None = None,
        cache: dict[str, Any] | None = None,
        attend: Attend = softmax_attention,
        run_block: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Predict for one batch of clips. Further keywords, which hosts hand to every model, are unused.

        x: (b, f, c, h, w) noisy latents. timestep: (b,) in [0, 1000). portrait: (b, c, h, w) latent. memory:
        (b, m, c, h, w) latents, m >= 0. audio: (b, f, k, da) tokens. movement: (b, f, n, da) tokens that are read
        beside those, and stay where guidance leaves the audio out. Returns (b, f, out_channels, h, w).

        cache: a dict that keeps what depends on portrait, memory and audio alone. Hand an empty one to the first
        sampling step of a clip and the same one, with the same conditions, to the others; results are identical.
        attend: softmax attention of temporal and cross-attention. run_block: is called as run_block(index, block,
        *inputs) in place of block(*inputs) and returns what that would; it lets a host skip or replace blocks.
        """
        if movement is not None:
            audio = torch.cat([audio, movement.to(audio)], dim=2)
        self._check(x, timestep, portrait, memory, audio)
        patch = self.config.patch_size
        grid = (x.shape[-2] // patch, x.shape[-1] // patch)
        known: EncodedConditions | None = None if cache is None else cache.get(CACHE_KEY)
        if known is None:
            known = self.encode_conditions(portrait.to(x.dtype), memory.to(x.dtype), audio.to(x.dtype), attend)
            if cache is not None:
                cache[CACHE_KEY] = known
        elif known.memory.shape[:3] != (x.shape[0], memory.shape[1], grid[0] * grid[1]):
            raise ConfigError(
                f"cache: was filled by memory tokens {list(known.memory.shape)}, which differ from this call's;"
                " give an empty dict to each new clip"
            )
        if run_block is None and _is_common(timestep):
            timestep = timestep[:1]
        embedding = self.time_embed(timestep, x.dtype)
        _, time = self._times(memory.shape[1], x.shape[1], x)
        tokens = self._embed_frames(x) + time
        state, carried = known.memory, known.carried
        for index, (block, contexts) in enumerate(zip(self.blocks, known.contexts, strict=True)):
            inputs: tuple[Any, ...] = (tokens, state, carried, embedding, contexts, grid, attend)
            if run_block is not None:
                tokens, state, carried = run_block(index, block, *inputs)
            elif self.gradient_checkpointing and torch.is_grad_enabled():
                tokens, state, carried = checkpoint(block, *inputs, use_reentrant=False)
            else:
                tokens, state, carried = block(*inputs)
        pattern = "b f (h w) (p q c) -> b f c (h p) (w q)"
        return rearrange(self.final(tokens, embedding), pattern, h=grid[0], p=patch, q=patch)

    def encode_conditions(
        self, portrait: Tensor, memory: Tensor, audio: Tensor, attend: Attend = softmax_attention
    ) -> EncodedConditions:
        """All of the network that does not depend on the noisy clip; shapes as in `forward`."""
        frames = audio.shape[1]
        patch = self.config.patch_size
        grid = (portrait.shape[-2] // patch, portrait.shape[-1] // patch)
        before, time = self._times(memory.shape[1], frames, portrait)
        picture = self._embed_frames(portrait[:, None])  # b 1 n d
        speech = audio if self.audio_embed is None else self.audio_embed(audio)
        carried: list[Tensor] = []
        tokens: dict[str, list[Tensor]] = {}  # of each condition read by cross-attention, for each block
        for name, fusion, own, own_grid in (
            ("portrait", self.config.portrait_fusion, picture, grid),
            ("audio", self.config.audio_fusion, speech, (1, audio.shape[2])),
        ):
            if fusion == "symbiotic":
                carried.append(own)
            elif fusion == "siamese":
                tokens[name] = self.branches[name](own + time if name == "audio" else own, own_grid, attend)
            else:
                tokens[name] = [own] * len(self.blocks)
        blocks: Any = self.blocks
        contexts = tuple(
            {name: block.guide_attention[name].key_value(own[i].flatten(0, 1)) for name, own in tokens.items()}
            for i, block in enumerate(blocks)
        )
        return EncodedConditions(self._embed_frames(memory) + before, beside(carried, frames), contexts)

    def _embed_frames(self, x: Tensor) -> Tensor:
        """Latent frames (b, f, c, h, w) -> tokens (b, f, n, d) with their positions in space."""
        b, f, _, h, w = x.shape
        config = self.config
        if f == 0:
            return x.new_zeros(b, 0, (h // config.patch_size) * (w // config.patch_size), config.hidden_size)
        tokens: Tensor = self.patch_embed(x.flatten(0, 1))
        grid = (h // config.patch_size, w // config.patch_size)
        table = space_table(grid, config.grid_size, config.hidden_size, x.device, x.dtype)
        return (tokens + table).view(b, f, *table.shape)

    def _times(self, memory: int, frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Time tables of memory (m, 1, d) and clip (f, 1, d)."""
        trained = (self.config.bank_frames, self.config.clip_frames)
        before, clip = time_table(memory, frames, trained, self.config.hidden_size, like.device, like.dtype)
        return before[:, None], clip[:, None]

    def _check(self, x: Tensor, timestep: Tensor, portrait: Tensor, memory: Tensor, audio: Tensor) -> None:
        config = self.config
        if x.ndim != 5 or x.shape[2] != config.in_channels or x.shape[1] < 1:
            raise ConfigError(
                f"x: has shape {list(x.shape)}, needs (b, f, {config.in_channels}, h, w) with at least one frame"
            )
        b, f, c, h, w = x.shape
        if h % config.patch_size or w % config.patch_size:
            raise ConfigError(f"x: a grid of {h} x {w} is not a multiple of patch_size={config.patch_size}")
        if tuple(timestep.shape) != (b,):
            raise ConfigError(f"timestep: has shape {list(timestep.shape)}, needs ({b},)")
        if tuple(portrait.shape) != (b, c, h, w):
            raise ConfigError(f"portrait: has shape {list(portrait.shape)}, needs ({b}, {c}, {h}, {w})")
        if memory.ndim != 5 or (memory.shape[0], *memory.shape[2:]) != (b, c, h, w):
            raise ConfigError(f"memory: has shape {list(memory.shape)}, needs ({b}, m, {c}, {h}, {w})")
        if audio.ndim != 4 or audio.shape[:2] != (b, f) or audio.shape[-1] != config.audio_token_dim:
            raise ConfigError(
                f"audio: has shape {list(audio.shape)}, needs ({b}, {f}, tokens, {config.audio_token_dim});"
                " tokens come from the audio projection of the same checkpoint"
            )


def _is_common(timestep: Tensor) -> bool:
    """Whether a batch is at one timestep, where asking costs nothing: its modulation is then computed once."""
    if timestep.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return bool((timestep == timestep[0]).all())
