"""A denoiser of Hallo's class, built from diffusers' classes with random weights.

Stable Diffusion 1.5's UNet, motion modules, and a reference pass: the same UNet once over the portrait, whose
tokens every spatial self-attention of the video then also reads. Hallo's audio attention is left out, so the real
one is slower. Latents are those of a factor of 8 with 4 channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import randomise

FACTOR = 8  # pixels per latent position
CONTEXT = (4, 768)  # tokens that take the place of the text


class _Reference:
    """Self-attention that writes its tokens to `store`, or also reads those there, one image for all frames."""

    def __init__(self, store: dict[str, Tensor], name: str, *, write: bool) -> None:
        self.store, self.name, self.write = store, name, write

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        context = hidden_states
        if self.write:
            self.store[self.name] = hidden_states
        else:
            portrait = self.store[self.name].expand(hidden_states.shape[0], -1, -1)
            context = torch.cat([hidden_states, portrait], dim=1)
        q, k, v = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, x in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return attn.to_out[0](y)


class HalloClass:
    """`reference(size)` runs once a clip, `step()` once a denoising step. quick: a tenth of the width."""

    def __init__(self, frames: int, size: int, device: torch.device, dtype: torch.dtype, *, quick: bool) -> None:
        from diffusers import UNet2DConditionModel, UNetMotionModel

        widths = (32, 64, 128, 128) if quick else (320, 640, 1280, 1280)
        common = {"block_out_channels": widths, "cross_attention_dim": CONTEXT[1]}
        with torch.device("meta"):
            image = UNet2DConditionModel(**common)
            video = UNetMotionModel(**common, use_motion_mid_block=True)
        place = {"device": device, "dtype": dtype}
        # nn.Module.to: that of diffusers warns of casts, which do no harm to random weights.
        self.image = randomise(nn.Module.to(image, dtype).to_empty(device=device))
        self.video = randomise(nn.Module.to(video, dtype).to_empty(device=device))
        for module in self.video.modules():  # position tables are buffers, which meta devices do not fill
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.zeros_like(buffer))
        store: dict[str, Tensor] = {}
        for model, write in ((self.image, True), (self.video, False)):
            processors = dict(model.attn_processors)
            for name in processors:
                if ".attn1." in name and "motion_modules" not in name:
                    processors[name] = _Reference(store, name, write=write)
            model.set_attn_processor(processors)
        side = size // FACTOR
        self.portrait = torch.randn(1, 4, side, side, **place)
        self.clip = torch.randn(1, 4, frames, side, side, **place)
        self.context = torch.randn(1, *CONTEXT, **place)
        self.contexts = self.context.expand(frames, -1, -1)

    def reference(self) -> Tensor:
        return self.image(self.portrait, 0, self.context, return_dict=False)[0]

    def step(self) -> Tensor:
        return self.video(self.clip, 500, self.contexts, return_dict=False)[0]
