"""How much memory a pass of the denoiser takes besides its weights, from the shapes of what is alive at once."""

from __future__ import annotations

from ..configs import DiTConfig
from .fusion import context_widths


def peak_activation_elements(
    config: DiTConfig,
    *,
    audio_tokens: int,
    batch: int,
    frames: int,
    height: int,
    width: int,
    memory: int | None = None,
    float16: bool = False,
) -> int:
    """Numbers alive at the peak of a pass over latents (batch, frames, c, height, width), to be multiplied by the
    size of the compute dtype. `float16`: it is that, and linear attention, which then runs in float32, counts
    twice.

    memory: frames of memory, by default those the model was trained with.
    """
    dim, hidden = config.hidden_size, round(config.hidden_size * config.mlp_ratio)
    memory = config.bank_frames if memory is None else memory
    places = height * width // config.patch_size**2
    clip = batch * frames * places * dim
    past = batch * memory * places * dim
    beside = 0  # carried tokens of each frame
    beside += batch * frames * places * dim if config.portrait_fusion == "symbiotic" else 0
    beside += batch * frames * audio_tokens * dim if config.audio_fusion == "symbiotic" else 0
    contexts = context_widths(config)
    kept = past  # what stays for all steps: memory tokens, carried tokens, keys and values
    kept += 2 * config.depth * batch * places * dim if "portrait" in contexts else 0
    kept += 2 * config.depth * batch * frames * audio_tokens * dim if "audio" in contexts else 0
    # Factors are counted on the operations of a block, and checked against what torch allocates (test).
    wide = 2 if float16 else 1
    state = clip + past + beside
    temporal = state + 6 * (clip + past)
    spatial = state + (clip + beside) * (7 + 4 * wide)
    feed_forward = state + 4 * clip + 4 * clip // dim * hidden
    return kept + max(temporal, spatial, feed_forward)
