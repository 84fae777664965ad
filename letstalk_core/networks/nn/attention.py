"""Attention of the denoiser: linear over space, softmax over time and to conditions (docs/model.md, Denoiser)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .layers import PLAIN, Layers

KeyValue = tuple[Tensor, Tensor]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q (b, h, n, d), k and v (b, h, j, d) -> (b, h, n, d)
EPS = 1e-8
FEW_KEYS = 64


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The softmax attention of temporal and cross-attention unless the caller brings another one.

    In CPU bfloat16 with few keys, the case of small models here, the three steps written out are 1.5 times faster
    than torch's fused kernel, and 5 times with the backward pass.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= FEW_KEYS:
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT
        return scores.softmax(dim=-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


def without_autocast(device_type: str) -> Any:
    """A block in which float32 stays float32: autocast would take matrix products back to half precision."""
    if torch.compiler.is_compiling() or torch.amp.autocast_mode.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


class LinearAttention(nn.Module):
    """Self-attention whose cost is linear in the tokens: y = relu(q) (relu(k)^T v) / (relu(q) sum relu(k)).

    k^T v comes first, a head_dim x head_dim matrix a head. The normaliser is summed in float32 whatever the dtype
    of the model: with many tokens it leaves the precision of bfloat16 and the range of float16. Products run in
    float32, too, but for bfloat16 outside of training, which has the range. Source: paper (arXiv 2411.16748).
    """

    def __init__(self, dim: int, head_dim: int = 32, layers: Layers = PLAIN) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.qkv = layers.linear(dim, 3 * dim, bias=False)
        self.out = layers.linear(dim, dim)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """x (b, n, d) -> (b, n, d); with `queries`, only the first `queries` tokens get results."""
        # Nothing here holds the projection: `attend` can free it as soon as it has its copy.
        y = self.attend(rearrange(self.qkv(x), "b n (s h d) -> s b h n d", s=3, d=self.head_dim), queries)
        y = y.to(x.dtype)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))

    def attend(self, qkv: Tensor, queries: int | None = None) -> Tensor:
        """Queries, keys and values (3, b, h, n, d) -> (b, h, n or queries, d)."""
        with without_autocast(qkv.device.type):
            grad = torch.is_grad_enabled()
            if not grad:  # one copy brings each head's tokens together, to be overwritten
                dtype = qkv.dtype if qkv.dtype == torch.bfloat16 else torch.float32
                qkv = torch.empty(qkv.shape, dtype=dtype, device=qkv.device).copy_(qkv)
                qkv[:2].relu_()
                q, k, v = qkv.unbind(0)
                q = q[:, :, :queries]
            else:
                q, k, v = qkv.float().unbind(0)
                q, k = F.relu(q[:, :, :queries]), F.relu(k)
            y = q @ (k.mT @ v)
            size = (q * k.sum(dim=-2, keepdim=True, dtype=torch.float32)).sum(dim=-1, keepdim=True) + EPS
            return y / size if grad else y.div_(size)


class SoftmaxAttention(LinearAttention):
    """The same projections with softmax instead: the comparison that `spatial_attention="softmax"` runs."""

    def attend(self, qkv: Tensor, queries: int | None = None) -> Tensor:
        q, k, v = qkv.unbind(0)
        return softmax_attention(q[:, :, :queries], k, v)


class TemporalAttention(nn.Module):
    """Softmax self-attention along time, separately for each spatial position."""

    def __init__(self, dim: int, num_heads: int, layers: Layers = PLAIN) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = layers.linear(dim, 3 * dim)
        self.out = layers.linear(dim, dim)

    def forward(self, x: Tensor, attend: Attend = softmax_attention) -> Tensor:
        """x (b, t, n, d) -> (b, t, n, d)."""
        # Positions go beside the heads rather than into the batch: nothing is then copied across time.
        qkv = rearrange(self.qkv(x), "b t n (s h d) -> s b t (n h) d", s=3, h=self.num_heads)
        q, k, v = qkv.transpose(2, 3).unbind(0)
        y = attend(q, k, v)
        return self.out(rearrange(y, "b (n h) t d -> b t n (h d)", h=self.num_heads))


class CrossAttention(nn.Module):
    """Softmax attention from tokens to the tokens of a condition. No bias on q, k, v."""

    def __init__(self, dim: int, num_heads: int, context_dim: int, layers: Layers = PLAIN) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = layers.linear(dim, dim, bias=False)
        self.key = layers.linear(context_dim, dim, bias=False)
        self.value = layers.linear(context_dim, dim, bias=False)
        self.out = layers.linear(dim, dim)

    def key_value(self, context: Tensor) -> KeyValue:
        """context (b, k, dc) -> keys and values (b, h, k, d); depends on the condition only, so it can be kept."""
        key, value = (
            rearrange(layer(context), "b k (h d) -> b h k d", h=self.num_heads) for layer in (self.key, self.value)
        )
        return key, value

    def forward(self, x: Tensor, key_value: KeyValue, attend: Attend = softmax_attention) -> Tensor:
        """x (..., n, d) whose elements divide evenly over the batch of the keys, in order -> the same shape."""
        key, value = key_value
        q = self.query(x).reshape(key.shape[0], -1, x.shape[-1])
        y = attend(rearrange(q, "b n (h d) -> b h n d", h=self.num_heads), key, value)
        return self.out(rearrange(y, "b h n d -> b n (h d)").reshape(x.shape))
