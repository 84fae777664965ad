"""One person's lips: trained further on what the mouth of that person's films does to the same sounds.

Films say how far a mouth opens and how wide it is (landmarks, in eye distances), not what jaw and lips did. What
jaws and lips come to on this face is read by the same landmarks from puppets of its portrait, and turned round.
Teeth, and how far lips are wide and round at once, stay what they were.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from letstalk_core.media.portrait.face_geometry import mouth_opening, mouth_width
from letstalk_core.media.portrait.find import find_face
from letstalk_core.media.puppet.face import PortraitFace
from letstalk_core.networks.lips import Lips
from letstalk_core.networks.motion_channels import LIPS, MOTION
from letstalk_core.pixels import from_unit, to_unit

from ..data.latents import LatentStore
from ..data.manifest import Manifest
from .config import LipsRecipe
from .lips import JAW, ROUND, SHUT, TEETH, WIDE, LipsOutput
from .runtime import load_part

MEASURED = ("opening", "width")  # channels of prepared clips
STEPS = 9  # puppets that are read for each of the two
AJAR, BARED = 0.3, 0.35  # jaw of those whose width is read; teeth of all, for lips that bare them open further


@dataclass(frozen=True)
class MouthScale:
    """opening (n,) read of jaws evenly from 0 to 1; width (n,) of lips from round, -1, to wide, 1; both rise."""

    opening: Tensor
    width: Tensor

    def curves(self, opening: Tensor, width: Tensor) -> Tensor:
        """(...) each -> (..., 2): jaw in 0..1, wide less round in -1..1; the least of those that read the same."""
        found = []
        for read, known, least in ((opening, self.opening, 0.0), (width, self.width, -1.0)):
            told, rising = np.linspace(least, 1, len(known)), np.r_[True, np.diff(known.double()) > 0]
            found.append(np.interp(read.double(), known.double()[rising], told[rising]))
        return torch.from_numpy(np.stack(found, -1)).float()


def read_scale(portrait: Tensor) -> MouthScale:
    """Of the puppet of a portrait (h, w, 3) uint8. Raises: FaceNotFoundError."""
    picture = to_unit(portrait[None])
    face = PortraitFace(picture, find_face(portrait).points)
    jaws, spreads = torch.linspace(0, 1, STEPS), torch.linspace(-1, 1, STEPS)
    told = torch.zeros(2 * STEPS, len(MOTION))
    told[:STEPS, MOTION.index("jaw")] = jaws
    told[STEPS:, MOTION.index("jaw")] = AJAR
    told[:, MOTION.index("teeth")] = BARED
    told[STEPS:, MOTION.index("wide")] = spreads.clamp(min=0)
    told[STEPS:, MOTION.index("round")] = (-spreads).clamp(min=0)
    read = []
    for row in told:
        layer = face(row[None]).pictures
        drawn = torch.lerp(picture, layer[:, :3], layer[:, 3:])
        points = find_face(from_unit(drawn)[0]).points
        read.append([float(mouth_opening(points)), float(mouth_width(points))])
    found = torch.tensor(read)
    return MouthScale(*(v.cummax(0).values for v in (found[:STEPS, 0], found[STEPS:, 1])))


class _FilmedLipsModule(nn.Module):
    def __init__(self, lips: Lips, recipe: LipsRecipe) -> None:
        super().__init__()
        self.lips, self.objective = lips, recipe.objective
        self._before = [copy.deepcopy(lips).eval().requires_grad_(False)]  # no part of what is trained and saved

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: states (b, f + window - 1, layers, d), filmed (b, f, 2), known (b, f), 0 behind a clip's end."""
        o, states, true, known = self.objective, batch["states"].float(), batch["filmed"], batch["known"]
        std = self.lips.std.view(states.shape[-2:])
        found = self.lips.curves(states + o.noise * std * torch.randn_like(states), dropout=o.dropout)
        said, error = filmed(found), filmed(found) - true
        level = _mean(error.square().mean(-1), known)
        change = _mean((said.diff(dim=1) - true.diff(dim=1)).square().mean(-1), known[:, 1:])
        before = self._before[0].to(states.device).curves(states)
        kept = _mean((_others(found) - _others(before)).square().mean(-1), known)
        loss = level + o.change_weight * change + kept
        terms = {"level": level.detach(), "change": change.detach(), "kept": kept.detach()}
        if self.lips.config.tells_shut:
            meeting = (true[..., 0] < SHUT).float()
            shut = _mean(
                F.binary_cross_entropy_with_logits(found[..., len(LIPS)], meeting, reduction="none"), known
            )
            loss, terms["shut"] = loss + o.shut_weight * shut, shut.detach()
        return loss, terms


class FilmedLipsStage(LipsOutput):
    """Stage of `training.loop`: states and filmed mouths of encoded clips, validation on held-out ones, export."""

    def __init__(self, recipe: LipsRecipe, portrait: Tensor) -> None:
        self.recipe, self.scale = recipe, read_scale(portrait)
        torch.manual_seed(recipe.loop.seed)
        self.lips = Lips(recipe.model)
        load_part(self.lips, recipe.loop.init, "lips")
        self.module: nn.Module = _FilmedLipsModule(self.lips, recipe)
        folder = recipe.data.folder
        self.manifest = Manifest(folder)
        self.clips = {s: LatentStore(folder, s, min_frames=2, movement=MEASURED) for s in ("train", "val")}
        self.refresh()

    def refresh(self, limit: int | None = None) -> int:
        position = self.manifest.refresh(limit)
        for store in self.clips.values():
            store.update(self.manifest)
        return position

    def plan_batch(self, seed: int) -> Callable[[], dict[str, Tensor]]:
        store, count = self.clips["train"], self.recipe.data.batch_size
        clips = len(store)

        def make() -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(seed)
            return self._batch(store, torch.randint(clips, (count,), generator=generator))

        return make

    def _batch(self, store: LatentStore, chosen: Tensor) -> dict[str, Tensor]:
        """Whole clips, as many frames as the longest of them has; the states at their ends are repeated."""
        known, margin = store.snapshot(), self.lips.window // 2
        starts, lengths = known.starts[chosen, None], known.lengths[chosen, None]
        frames = int(lengths.max())
        rows = starts + torch.arange(-margin, frames + margin).clamp(min=0).minimum(lengths - 1)
        measured = known.tensors["movement"][rows[:, margin : margin + frames]].float()
        return {
            "states": known.tensors["audio"][rows],
            "filmed": self.scale.curves(*measured.unbind(-1)),
            "known": (torch.arange(frames) < lengths).float(),
        }

    @torch.no_grad()
    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Mean correlation of a held-out clip with the film: jaw, and wide less round ("spread")."""
        store = self.clips["val"]
        if not len(store):
            return {}
        batch = self._batch(store, torch.arange(min(len(store), self.recipe.data.validation_items)))
        said = filmed(self.lips.said(self.lips.curves(batch["states"].float().to(device)))).cpu()
        inside, values = batch["known"] > 0, {}
        for i, name in enumerate(("jaw", "spread")):
            scores = [
                torch.corrcoef(torch.stack([a[k, i], b[k, i]]))[0, 1].nan_to_num(0.0)
                for a, b, k in zip(said, batch["filmed"], inside, strict=True)
            ]
            values[name] = float(torch.stack(scores).mean()) if scores else math.nan
        return values


def filmed(curves: Tensor) -> Tensor:
    """What of curves (..., channels) a film shows: (..., 2) jaw, wide less round."""
    return torch.stack([curves[..., JAW], curves[..., WIDE] - curves[..., ROUND]], -1)


def _others(curves: Tensor) -> Tensor:
    """What no landmark tells: teeth, and how far lips are both wide and round."""
    return torch.stack([curves[..., WIDE] + curves[..., ROUND], curves[..., TEETH]], -1)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return (values * known).sum() / known.sum().clamp(min=1)
