"""Runs that carry the portrait's own detail: where the model has masks, at any size, resumed to the same."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from letstalk_core.cli.__main__ import main
from letstalk_core.errors import CheckpointError, ConfigError
from letstalk_core.generate import detail, talking_portrait
from letstalk_core.generate.settings import GenerateSettings
from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.generate.talking_portrait import TalkingPortrait
from letstalk_core.generate.work_folder import WorkFolder
from letstalk_core.media.audio.decode import load_waveform
from letstalk_core.media.portrait.crop import CropTransform
from letstalk_core.media.portrait.find import Face, find_face
from letstalk_core.media.portrait.image import load_portrait, save_image
from letstalk_core.media.portrait.scene import Scene
from letstalk_core.networks.carry import Carry, CarryMaps, CarryReference
from letstalk_core.networks.checkpoint import save_checkpoint
from letstalk_core.networks.configs import CarryConfig
from letstalk_core.networks.load import DEMO_FOLDER, load_bundle
from letstalk_core.sampling.motion_curves import MotionCurves

from .command import Cli
from .media import read_frames

FAST = GenerateSettings(steps=1, seed=3)
PORTRAIT = torch.arange(80 * 64 * 3).remainder(253).to(torch.uint8).view(80, 64, 3)


@pytest.fixture(scope="session")
def masked_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with masks that take all of the portrait's detail."""
    folder = tmp_path_factory.mktemp("masked") / "model"
    shutil.copytree(tiny_bundle, folder)
    carry = Carry(CarryConfig(hidden_size=4, working_size=32))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        carry.init_weights()
    for out in (carry.correct_out, carry.masks_out):
        torch.nn.init.zeros_(out.weight)
    carry.masks_out.bias.data = torch.full((8,), 20.0)
    save_checkpoint(folder / "carry.safetensors", {"carry": (carry.config, carry.state_dict())})
    return folder


def video(folder: Path, settings: GenerateSettings = FAST, seconds: float = 0.4, **options: Any) -> Tensor:
    t = torch.arange(round(seconds * 16000)) / 16000
    sink = KeptFrames()
    sound = 0.3 * torch.sin(900 * t) * torch.sin(7 * t)
    TalkingPortrait(load_bundle(folder)).generate(PORTRAIT, sound, sink, settings, **options)
    return sink.video


def off(frames: Tensor, portrait: Tensor) -> float:
    return float((frames.float() - portrait.float()).abs().mean())


def test_it_is_on_by_default_and_switched_off(masked_bundle: Path, tiny_bundle: Path) -> None:
    plain = video(tiny_bundle)
    assert torch.equal(video(masked_bundle, replace(FAST, carry=False)), plain)
    carried = video(masked_bundle)
    assert carried.shape == plain.shape
    wanted = PORTRAIT[8:72]  # its middle
    small = torch.nn.functional.interpolate(wanted.movedim(-1, 0)[None].float(), size=32, mode="area")[0].movedim(
        0, -1
    )
    assert off(carried, small) < off(plain, small)  # all masks are open: the portrait's pixels


def test_references_give_detail_and_belong_to_the_run(
    masked_bundle: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faces are not looked for here: pictures of noise are framed alike already."""
    monkeypatch.setattr(talking_portrait, "align_references", lambda pictures, _: list(pictures.values()))
    other = PORTRAIT.flip(1).contiguous()
    alone, both = video(masked_bundle), video(masked_bundle, references=[other])
    assert not torch.equal(alone, both)
    work = WorkFolder(tmp_path / "work", keep=True)
    assert torch.equal(video(masked_bundle, references=[other], work=work), both)
    with pytest.raises(ConfigError, match="differs in references"):
        video(masked_bundle, references=[PORTRAIT], work=WorkFolder(tmp_path / "work", keep=True))
    for folder, settings in ((tiny_bundle, FAST), (masked_bundle, replace(FAST, carry=False))):
        with pytest.raises(ConfigError, match=r"references: are read by carry only; use a model with carry\.safe"):
            video(folder, settings, references=[other])


def test_the_result_does_not_depend_on_how_many_frames_are_decoded_at_once(masked_bundle: Path) -> None:
    whole, single = (
        video(masked_bundle, replace(FAST, output_size=(64, 64), decode_batch=n)).int() for n in (8, 1)
    )
    assert int((whole - single).abs().max()) <= 1  # sums of other batches are rounded in another order


def test_sizes_need_masks_and_the_shape_of_the_frames(masked_bundle: Path, tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="output size 64x64: frames have 32x32"):
        video(tiny_bundle, replace(FAST, output_size=(64, 64)))
    with pytest.raises(ConfigError, match="output size 64x64"):
        video(masked_bundle, replace(FAST, output_size=(64, 64), carry=False))
    with pytest.raises(ConfigError, match="output size 64x48 is of another shape"):
        video(masked_bundle, replace(FAST, output_size=(48, 64)))


def test_the_bundle_says_which_masks_it_has(masked_bundle: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    assert load_bundle(tiny_bundle).carry is None
    assert set(load_bundle(masked_bundle).hashes()) - set(load_bundle(tiny_bundle).hashes()) == {"carry"}
    broken = tmp_path / "broken"
    shutil.copytree(masked_bundle, broken)
    shutil.copy(broken / "autoencoder.safetensors", broken / "carry.safetensors")
    with pytest.raises(CheckpointError, match="not a model of kind 'carry'"):
        load_bundle(broken)


@pytest.mark.parametrize(
    ("options", "size"),
    [([], (32, 32)), (["--size", "64"], (64, 64)), (["--size", "own"], (40, 40)), (["--size", "24x32"], (32, 24))],
)
def test_the_command_writes_the_size_asked_for(
    cli: Cli, masked_bundle: Path, options: list[str], size: tuple[int, int]
) -> None:
    assert cli(0.2, "--json", *options, model=masked_bundle) == 0
    assert read_frames(cli.out / "v.mp4").shape == (5, *size, 3)
    told = json.loads(cli.capsys.readouterr().out)
    assert (told["height"], told["width"]) == size
    assert told["settings"]["carry"] is True


def test_own_size_needs_masks(cli: Cli, masked_bundle: Path) -> None:
    for folder, options in ((cli.bundle, []), (masked_bundle, ["--no-carry"])):
        assert cli(0.2, "--size", "own", *options, model=folder) == 2
        cli.error("--size own: needs a model folder with carry.safetensors")
    assert cli.left() == []


def test_what_goes_back_into_a_picture_has_its_pixels(
    masked_bundle: Path, make_wav: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing moves and masks are open, the face's part comes back as it was, which 32 px could not hold."""

    def still(self: Carry, frames: Tensor, reference: CarryReference, layers: object) -> CarryMaps:
        return CarryMaps(torch.zeros(len(frames), 2, 16, 16), torch.ones(len(frames), 2, 32, 32))

    monkeypatch.setattr(Carry, "estimate", still)
    picture = torch.randint(0, 256, (96, 120, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    save_image(tmp_path / "picture.png", picture)
    crop = CropTransform(x0=30, y0=20, x1=90, y1=80, image_height=96, image_width=120, height=32, width=32)
    monkeypatch.setattr(Scene, "find", classmethod(lambda cls, image, *_: cls(image, crop)))
    sound, frames = make_wav(0.12), tmp_path / "frames"
    options = ["--steps", "1", "--device", "cpu", "--quiet", "--model", str(masked_bundle)]
    command = ["generate", str(tmp_path / "picture.png"), str(sound), *options]
    assert main([*command, "--png", str(frames)]) == 0
    assert main([*command, "--png", str(tmp_path / "plain"), "--no-carry"]) == 0
    carried, plain = (load_portrait(sorted((tmp_path / name).glob("*.png"))[0]) for name in ("frames", "plain"))
    assert carried.shape == plain.shape == picture.shape
    assert off(carried[:20], picture[:20]) == 0  # outside of the crop
    inside = (slice(30, 70), slice(40, 80))
    assert off(carried[inside], picture[inside]) < 1 < 20 < off(plain[inside], picture[inside])
    assert main([*command, "--png", str(tmp_path / "face"), "--crop-face", "--size", "own"]) == 0
    assert load_portrait(sorted((tmp_path / "face").glob("*.png"))[0]).shape == (60, 60, 3)


def test_a_stopped_run_goes_on_to_the_same_file(
    cli: Cli, masked_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, video = cli.make_wav(4.4), cli.out / "v.mp4"
    options = ("--size", "64", "--quiet")
    assert cli(sound, *options, model=masked_bundle) == 0
    whole = video.read_bytes()
    video.unlink()
    own, calls = Carry.forward, []

    def failing(self: Carry, *arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == math.ceil(0.7 * 110 / 4):
            raise RuntimeError("killed")
        return own(self, *arguments)

    monkeypatch.setattr(Carry, "forward", failing)
    assert cli(sound, *options, model=masked_bundle) == 1
    monkeypatch.setattr(Carry, "forward", own)
    assert cli.left() == ["v.mp4.work"]
    assert cli(sound, *options, model=masked_bundle) == 0
    assert video.read_bytes() == whole


def told_eyes_and_hello(name: str, puppet: bool) -> Tensor:
    """What a bundled portrait does when it says the bundled sentence, eyes shut from its 24th frame on."""
    (portrait,) = (DEMO_FOLDER / "portraits").glob(f"{name}.*")
    blink = (torch.arange(40) >= 24).float()[:, None]
    sink = KeptFrames()
    TalkingPortrait(load_bundle()).generate(
        load_portrait(portrait),
        load_waveform(DEMO_FOLDER / "speech" / "hello.wav")[: 40 * 640],
        sink,
        GenerateSettings(seed=1, movement=0, puppet=puppet),
        motion=MotionCurves.of_frames(blink, ["blink"]),
    )
    return sink.video


def test_the_face_of_a_photograph_is_its_own_and_says_what_is_heard() -> None:
    frames = told_eyes_and_hello("eva", puppet=True)
    faces = [find_face(frame) for frame in frames]
    openings = [sum(face.eye_openings) for face in faces]
    assert sum(openings[30:]) / 10 < 0.6 * sum(openings[4:20]) / 16
    assert max(face.mouth_opening for face in faces) > min(face.mouth_opening for face in faces) + 0.06
    assert off(frames, told_eyes_and_hello("eva", puppet=False)) > 0.2


def test_a_drawn_face_is_as_the_model_makes_it() -> None:
    assert torch.equal(told_eyes_and_hello("ada", puppet=True), told_eyes_and_hello("ada", puppet=False))


def test_a_painting_is_drawn_from_itself_as_a_photograph_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def painted(image: Tensor) -> Face:
        face = find_face(image)
        return replace(face, qualities=face.qualities | {"drawn": 0.75})

    made = told_eyes_and_hello("eva", puppet=True)
    monkeypatch.setattr(detail, "find_face", painted)
    assert torch.equal(told_eyes_and_hello("eva", puppet=True), made)
