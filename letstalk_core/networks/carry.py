"""Carry: the portrait's own detail, moved along with the decoded frames.

A portrait is known to the last pore, but frames come out of an autoencoder that forgets most of it. What it forgot
of the portrait is known, too: the difference between the portrait and its own round trip. A frame is matched with
that round trip, which went through the same autoencoder, and two masks say what is taken along:

    out = S + a (warp(S_p) - S) + b warp(P - S_p)

S decoded frame, P portrait, S_p its round trip; a = b = 1: the portrait's pixels; a = 0, b = 1: its fine detail
in the frame's own light; a = b = 0: the frame as it is. Pictures in, pictures out: it follows any decoder.
Matching and masks work on small pictures, and the portrait is sampled at the size of the result, which may exceed
that of the frames.

Where `Layers` are given, they say where everything is to be, too: what a decoded frame has elsewhere is moved
there before masks are found, and what is surely the person's or a background's is the portrait's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..protocols import Device, DType, Operations
from .configs import CarryConfig
from .flow import INVERSIONS, affine_flow, fit_affine, gauss_newton, grow, places_led, pyramid_flow, shrink, warp
from .tone import Tone

PARTS = 9  # channels that masks and correction look at: frame, what is left after the warp, warped detail
AT_ONCE = 8  # frames that are matched in one pass, at the small working size
SHAPE_TOLERANCE = 0.02  # between the ratios of the sides of portrait and frames
FURTHEST = 0.12  # from where a network put something it is moved no further, -1..1: it would tear
COARSE, CHANGED = 8, 0.5  # pixels of a cell, difference of cells in [-1, 1], by which a background has changed
EXCESS = 4.0  # what is left and detail are small beside the frame itself


@dataclass(frozen=True)
class CarryReference:
    """What frames of one portrait are made with: pictures (1 or n, 3, h, w) float32 in [-1, 1].

    portrait: at the size of the result; decoded: its round trip, at the size of the frames, and behind it, if that
    is the size of the result, the portrait once more; parts (1 or n, 6, h, w): round trip and what it lost, at the
    size of the matching.
    """

    portrait: Tensor
    decoded: Tensor
    parts: Tensor
    tone: Tone

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.portrait.shape[-2], self.portrait.shape[-1]

    def of(self, first: int, count: int) -> CarryReference:
        """That of some frames, where every frame has one of its own."""
        if len(self.portrait) == 1:
            return self
        part = slice(first, first + count)
        return CarryReference(self.portrait[part], self.decoded[part], self.parts[part], self.tone.of_frames(part))


@dataclass(frozen=True)
class CarryMaps:
    """What was found for frames: flow (n, 2, h/2, w/2) and masks (n, 2, h, w), a and b. shift (n, 2, h/2, w/2), if
    there is one: from where in a frame its places must be taken, before anything else."""

    flow: Tensor
    masks: Tensor
    shift: Tensor | None = None

    def __getitem__(self, part: slice) -> CarryMaps:
        return CarryMaps(self.flow[part], self.masks[part], None if self.shift is None else self.shift[part])


@dataclass(frozen=True)
class Surroundings:
    """Maps (1, 1, h, w) of a portrait, 0..1: how surely places are of the person, and of the background."""

    person: Tensor
    still: Tensor


@dataclass(frozen=True)
class Layers:
    """Pictures with cover (n, 4, *reference.size) in the portrait's place, one to be laid over each frame.

    places (k, 2), -1..1: of the portrait, what moves as one piece; drawn (n, k, 2): where the pictures have them;
    told (n, 2, h, w): the flow that frames are to have, or None: the one they have. around: of the portrait.
    """

    pictures: Tensor
    places: Tensor
    drawn: Tensor
    told: Tensor | None
    around: Surroundings

    def __getitem__(self, part: slice) -> Layers:
        told = None if self.told is None else self.told[part]
        return Layers(self.pictures[part], self.places, self.drawn[part], told, self.around)

    def shift(self, flow: Tensor) -> Tensor | None:
        """From where frames with this flow (n, 2, h, w) are to be taken to have the one that is told: like it."""
        if self.told is None:
            return None
        told = grow(self.told, (flow.shape[-2], flow.shape[-1]))
        shift = torch.zeros_like(flow)
        for _ in range(INVERSIONS):
            shift = told - warp(flow, shift)
        near = (FURTHEST / shift.norm(dim=1, keepdim=True).clamp(min=1e-6)).clamp(max=1)
        return shift * near

    def motion(self, flow: Tensor) -> Tensor:
        """How pictures get to where the flow (n, 2, h, w) of their frames finds their places (`fit_affine`)."""
        return fit_affine(places_led(flow, self.places), self.drawn)

    def unchanged(self, pictures: Tensor, decoded: Tensor) -> Tensor:
        """How surely pictures (n, 3, h, w) show what decoded ones (n or 1, 3, h, w) do (n, 1, h, w): not where
        they are altogether unlike, for something else has come there."""
        size = pictures.shape[-2], pictures.shape[-1]
        coarse = size[0] // COARSE, size[1] // COARSE
        apart = (shrink(pictures, coarse) - shrink(decoded, coarse)).abs().mean(1, keepdim=True)
        changed = grow(F.max_pool2d(apart, 3, 1, 1), size) / CHANGED
        return (2 - 2 * changed).clamp(0, 1)


def lay_over(frame: Tensor, picture: Tensor, motion: Tensor) -> Tensor:
    """A frame (1, 3, h, w) under a picture with cover (1, 4, h, w) that has moved (1, 3, 2)."""
    moved = warp(picture, affine_flow(motion, (frame.shape[-2], frame.shape[-1])))
    return torch.lerp(frame, moved[:, :3], moved[:, 3:])


class _Trunk(nn.Module):
    """Patches of 2x2 pixels to features, then residual 3x3 convolutions, each with twice the dilation."""

    def __init__(self, width: int, layers: int, *, operations: Operations, device: Device, dtype: DType) -> None:
        super().__init__()
        place = {"device": device, "dtype": dtype}
        self.conv_in = operations.Conv2d(PARTS, width, 2, stride=2, **place)
        self.convs = nn.ModuleList(
            operations.Conv2d(width, width, 3, padding=2**i, dilation=2**i, padding_mode="replicate", **place)
            for i in range(layers)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, PARTS, h, w) to features (n, width, h/2, w/2); `context`: features of a coarser grid."""
        # Channels last is the quicker layout. For gradients of dilated bfloat16 convolutions of 24 channels oneDNN
        # gives NaN in it, though, on CPUs with AVX512-BF16 and without AMX (torch 2.11).
        layout = torch.contiguous_format if torch.is_grad_enabled() else torch.channels_last
        x = self.conv_in(x.contiguous(memory_format=layout))
        if context is not None:
            x = x + grow(context, (x.shape[-2], x.shape[-1]))
        for conv in self.convs:
            x = x + conv(F.silu(x))
        return F.silu(x)


class Carry(nn.Module):
    """Matching and masks. Shapes: frames (n, 3, h, w) in [-1, 1] -> (n, 3, *reference.size), float32.

    `operations` supplies the convolutions. Weights may be float32, bfloat16 or float16; all else is float32.
    """

    def __init__(
        self, config: CarryConfig, *, operations: Operations = nn, device: Device = None, dtype: DType = None
    ) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.correct = _Trunk(width, config.correction_layers, operations=operations, **place)
        self.correct_out = operations.Conv2d(width, 2, 3, padding=1, padding_mode="replicate", **place)
        self.context = operations.Conv2d(width, width, 1, **place)
        self.masks = _Trunk(width, config.mask_layers, operations=operations, **place)
        self.masks_out = operations.Conv2d(width, 8, 3, padding=1, padding_mode="replicate", **place)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start values for training: no correction, a little of the portrait's forms, much of its detail."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
        for out in (self.correct_out, self.masks_out):
            nn.init.normal_(out.weight, std=1e-3)
        nn.init.zeros_(self.correct_out.bias)
        self.masks_out.bias.copy_(torch.tensor([-2.0, 0.5]).repeat_interleave(4))

    def prepare(
        self, portrait: Tensor, decoded: Tensor, small: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> CarryReference:
        """What the frames of a portrait need.

        portrait (1 or n, 3, H, W) at any size; decoded: its round trip (1 or n, 3, h, w), at the size of the
        frames; small: what went into that round trip, by default the portrait scaled. size: height and width of
        the result, by default those of the frames. Raises: ConfigError for shapes that do not go together.
        """
        (height, width), (h, w) = portrait.shape[-2:], decoded.shape[-2:]
        size = size or (h, w)
        for name, (a, b) in {"portrait": (height, width), "size": size}.items():
            if min(a, b) < 1 or abs(a * w / (b * h) - 1) > SHAPE_TOLERANCE:
                raise ConfigError(f"{name} {b}x{a} is of another shape than the frames of {w}x{h}; crop it first")
        portrait, decoded = portrait.float(), decoded.float().clamp(-1, 1)
        small = _scale(portrait, (h, w)) if small is None else small.float()
        parts = shrink(torch.cat([decoded, small - decoded], dim=1), self._working_size(h, w))
        portrait = _scale(portrait, size)
        if size == (h, w):
            decoded = torch.cat([decoded, portrait], dim=1)
        return CarryReference(portrait, decoded, parts, Tone.of(small))

    def forward(self, frames: Tensor, reference: CarryReference, layers: Layers | None = None) -> Tensor:
        """`layers`: what is laid over the frames, once they have the portrait's detail."""
        if tuple(frames.shape[-2:]) != tuple(reference.decoded.shape[-2:]):
            (h, w), (height, width) = frames.shape[-2:], reference.decoded.shape[-2:]
            raise ConfigError(f"frames are {w}x{h}, the decoded portrait is {width}x{height}; decode both alike")
        result = frames.new_empty(len(frames), 3, *reference.size, dtype=torch.float32)
        for first in range(0, len(frames), AT_ONCE):
            part = frames[first : first + AT_ONCE].float().clamp(-1, 1)
            part_layers = None if layers is None else layers[first : first + len(part)]
            maps = self.estimate(part, reference.of(first, len(part)), part_layers)
            motion = None if part_layers is None else part_layers.motion(maps.flow)
            for i in range(len(part)):  # one by one, which stays in the processor's cache
                own = slice(i, i + 1)
                mixed = self.mix(part[own], maps[own], reference.of(first + i, 1))
                if part_layers is not None and motion is not None:
                    mixed = lay_over(mixed, part_layers.pictures[own], motion[own])
                torch.clamp(mixed, -1, 1, out=result[first + i : first + i + 1])
        return result

    def mix(self, frames: Tensor, maps: CarryMaps, reference: CarryReference) -> Tensor:
        """Frames (n, 3, h, w) with what the maps take along, (n, 3, *reference.size), not clamped."""
        size, own = reference.size, (frames.shape[-2], frames.shape[-1])
        # S + a (warp(S_p) - S) + b warp(P - S_p), sorted by what must be sampled at the size of the result
        masks, flow = grow(maps.masks, own), grow(maps.flow, own)
        if maps.shift is not None:
            frames = warp(frames, grow(maps.shift, own))
        forms, detail = masks[:, :1], masks[:, 1:]
        warped = warp(reference.decoded, flow)
        moved = warped[:, :3]
        rest = torch.addcmul(torch.lerp(frames, moved, forms), detail, moved, value=-1)
        if own == size:
            return reference.tone(torch.addcmul(rest, detail, warped[:, 3:]))
        rest, detail = _scale(rest, size), grow(maps.masks[:, 1:], size)
        return reference.tone(torch.addcmul(rest, detail, warp(reference.portrait, grow(maps.flow, size))))

    def estimate(self, frames: Tensor, reference: CarryReference, layers: Layers | None = None) -> CarryMaps:
        """Flow and masks of frames (n, 3, h, w), and their shift if layers tell where the head is to be."""
        parts = reference.parts
        size = parts.shape[-2], parts.shape[-1]
        half = size[0] // 2, size[1] // 2
        pictures, other = shrink(frames, size), shrink(parts, half)
        small, target = shrink(pictures, half), other[:, :3]
        flow = pyramid_flow(small, target, half)
        features = self.correct(self._parts(small, warp(other, flow)))
        unit = flow.new_tensor([2 / size[1], 2 / size[0]]).view(1, 2, 1, 1)
        flow = flow + grow(self.correct_out(features).float() * unit, half)
        flow = gauss_newton(small, target, flow, steps=1)
        shift = sure = None
        if layers is not None:
            shift = layers.shift(flow)
            if shift is not None:
                pictures, flow = warp(pictures, grow(shift, size)), warp(flow, shift) + shift
            sure = grow(layers.around.still, size) * layers.unchanged(pictures, parts[:, :3])
            flow = flow * (1 - grow(sure, half))
        whole = grow(flow, size)
        moved = warp(parts, whole)
        if layers is not None and sure is not None and shift is not None:
            person = warp(grow(layers.around.person, size), whole)
            sure = torch.maximum(sure, person * layers.unchanged(pictures, moved[:, :3]))
        x = self.masks(self._parts(pictures, moved), self.context(features))
        masks = F.pixel_shuffle(self.masks_out(x).float().contiguous(), 2).sigmoid()
        if sure is not None:
            masks = torch.lerp(masks, torch.ones_like(masks), grow(sure, (masks.shape[-2], masks.shape[-1])))
        return CarryMaps(flow, masks, shift)

    def _parts(self, pictures: Tensor, moved: Tensor) -> Tensor:
        """Frame, what warped round trips leave of it, and warped detail: (n, PARTS, h, w)."""
        inputs = torch.cat([pictures, EXCESS * (pictures - moved[:, :3]), EXCESS * moved[:, 3:]], dim=1)
        return inputs.to(self.context.weight.dtype)

    def _working_size(self, height: int, width: int) -> tuple[int, int]:
        """Near `working_size` pixels on the shorter side, multiples of 8."""
        scale = self.config.working_size / min(height, width)
        return max(8, round(height * scale / 8) * 8), max(8, round(width * scale / 8) * 8)


def _scale(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic with antialiasing, to another size."""
    if tuple(pictures.shape[-2:]) == size:
        return pictures
    return F.interpolate(pictures, size=size, mode="bicubic", antialias=True, align_corners=False)
