"""The denoiser a second time, slowly, from docs/model.md alone: float64, plain loops, no code of the package.

Weights come as a dict of numpy arrays under the package's names, which are all that is shared with it. Tokens are
(frame, position, channel) arrays of one sample. Spatial attention is written in its quadratic form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # np.ndarray of float64
EPS_ATTENTION = 1e-8


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def norm(x: Array, eps: float = 1e-6) -> Array:
    """Layer norm of the last axis without weights."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sincos(position: float, dim: int) -> list[float]:
    """Sines of all frequencies, then cosines; base 10000."""
    angles = [position / 10000 ** (i / (dim // 2)) for i in range(dim // 2)]
    return [np.sin(a) for a in angles] + [np.cos(a) for a in angles]


@dataclass
class Reference:
    """`weights` of a denoiser of this `config` (any object with the fields of a DiTConfig)."""

    weights: dict[str, Array]
    config: Any

    def get(self, name: str) -> Array:
        return self.weights[name].astype(np.float64)

    def linear(self, name: str, x: Array) -> Array:
        weight = self.get(f"{name}.weight")
        y = x @ weight.reshape(weight.shape[0], -1).T  # a 1x1 convolution is a linear, too
        return y + self.get(f"{name}.bias") if f"{name}.bias" in self.weights else y

    def affine_norm(self, name: str, x: Array) -> Array:
        return norm(x, 1e-5) * self.get(f"{name}.weight") + self.get(f"{name}.bias")

    # -- embeddings

    def frame_tokens(self, latent: Array) -> Array:
        """Latent of one frame (c, h, w) -> its tokens (n, d) with their positions in space."""
        patch, dim = self.config.patch_size, self.config.hidden_size
        weight, bias = self.get("patch_embed.proj.weight"), self.get("patch_embed.proj.bias")
        rows, columns = latent.shape[1] // patch, latent.shape[2] // patch
        tokens = []
        for row in range(rows):
            for column in range(columns):
                window = latent[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
                token = np.array([(weight[d] * window).sum() for d in range(dim)]) + bias
                tokens.append(token + np.array(sincos(column, dim // 2) + sincos(row, dim // 2)))
        return np.stack(tokens)

    def time(self, position: int) -> Array:
        return np.array(sincos(position, self.config.hidden_size))

    def timestep(self, t: float) -> Array:
        """256 numbers, cosines first, through the two-layer MLP."""
        features = sincos(t, 256)
        return self.linear(
            "time_embed.linear_2",
            silu(self.linear("time_embed.linear_1", np.array(features[128:] + features[:128]))),
        )

    # -- layers

    def softmax_attention(self, q: Array, k: Array, v: Array, heads: int) -> Array:
        """q (n, d), k and v (m, d) -> (n, d), head by head."""
        width = q.shape[1] // heads
        out = np.zeros_like(q)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            out[:, part] = softmax(q[:, part] @ k[:, part].T / np.sqrt(width)) @ v[:, part]
        return out

    def temporal(self, name: str, z: Array) -> Array:
        """Temporal attention and adaptive integration, to be added: z (t, n, d), each position for itself."""
        y = np.zeros_like(z)
        for position in range(z.shape[1]):
            x = self.affine_norm(f"{name}.temporal_norm", z[:, position])
            q, k, v = np.split(self.linear(f"{name}.temporal_attention.qkv", x), 3, axis=-1)
            attended = self.softmax_attention(q, k, v, self.config.num_heads)
            y[:, position] = self.linear(
                f"{name}.temporal_out", self.linear(f"{name}.temporal_attention.out", attended)
            )
        return y

    def cross(self, name: str, x: Array, context: Array) -> Array:
        q, k, v = (
            self.linear(f"{name}.{part}", source)
            for part, source in (("query", x), ("key", context), ("value", context))
        )
        return self.linear(f"{name}.out", self.softmax_attention(q, k, v, self.config.num_heads))

    def spatial(self, name: str, x: Array) -> Array:
        """Attention among tokens (n, d) with a ReLU kernel, through its matrix of n x n weights."""
        q, k, v = np.split(self.linear(f"{name}.spatial_attention.qkv", x), 3, axis=-1)
        width = self.config.linear_head_dim
        out = np.zeros_like(q)
        for first in range(0, q.shape[1], width):
            part = slice(first, first + width)
            if self.config.spatial_attention == "softmax":
                out[:, part] = softmax(q[:, part] @ k[:, part].T / np.sqrt(width)) @ v[:, part]
            else:
                weights = np.maximum(q[:, part], 0) @ np.maximum(k[:, part], 0).T
                out[:, part] = weights @ v[:, part] / (weights.sum(1, keepdims=True) + EPS_ATTENTION)
        return self.linear(f"{name}.spatial_attention.out", out)

    def feed_forward(self, name: str, x: Array, grid: tuple[int, int]) -> Array:
        """Mix-FFN of one frame's tokens (n, d)."""
        rows, columns = grid
        wide = silu(self.linear(f"{name}.feed_forward.conv_inverted", x)).reshape(rows, columns, -1)
        taps = self.get(f"{name}.feed_forward.conv_depth.weight")[:, 0]
        mixed = np.zeros_like(wide) + self.get(f"{name}.feed_forward.conv_depth.bias")
        for row in range(rows):
            for column in range(columns):
                for down in (-1, 0, 1):
                    for right in (-1, 0, 1):
                        if 0 <= row + down < rows and 0 <= column + right < columns:
                            mixed[row, column] += taps[:, down + 1, right + 1] * wide[row + down, column + right]
        value, gate = np.split(mixed.reshape(len(x), -1), 2, axis=-1)
        return self.linear(f"{name}.feed_forward.conv_point", value * silu(gate))

    def siamese(self, name: str, frames: Array, grid: tuple[int, int], temporal: bool) -> list[Array]:
        """A condition's tokens (t, n, d) through its own stack; what each block of the backbone reads of them."""
        read = []
        for i in range(self.config.depth):
            block = f"branches.{name}.blocks.{i}"
            if temporal:
                frames = frames + self.temporal(block, frames)
            for t in range(len(frames)):
                x = frames[t] + self.spatial(block, self.affine_norm(f"{block}.spatial_norm", frames[t]))
                x = x + self.feed_forward(block, self.affine_norm(f"{block}.feed_forward_norm", x), grid)
                frames = np.concatenate([frames[:t], x[None], frames[t + 1 :]])
            read.append(norm(frames))
        return read

    # -- the whole

    def __call__(self, x: Array, t: float, portrait: Array, memory: Array, audio: Array) -> Array:
        """One sample: x (f, c, h, w), t in 0..1000, portrait (c, h, w), memory (m, c, h, w), audio (f, k, da)."""
        config, patch = self.config, self.config.patch_size
        frames, grid = len(x), (x.shape[2] // patch, x.shape[3] // patch)
        trained = config.memory_frames + config.anchor_frames
        clip = np.stack([self.frame_tokens(x[i]) + self.time(trained + i) for i in range(frames)])
        earlier = [self.frame_tokens(m) + self.time(trained - len(memory) + i) for i, m in enumerate(memory)]
        before = np.array(earlier).reshape(-1, *clip.shape[1:])
        picture = self.frame_tokens(portrait)[None]
        speech = audio if config.audio_fusion == "direct" else self.linear("audio_embed", audio)
        carried, contexts = [], {}
        if config.portrait_fusion == "symbiotic":
            carried.append(np.repeat(picture, frames, axis=0))
        elif config.portrait_fusion == "siamese":
            contexts["portrait"] = self.siamese("portrait", picture, grid, temporal=False)
        else:
            contexts["portrait"] = [picture] * config.depth
        if config.audio_fusion == "symbiotic":
            carried.append(speech)
        elif config.audio_fusion == "siamese":
            timed = speech + np.stack([self.time(trained + i) for i in range(frames)])[:, None]
            contexts["audio"] = self.siamese("audio", timed, (1, speech.shape[1]), temporal=True)
        else:
            contexts["audio"] = [speech] * config.depth
        beside = np.concatenate(carried, axis=1) if carried else np.zeros((frames, 0, config.hidden_size))
        embedding = silu(self.timestep(t))
        for i in range(config.depth):
            before, clip, beside = self.block(i, before, clip, beside, embedding, contexts, grid)
        shift, scale = np.split(self.linear("final.modulation.linear", embedding), 2)
        pixels = self.linear("final.linear", norm(clip) * (1 + scale) + shift)
        return self.unpatch(pixels, grid)

    def block(
        self,
        i: int,
        before: Array,
        clip: Array,
        beside: Array,
        embedding: Array,
        contexts: dict[str, list[Array]],
        grid: tuple[int, int],
    ) -> tuple[Array, Array, Array]:
        name = f"blocks.{i}"
        z = np.concatenate([before, clip])
        z = z + self.temporal(name, z)
        before, clip = z[: len(before)], z[len(before) :].copy()
        shift, scale, gate, shift_ff, scale_ff, gate_ff = np.split(
            self.linear(f"{name}.modulation.linear", embedding), 6
        )
        beside = beside.copy()
        n = clip.shape[1]
        for t in range(len(clip)):
            for condition in ("portrait", "audio"):
                if condition in contexts:
                    tokens = contexts[condition][i]
                    context = tokens[t if len(tokens) > 1 else 0]
                    attention = f"{name}.guide_attention.{condition}"
                    clip[t] += self.cross(attention, norm(clip[t]), context)
            u = np.concatenate([clip[t], beside[t]])
            u = u + gate * self.spatial(name, norm(u) * (1 + scale) + shift)
            clip[t], beside[t] = u[:n], u[n:]
            clip[t] += gate_ff * self.feed_forward(name, norm(clip[t]) * (1 + scale_ff) + shift_ff, grid)
        return before, clip, beside

    def unpatch(self, pixels: Array, grid: tuple[int, int]) -> Array:
        """Pixels of patches (f, n, patch * patch * c) -> frames (f, c, h, w)."""
        patch = self.config.patch_size
        channels = pixels.shape[-1] // patch**2
        out = np.zeros((len(pixels), channels, grid[0] * patch, grid[1] * patch))
        for t in range(len(pixels)):
            for place in range(grid[0] * grid[1]):
                row, column = divmod(place, grid[1])
                cell = pixels[t, place].reshape(patch, patch, channels)
                for p in range(patch):
                    for q in range(patch):
                        out[t, :, row * patch + p, column * patch + q] = cell[p, q]
        return out
