"""Training of the networks that find faces: the detector and the mesh network side by side.

Their pictures are made on the fly out of a folder of heads (`data.face_heads`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from letstalk_core.files import atomic_path
from letstalk_core.media.portrait.crop import fit_to
from letstalk_core.media.portrait.face_geometry import eye_distance, eye_opening, mouth_opening
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.face_landmarks import (
    EYE_QUALITIES,
    LOOKS,
    QUALITIES,
    ConvUnit,
    FaceNetworks,
    Mesh,
    look_centres,
)
from letstalk_core.networks.face_points import EYES, LIPS, POINTS

from ..data.face_heads import SIDE, VALIDATION, Heads, Shapes, load_heads, make_heads
from ..data.face_pictures import CROP, FacePictures, cells_of, mirror_order
from ..data.face_puppets import make_puppet_heads
from .config import FacesRecipe
from .runtime import load_part, seed_of

FILE = "faces.safetensors"


class _FacesModule(nn.Module):
    """Both networks and their losses."""

    weight: Tensor

    def __init__(self, recipe: FacesRecipe) -> None:
        super().__init__()
        self.objective = recipe.objective
        self.networks = FaceNetworks(recipe.model)
        weight = torch.ones(POINTS)
        weight[[*LIPS, *EYES[0], *EYES[1]]] = recipe.objective.fine_weight
        self.register_buffer("weight", weight / weight.mean(), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: picture and faces for the detector, crop, points, sure, labels and shift for the mesh network."""
        o = self.objective
        if o.part == "looks":
            return self._look_loss(batch)
        points, quality = self._mesh_loss(batch)
        loss, values = o.point_weight * points + quality, {"points": points, "quality": quality}
        if o.part == "all":
            found, place = self._detector_loss(batch)
            loss, values = loss + found + o.place_weight * place, {"found": found, "place": place, **values}
        return loss, {k: v.detach() for k, v in values.items()}

    def _detector_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Focal loss of the score (CenterNet, eq. 1) and L1 of place, size and turn near the middles of faces."""
        out = self.networks.detector(batch["picture"])
        score, values, near = cells_of(batch["faces"], out.score.shape[-1])
        p = out.score.float().sigmoid().clamp(1e-4, 1 - 1e-4)
        positive = score == 1
        losses = torch.where(positive, -((1 - p) ** 2) * p.log(), -((1 - score) ** 4) * p**2 * (1 - p).log())
        said = torch.cat([out.offset, out.size[:, None], out.turn], 1).float()
        error = ((said - values).abs().mean(1) * near).sum() / near.sum().clamp(min=1)
        return losses.sum() / positive.sum().clamp(min=1), error

    def _mesh_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mesh: Mesh = self.networks.mesh(batch["crop"], batch["shift"])
        weight = batch["sure"] * self.weight
        scale = torch.tensor([1.0, 1.0, self.objective.depth_weight], device=weight.device)
        points = torch.zeros((), device=weight.device)
        for found, share in ((mesh.points, 1.0), (mesh.coarse, 0.5)):
            error = ((found.float() - batch["points"]).abs() * scale).sum(-1)
            points = points + share * (error * weight).sum() / weight.sum().clamp(min=1)
        labels = batch["labels"]
        known = labels.isfinite()
        quality = F.binary_cross_entropy_with_logits(
            mesh.quality.float(), labels.nan_to_num(0.0), reduction="none"
        )
        return points, (quality * known).sum() / known.sum().clamp(min=1)

    def _look_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 of lips and eyes, seen where they are, and of the openings between them; and what the eyes tell."""
        mesh, face = self.networks.mesh, batch["labels"][:, 0] == 1
        true, sure = batch["points"][face], batch["sure"][face]
        with torch.no_grad():
            fine = mesh.early(batch["crop"][face])
        found, closer = mesh.look(fine, look_centres(true) + batch["shift"][face])
        points, gaps = torch.zeros((), device=true.device), torch.zeros((), device=true.device)
        whole = true.clone()
        for group, seen in zip(LOOKS, found, strict=True):
            error = (seen - true[:, list(group), :2]).abs().sum(-1)
            points = points + (error * sure[:, list(group)]).mean()
            whole[:, list(group), :2] = seen
        flat = torch.tensor([1.0, 1.0, 0.0], device=true.device)
        for opening in (eye_opening, mouth_opening):
            gaps = gaps + (opening(whole * flat) - opening(true * flat)).abs().mean()
        labels = batch["labels"][face][:, list(EYE_QUALITIES)]
        known = labels.isfinite()
        quality = F.binary_cross_entropy_with_logits(closer.float(), labels.nan_to_num(0.0), reduction="none")
        told = (quality * known).sum() / known.sum().clamp(min=1)
        loss = self.objective.point_weight * points + 3 * gaps + 0.5 * told
        return loss, {"points": points.detach(), "gaps": gaps.detach(), "told": told.detach()}


class FacesStage:
    """Stage of `training.loop`: heads, pictures made of them, validation on other people, export."""

    channels_last = True

    def __init__(self, recipe: FacesRecipe) -> None:
        self.recipe = recipe
        folder = Path(recipe.data.folder)
        torch.manual_seed(recipe.loop.seed)
        module = _FacesModule(recipe)
        objective = recipe.objective
        if objective.portraits:
            make_heads(objective.portraits, folder, objective.drawn, objective.turned, recipe.loop.seed)
            make_puppet_heads(objective.portraits, folder, objective.puppets, recipe.loop.seed)
        heads = load_heads(folder)
        shapes = Shapes.of(heads.points[:: max(1, len(heads) // 1500)], min(recipe.objective.components, 1000))
        measured = heads.sure.bool().all(1)
        mean = Shapes.of(heads.points[measured] if measured.any() else heads.points, 1).mean
        mirror = mirror_order(mean)
        _prepare(module.networks, shapes, (mean + mean[mirror] * torch.tensor([-1.0, 1.0, 1.0])) / 2)
        if recipe.loop.init:
            load_part(module.networks, recipe.loop.init, "faces")
        if objective.part == "all":
            add_norms(module.networks)
        elif objective.part == "looks":
            _keep_all_but_looks(module.networks)
        else:  # whose norms have been folded away
            module.networks.detector.requires_grad_(False)
        self.module: nn.Module = module
        self.networks = module.networks
        self.pictures = FacePictures(heads, mirror, _backgrounds(recipe.objective.backgrounds))
        held_out = load_heads(folder / VALIDATION) if (folder / VALIDATION).is_dir() else heads
        self.held_out = self._validation_batch(held_out, mirror)

    def refresh(self, limit: int | None = None) -> int:
        return len(self.pictures.heads)  # nothing is added while training

    def plan_batch(self, seed: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: self._batch(self.pictures, seed, self.recipe.data.batch_size)

    def _batch(self, pictures: FacePictures, seed: int, count: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(seed)
        side = self.recipe.objective.detector_side
        few = count if self.recipe.objective.part == "all" or pictures is not self.pictures else 1
        whole = pictures.whole(rng, few, side)
        crops = pictures.crops(rng, count, self.recipe.model.mesh_side)
        shift = torch.from_numpy(rng.normal(0, 0.03, (count, 3, 2)).astype(np.float32))
        return {**whole, **crops, "shift": shift}

    def _validation_batch(self, heads: Heads, mirror: Tensor) -> dict[str, Tensor]:
        seed = seed_of("faces validation", self.recipe.loop.seed)
        return self._batch(FacePictures(heads, mirror), seed, self.recipe.data.validation_items)

    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Errors of points by the eye distance, shares of right qualities, faces found, false ones a picture."""
        batch = {k: v.to(device) for k, v in self.held_out.items()}
        mesh = self.networks.mesh(batch["crop"])
        face = (batch["labels"][:, 0] == 1) & (batch["sure"].min(1).values == 1)
        apart = (mesh.points - batch["points"])[face, :, :2].norm(dim=-1)
        error = apart / eye_distance(batch["points"][face])[:, None]
        values = {
            "error": float(error.mean()),
            "error_lips": float(error[:, list(LIPS)].mean()),
            "error_eyes": float(error[:, [*EYES[0], *EYES[1]]].mean()),
        }
        for i, name in enumerate(QUALITIES):
            known = batch["labels"][:, i].isfinite()
            right = (mesh.quality[:, i] > 0) == (batch["labels"][:, i] > 0.5)
            values[name] = float(right[known].float().mean())
        out = self.networks.detector(batch["picture"])
        score, _, _ = cells_of(batch["faces"], out.score.shape[-1])
        said = out.score.sigmoid()
        peaks = (said > 0.4) & (F.max_pool2d(said[:, None], 3, 1, 1)[:, 0] == said)
        near = F.max_pool2d(peaks[:, None].float(), 3, 1, 1)[:, 0] > 0
        values["found"] = float(near[score == 1].float().mean())
        around = F.max_pool2d((score > 0.3)[:, None].float(), 3, 1, 1)[:, 0] > 0
        values["false_faces"] = float((peaks & ~around).sum() / len(peaks))
        return values

    def sample(self, path: Path, device: torch.device) -> None:
        """Crops of the validation faces with the points that were found."""
        from PIL import Image, ImageDraw

        crops = self.held_out["crop"][:16]
        points = self.networks.mesh(crops.to(device)).points.float().cpu()
        side = 2 * crops.shape[-1]
        sheet = Image.new("RGB", (8 * side, 2 * side))
        for i, (crop, face) in enumerate(zip(crops, points, strict=True)):
            pixels = ((crop.permute(1, 2, 0) + 1) * 127.5).byte().numpy()
            picture = Image.fromarray(pixels).resize((side, side))
            draw = ImageDraw.Draw(picture)
            draw.point([(float(x + 1) / 2 * side, float(y + 1) / 2 * side) for x, y, _ in face], fill=(0, 255, 0))
            sheet.paste(picture, (i % 8 * side, i // 8 * side))
        with atomic_path(path) as temporary:
            sheet.save(temporary, "PNG")

    def export(self, folder: Path, device: torch.device) -> list[Path]:
        networks = fold_norms(self.networks, self.recipe).half()
        state = networks.state_dict()
        save_checkpoint(folder / FILE, {"faces": (networks.config, state)}, {"letstalk.recipe": "faces"})
        return [folder / FILE]


def _prepare(networks: FaceNetworks, shapes: Shapes, canonical: Tensor) -> None:
    """Mean and basis of shapes into the mesh network, and careful first scores."""
    with torch.no_grad():
        layer = networks.mesh.heads["points"]
        assert isinstance(layer, nn.Linear)
        layer.weight.mul_(0.01)
        layer.weight[:, : len(shapes.basis)] = shapes.basis.flatten(1).T / CROP
        layer.bias.copy_(shapes.mean.flatten() / CROP)
        networks.canonical.copy_(canonical)
        assert networks.detector.final.bias is not None
        networks.detector.final.bias.copy_(torch.tensor([-3.0, 0, 0, 1.0, 1.0, 0]))
        for look, group in ((networks.mesh.lips, LIPS), (networks.mesh.eye, EYES[0])):
            mean = shapes.mean[list(group), :2] / CROP
            reach = 0.36 if group is LIPS else 0.22
            look.final.weight.mul_(0.1)
            look.final.bias.copy_(((mean - mean.mean(0)) / reach).flatten())


def _keep_all_but_looks(networks: FaceNetworks) -> None:
    """Nothing but the second looks learns, and what else said of the eyes' qualities is theirs alone."""
    networks.requires_grad_(False)
    for part in (networks.mesh.lips, networks.mesh.eye, networks.mesh.eye_quality):
        part.requires_grad_(True)
    quality = networks.mesh.heads["quality"]
    assert isinstance(quality, nn.Linear)
    with torch.no_grad():
        quality.weight[list(EYE_QUALITIES)], quality.bias[list(EYE_QUALITIES)] = 0.0, 0.0


def add_norms(networks: nn.Module) -> None:
    """Batch norm behind every convolution, for the training."""
    for unit in networks.modules():
        if isinstance(unit, ConvUnit):
            unit.norm = nn.BatchNorm2d(unit.conv.out_channels)


def fold_norms(networks: FaceNetworks, recipe: FacesRecipe) -> FaceNetworks:
    """A copy on the CPU whose convolutions do what convolution and norm did."""
    plain = FaceNetworks(recipe.model)
    state = {k: v.detach().float().cpu() for k, v in networks.state_dict().items()}
    for name, unit in networks.named_modules():
        if isinstance(unit, ConvUnit) and isinstance(unit.norm, nn.BatchNorm2d):
            gain = state[f"{name}.norm.weight"] / (state[f"{name}.norm.running_var"] + unit.norm.eps).sqrt()
            state[f"{name}.conv.weight"] = state[f"{name}.conv.weight"] * gain[:, None, None, None]
            moved = state[f"{name}.conv.bias"] - state[f"{name}.norm.running_mean"]
            state[f"{name}.conv.bias"] = moved * gain + state[f"{name}.norm.bias"]
    plain.load_state_dict({k: v for k, v in state.items() if ".norm." not in k})
    return plain.eval()


def _backgrounds(folder: str) -> Tensor | None:
    """(n, 3, SIDE, SIDE) in 0..1: the middles of all pictures of a folder, and halves of large ones."""
    if not folder:
        return None
    found = []
    for path in sorted(Path(folder).iterdir()):
        image = load_portrait(path)
        half = min(image.shape[:2]) // 2
        parts = [image, image[:half], image[-half:], image[:, :half], image[:, -half:]] if half > SIDE else [image]
        found += [fit_to(part, (SIDE, SIDE)).permute(2, 0, 1).float() / 255 for part in parts]
    return torch.stack(found) if found else None
