"""The portrait's own detail: for finished frames, and for the clips of Talking Video."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_setup import DEMO_FOLDER
from sampling_setup import prepare
from torch import Tensor


def save_masks(sub: Any, path: Path, detail: float = 0.99) -> None:
    """Masks that take the portrait's detail everywhere."""
    config = sub("letstalk_core.networks.configs").CarryConfig(hidden_size=8)
    carry = sub("letstalk_core.networks.carry").Carry(config)
    carry.init_weights()
    for out in (carry.correct_out, carry.masks_out):
        torch.nn.init.zeros_(out.weight)
    carry.masks_out.bias.data = torch.logit(torch.tensor([0.5, detail]).repeat_interleave(4))
    sub("letstalk_core.networks.checkpoint").save_checkpoint(path, {"carry": (config, carry.state_dict())})


def save_lips(sub: Any, vae: Any, track: Any) -> None:
    """Lips by chance beside the file of a VAE, for the states of a track."""
    config = sub("letstalk_core.networks.configs").LipsConfig(
        layers=track.layers, encoder_dim=track.dim, hidden_size=8
    )
    torch.manual_seed(0)
    lips = sub("letstalk_core.networks.lips").Lips(config)
    path = vae.path.with_name("lips.safetensors")
    sub("letstalk_core.networks.checkpoint").save_checkpoint(path, {"lips": (config, lips.state_dict())})


@pytest.fixture
def photograph(sub: Any) -> Tensor:
    """(h, w, 3) uint8."""
    found: Tensor = sub("letstalk_core.media.portrait.image").load_portrait(DEMO_FOLDER / "portraits" / "eva.jpg")
    return found


@pytest.fixture
def make_vae(sub: Any, tmp_path: Path) -> Callable[[bool], Any]:
    """The demo's autoencoder in a folder of its own, with masks beside it or without."""

    def make(masks: bool) -> Any:
        path = tmp_path / f"model{masks}" / "autoencoder.safetensors"
        path.parent.mkdir()
        shutil.copy(DEMO_FOLDER / path.name, path)
        if masks:
            save_masks(sub, path.with_name("carry.safetensors"))
        with torch.inference_mode():
            return sub("nodes.adapters.vae").load_vae(path)

    return make


@pytest.fixture
def portrait(kit: Any) -> Tensor:
    """IMAGE of 256 px."""
    found: Tensor = kit.fit_to(kit.portrait, (256, 256))[None].float() / 255
    return found


def shrunk(image: Tensor, side: int) -> Tensor:
    small = torch.nn.functional.interpolate(image.movedim(-1, 1), size=side, mode="bicubic", antialias=True)
    return small.movedim(1, -1).clamp(0, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def round_trip(vae: Any, image: Tensor) -> Tensor:
    found: Tensor = vae.decode(vae.encode(image))
    return found.reshape(-1, *found.shape[-3:])


def test_the_node_brings_the_portrait_back(comfy_nodes: dict[str, Any], make_vae: Any, portrait: Tensor) -> None:
    vae, small = make_vae(True), shrunk(portrait, 128)
    frames = round_trip(vae, small).expand(3, -1, -1, -1)
    (found,) = comfy_nodes["LetsTalkCarryDetail"].execute(frames, portrait, vae).args
    assert tuple(found.shape) == (3, 128, 128, 3)
    assert psnr(found, small) > psnr(frames, small) + 6
    assert 0 <= float(found.min()) and float(found.max()) <= 1


@pytest.mark.parametrize(("size", "side"), [("double size", 128), ("portrait size", 256)])
def test_larger_results_have_the_detail_of_the_larger_portrait(
    comfy_nodes: dict[str, Any], make_vae: Any, portrait: Tensor, size: str, side: int
) -> None:
    vae = make_vae(True)
    frames = round_trip(vae, shrunk(portrait, 64))
    (found,) = comfy_nodes["LetsTalkCarryDetail"].execute(frames, portrait, vae, size).args
    enlarged = shrunk(frames, side)
    assert tuple(found.shape) == (1, side, side, 3)
    assert psnr(found, shrunk(portrait, side)) > psnr(enlarged, shrunk(portrait, side)) + 3


def test_bad_inputs_are_named(
    comfy_nodes: dict[str, Any], make_vae: Any, portrait: Tensor, sub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, vae = comfy_nodes["LetsTalkCarryDetail"].execute, make_vae(True)
    error = sub("letstalk_core.errors").ConfigError
    frames = round_trip(vae, shrunk(portrait, 64))
    with pytest.raises(error, match="portrait: holds 2 pictures"):
        run(frames, portrait.expand(2, -1, -1, -1), vae)
    with pytest.raises(error, match="frames: is"):
        run(frames[0], portrait, vae)
    with pytest.raises(error, match="size: is 'huge'; must be one of"):
        run(frames, portrait, vae, "huge")
    with pytest.raises(error, match=r"vae: makes 64x64 of a picture of 72x72"):
        run(shrunk(frames, 72), portrait, vae)
    monkeypatch.setattr(sub("nodes.adapters.carry"), "DEMO_FOLDER", Path("nowhere"))
    with pytest.raises(error, match=r"there is no carry\.safetensors"):
        run(frames, portrait, make_vae(False))


def with_picture(kit: Any, frames: int, picture: Tensor) -> Any:
    return replace(prepare(kit, frames), picture=picture)


def pictures(kit: Any, run: Any, vae: Any, **options: Any) -> Tensor:
    found: Tensor = kit.render.render_video(run, vae, node_id="1", images="all frames", **options).images
    return found


def test_talking_video_carries_detail_by_default_and_at_larger_sizes(
    kit: Any, make_vae: Any, portrait: Tensor
) -> None:
    vae, picture = make_vae(True), (portrait[0] * 255).to(torch.uint8)
    plain = pictures(kit, with_picture(kit, 20, picture), vae, detail="off")
    carried = pictures(kit, with_picture(kit, 20, picture), vae)
    double = pictures(kit, with_picture(kit, 20, picture), vae, detail="double size")
    assert plain.shape == carried.shape == (20, 64, 64, 3)
    assert double.shape == (20, 128, 128, 3)
    assert not torch.equal(plain, carried)
    assert psnr(shrunk(double, 64), carried) > 30
    again = pictures(kit, with_picture(kit, 20, picture), vae, detail="double size")
    assert torch.equal(again, double)


def test_references_give_detail_to_talking_video(kit: Any, make_vae: Any, portrait: Tensor) -> None:
    vae, picture = make_vae(True), (portrait[0] * 255).to(torch.uint8)
    alone = pictures(kit, with_picture(kit, 4, picture), vae)
    more = torch.cat([portrait.flip(2), portrait])  # a batch of two
    both = pictures(kit, with_picture(kit, 4, picture), vae, references=more)
    assert both.shape == alone.shape and not torch.equal(both, alone)
    grey = torch.full_like(portrait, 0.5)
    with pytest.raises(kit.errors.FaceNotFoundError, match="^references: picture 2: no face was found"):
        pictures(kit, with_picture(kit, 4, picture), vae, references=torch.cat([portrait, grey]))
    for options, why in (({"vae": make_vae(False)}, "no carry"), ({"vae": vae, "detail": "off"}, "detail is off")):
        with pytest.raises(kit.errors.ConfigError, match=f"references: cannot be used: .*{why}"):
            pictures(kit, with_picture(kit, 4, picture), references=more, **options)


def test_without_masks_or_picture_frames_are_plain_and_larger_sizes_refused(
    kit: Any, make_vae: Any, portrait: Tensor
) -> None:
    picture = (portrait[0] * 255).to(torch.uint8)
    without, masks = make_vae(False), make_vae(True)
    plain = pictures(kit, prepare(kit, 4), without, detail="off")
    assert torch.equal(pictures(kit, with_picture(kit, 4, picture), without), plain)
    assert torch.equal(pictures(kit, prepare(kit, 4), masks), plain)
    with pytest.raises(kit.errors.ConfigError, match=r"the VAE has no carry\.safetensors beside its file"):
        pictures(kit, with_picture(kit, 4, picture), without, detail="double size")
    with pytest.raises(kit.errors.ConfigError, match="does not come from LetsTalk Encode Portrait"):
        pictures(kit, prepare(kit, 4), masks, detail="portrait size")


def test_the_picture_reaches_the_run_in_its_own_resolution(
    kit: Any, comfy_nodes: dict[str, Any], portrait: Tensor
) -> None:
    (latent,) = comfy_nodes["LetsTalkEncodePortrait"].execute(portrait, kit.vae, 64, 64).args
    track = prepare(kit, 4).track
    positive, *_ = comfy_nodes["LetsTalkConditioning"].execute(latent, {"letstalk_track": track}, 0, 16).args
    options = {"seed": 1, "steps": 1, "schedule": "model", "audio_scale": 1.0, "portrait_scale": 1.0}
    run = kit.run.prepare_run(model=kit.patcher, positive=positive, **options)
    assert tuple(run.picture.shape) == (256, 256, 3)
    torch.testing.assert_close(run.picture.float() / 255, portrait[0], atol=1e-6, rtol=0)
    assert run.drift.likeness is None
    pictures(kit, run, kit.vae)
    assert run.drift.lowest() <= run.drift.likeness <= 1


def test_a_photographs_face_is_drawn_from_it_unless_that_is_off(
    sub: Any, kit: Any, make_vae: Any, photograph: Tensor
) -> None:
    vae = make_vae(True)
    blink = torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None]
    curves = sub("letstalk_core.sampling.motion_curves").MotionCurves.of_frames(blink, ["blink"])
    moves = sub("letstalk_core.sampling.motion").Movement(["blink"], seed=0, curves=curves)

    def run() -> Any:
        return replace(with_picture(kit, 4, photograph), moves=moves)

    plain = pictures(kit, run(), vae, detail="portrait size")  # no lips yet
    save_lips(sub, vae, run().track)
    assert torch.equal(pictures(kit, run(), vae, detail="portrait size", puppet=False), plain)
    frames = (pictures(kit, run(), vae, detail="portrait size") * 255).round().to(torch.uint8)
    find = sub("letstalk_core.media.portrait.find").find_face
    openings = [sum(find(frame).eye_openings) for frame in frames]
    assert max(openings[2:]) < 0.7 * min(openings[:2])


def test_a_photographs_clips_are_steadied_and_decoded_once(
    sub: Any, kit: Any, make_vae: Any, photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = make_vae(True)
    save_lips(sub, vae, prepare(kit, 40).track)
    decode, seen = type(vae).decode, []

    def counted(self: Any, latents: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(latents)
        found: Tensor = decode(self, latents, *args, **kwargs)
        return found

    monkeypatch.setattr(type(vae), "decode", counted)
    clips = []
    for puppet in (False, True):
        seen.clear()
        pictures(kit, with_picture(kit, 40, photograph), vae, puppet=puppet)
        clips.append([z for z in seen if z.ndim == 5 and z.shape[2] > 1])
    assert [z.shape for z in clips[0]] == [z.shape for z in clips[1]] and len(clips[0]) > 1
    assert all(torch.equal(a[:, :, -1], b[:, :, -1]) for a, b in zip(*clips, strict=True))
    assert not torch.equal(clips[0][1][:, :, 0], clips[1][1][:, :, 0])
