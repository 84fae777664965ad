from __future__ import annotations

import torch

from letstalk_core.media.portrait.crop import CropTransform
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.load import DEMO_FOLDER

FACE = (510, 330, 770, 590)  # scripts/make_demo_scene.py


def test_the_bundled_scene_holds_a_bundled_portrait_at_the_default_margins() -> None:
    scene = load_portrait(DEMO_FOLDER / "scenes" / "studio.png")
    crop = CropTransform.around(FACE, (scene.shape[0], scene.shape[1]), (256, 256))
    found, portrait = crop.apply(scene).float(), load_portrait(DEMO_FOLDER / "portraits" / "cleo.png").float()
    assert tuple(scene.shape) == (720, 1280, 3)
    face = (slice(100, 200), slice(90, 170))
    assert torch.abs(found - portrait)[face].mean() < 4  # drawn at another size: only edges differ
