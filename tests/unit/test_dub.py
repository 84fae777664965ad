"""Dubbing: which frames are shown, where mouths go, and whole runs with networks of a few weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from letstalk_core.errors import ConfigError, FaceNotFoundError, MediaError
from letstalk_core.generate.dub import Shots, output_frames
from letstalk_core.generate.dubbing import Dubbing
from letstalk_core.generate.settings import GenerateSettings
from letstalk_core.generate.sinks import KeptFrames
from letstalk_core.generate.work_folder import WorkFolder
from letstalk_core.media.filmed_motion import COLUMN, MEASURES, FilmedFaces
from letstalk_core.media.portrait.crop import CropTransform
from letstalk_core.media.portrait.face_geometry import fit_head
from letstalk_core.media.portrait.find import default_finder, find_face
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.media.portrait.mouth_blend import HeadPlace, MouthBlend
from letstalk_core.media.video.film import Film, back_and_forth
from letstalk_core.media.video.reader import read_video
from letstalk_core.media.video.segments import SegmentedVideo
from letstalk_core.networks.face_points import LIPS
from letstalk_core.networks.load import DEMO_FOLDER, ModelBundle, load_bundle
from letstalk_core.networks.motion_channels import MOVEMENTS
from letstalk_research.evaluation.bundle_subject import BundleSubject
from letstalk_research.evaluation.face_curves import FinderReader
from letstalk_research.evaluation.film_suites import run_dub
from tests.unit.conftest import write_video

FPS = 25.0
PORTRAITS = sorted((DEMO_FOLDER / "portraits").glob("*.png"))
SHOT_A, GREY, SHOT_B = 7, 3, 5  # frames
SOUND = torch.sin(torch.arange(9600) / 20) * torch.sin(torch.arange(9600) / 3000) / 2  # 15 frames


@given(frames=st.integers(1, 50), count=st.integers(0, 300))
def test_back_and_forth_shows_every_frame_and_never_jumps(frames: int, count: int) -> None:
    shown = back_and_forth(frames, count)
    assert len(shown) == count and set(shown) == set(range(min(frames, count)))
    assert all(abs(a - b) == (frames > 1) for a, b in zip(shown, shown[1:], strict=False))


def test_length_is_cut_or_looped_or_an_error() -> None:
    assert output_frames(5, 3, FPS, "cut") == [0, 1, 2] and output_frames(3, 5, FPS, "cut") == [0, 1, 2]
    assert output_frames(3, 6, FPS, "loop") == [0, 1, 2, 1, 0, 1] and output_frames(5, 3, FPS, "loop") == [0, 1, 2]
    assert output_frames(100, 103, FPS, "error") == list(range(100))
    with pytest.raises(ConfigError, match=r"lasts 4\.00 s and the sound 8\.00 s"):
        output_frames(100, 200, FPS, "error")
    with pytest.raises(ConfigError, match="'stretch' is unknown"):
        output_frames(1, 1, FPS, "stretch")


def test_a_film_gives_its_frames_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered = 9 * torch.arange(24, dtype=torch.uint8)[:, None, None, None].expand(-1, 32, 48, 3)
    path = write_video(tmp_path / "f.mp4", numbered)
    whole = list(read_video(path, fps=FPS))
    monkeypatch.setattr("letstalk_core.media.video.film.HELD_BYTES", 5 * whole[0].numel())
    film, numbers = Film(path, FPS), [*back_and_forth(24, 60), 3, 20, 20, 0]
    for number in numbers:
        assert torch.equal(film[[number]][0], whole[number])
    assert [int(f[0, 0, 0]) for f in film[[23, 22]]] == [int(whole[i][0, 0, 0]) for i in (23, 22)]


@pytest.fixture(scope="module")
def blended() -> SimpleNamespace:
    """A portrait, its crop and the blend that pastes mouths of the crop into it."""
    picture, canonical = load_portrait(PORTRAITS[0]), default_finder().networks.canonical
    face = find_face(picture)
    crop = CropTransform.around(face.box, (256, 256), (160, 160), 0.4, 0.09)
    x, y = fit_head(face.points, canonical).shift[:2].tolist()
    home = HeadPlace(x=x, y=y, size=100.0, roll=0.0, yaw=0.0, pitch=0.0)
    blend = MouthBlend(crop, face.points, home, canonical)
    return SimpleNamespace(picture=picture, points=face.points, crop=crop, home=home, blend=blend)


def test_what_was_cut_out_goes_back_unseen_wherever_the_head_is(blended: SimpleNamespace) -> None:
    picture, crop, home, blend = blended.picture, blended.crop, blended.home, blended.blend
    same = blend(picture, crop.apply(picture), home, 0.1, 1.0)
    apart = (same.float() - picture.float()).abs().amax(-1)
    assert apart.mean() < 0.5 and apart.max() < 60  # scaled there and back: edges of a drawing lose a little
    moved = torch.zeros(300, 320, 3, dtype=torch.uint8)
    moved[30:286, 40:296] = picture
    there = dataclasses.replace(home, x=home.x + 40, y=home.y + 30)
    again = blend(moved, crop.apply(picture), there, 0.1, 1.0)[30:286, 40:296]
    assert (again.float() - same.float()).abs().max() <= 2
    large = torch.nn.functional.interpolate(picture.permute(2, 0, 1)[None].float(), scale_factor=2, mode="bicubic")
    large = large[0].permute(1, 2, 0).clamp(0, 255).round().to(torch.uint8)
    near = dataclasses.replace(home, x=2 * home.x, y=2 * home.y, size=200.0)
    assert (blend(large, crop.apply(picture), near, 0.1, 1.0).float() - large.float()).abs().mean() < 0.6


def test_only_the_mouth_changes_and_its_light_is_the_films(blended: SimpleNamespace) -> None:
    picture, points, home, blend = blended.picture, blended.points, blended.home, blended.blend
    made = (blended.crop.apply(picture).float() * 0.9).to(torch.uint8)  # darker, as a model may paint
    found = blend(picture, made, home, 0.0, 1.0)
    changed = (found != picture).any(-1).nonzero()
    eyes = float(points[[33, 263], 1].max())
    assert len(changed) and float(changed[:, 0].min()) > eyes + 5
    lips = points[list(LIPS), :2].round().long()
    apart = (found.float() - picture.float()).abs()[lips[:, 1], lips[:, 0]].mean()
    assert apart < 0.07 * picture[lips[:, 1], lips[:, 0]].float().mean()  # of the 0.1 that was taken
    assert blend(picture, made, home, 0.0, 0.0) is picture
    half = blend(picture, torch.zeros_like(made), home, 0.0, 0.5)
    whole = blend(picture, torch.zeros_like(made), home, 0.0, 1.0)
    lower = half.float() - picture.float(), whole.float() - picture.float()
    assert lower[0].abs().sum() < 0.7 * lower[1].abs().sum()


def test_what_is_beside_and_behind_the_jaw_stays_as_filmed(blended: SimpleNamespace) -> None:
    picture, points = blended.picture, blended.points
    made = 255 - blended.crop.apply(picture)  # as unlike as can be
    middle = float(points[[2, 152], 0].mean())
    for opening, beside in ((0.0, 1.4), (0.5, 1.8)):  # a filmed mouth that is open has a longer jaw
        off = (blended.blend(picture, made, blended.home, opening, 1.0).float() - picture.float()).abs().amax(-1)
        for x, y in points[[136, 150, 379, 365], :2].tolist():  # between ear and chin, both sides
            inside, outside = (round(middle + far * (x - middle)) for far in (0.7, beside))
            assert off[round(y), outside] < 4 < 30 < off[round(y), inside]


@pytest.fixture(scope="module")
def bundle(make_tiny_bundle: Callable[..., Path]) -> ModelBundle:
    return load_bundle(make_tiny_bundle(movement=MOVEMENTS))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, between them a wall."""
    first, second = (load_portrait(PORTRAITS[i])[::2, ::2] for i in (0, 2))
    wall = torch.full_like(first, 90)
    frames = [first] * SHOT_A + [wall] * GREY + [second] * SHOT_B
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", torch.stack(frames))


SETTINGS = GenerateSettings(steps=1)


def test_mouths_change_shot_by_shot_and_all_else_stays(bundle: ModelBundle, film: Path) -> None:
    sink, filmed = KeptFrames(), torch.stack(list(read_video(film, fps=FPS)))
    summary = Dubbing(bundle).dub(film, SOUND, sink, SETTINGS)
    made = sink.video
    assert summary.frames == len(made) == 15 and (summary.height, summary.width) == (128, 128)
    assert summary.clips == 2 + 1 + 2  # of 4 frames, none over a cut
    assert torch.equal(made[SHOT_A : SHOT_A + GREY], filmed[SHOT_A : SHOT_A + GREY])
    changed = (made != filmed).any(-1)
    assert changed[:SHOT_A].flatten(1).any(1).all() and changed[-SHOT_B:].flatten(1).any(1).all()
    for i in (0, 14):
        eyes = find_face(filmed[i]).points[[33, 263], 1].max()
        assert changed[i].any(1).nonzero().min() > eyes


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(
    bundle: ModelBundle, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, progress: Callable[[object], None] | None = None, seed: int = 0) -> bytes:
        video = SegmentedVideo(tmp_path / name, FPS, (128, 128), tmp_path / f"{name}.work", 48, frames=15)
        work = WorkFolder(video.folder, also=video.settings)
        settings = dataclasses.replace(SETTINGS, seed=seed)
        Dubbing(bundle).dub(film, SOUND, video, settings, progress=progress, work=work)
        return (tmp_path / name).read_bytes() if (tmp_path / name).exists() else b""

    class Kill(Exception):
        pass

    def die(now: object) -> None:
        if getattr(now, "clip", 0) >= 3:
            raise Kill

    whole = run("whole.mp4")
    with pytest.raises(Kill):
        run("broken.mp4", die)
    assert (tmp_path / "broken.mp4.work" / "faces.safetensors").is_file()
    with pytest.raises(ConfigError, match="seed"):
        run("broken.mp4", seed=1)
    monkeypatch.setattr("letstalk_core.generate.dub.read_faces", None)  # they are known
    assert run("broken.mp4") == whole and not (tmp_path / "broken.mp4.work").exists()


def test_what_cannot_be_dubbed_is_one_line(
    bundle: ModelBundle, make_tiny_bundle: Callable[..., Path], film: Path, tmp_path: Path
) -> None:
    wall = write_video(tmp_path / "wall.mp4", torch.full((3, 64, 64, 3), 90, dtype=torch.uint8))
    with pytest.raises(FaceNotFoundError, match=r"wall\.mp4: no face"):
        Dubbing(bundle).dub(wall, SOUND, KeptFrames(), SETTINGS)
    still = load_bundle(make_tiny_bundle(movement=()))
    with pytest.raises(ConfigError, match="told how the head moves"):
        Dubbing(still).dub(film, SOUND, KeptFrames(), SETTINGS)


class StillSubject(BundleSubject):
    """Portraits that never move, for the part that does not dub."""

    def generate(self, portrait: Tensor, waveform: Tensor, seed: int, steps: int | None = None) -> Tensor:
        return portrait.expand(round(len(waveform) / 16000 * FPS), -1, -1, -1)


def test_dubbing_is_measured_beside_pasting_on_the_same_landmarks(bundle: ModelBundle, tmp_path: Path) -> None:
    """The film nods: a crop that is pasted where the face is follows it, and dubbing leaves it as it is."""
    picture = load_portrait(PORTRAITS[0])[::2, ::2]
    path = tmp_path / "nod.mp4"
    frames = torch.full((12, 160, 160, 3), 90, dtype=torch.uint8)
    for i, frame in enumerate(frames):
        frame[i : i + 128, 16:144] = picture
    write_video(path, frames, FPS, audio=(SOUND[None, :7680], 16000))
    subject = StillSubject(bundle, SETTINGS)
    report = run_dub(subject, [path], FinderReader(), out_dir=tmp_path / "out")
    found = {name: value.mean for name, value in report.metrics.items()}
    assert found["dubbed: outside the mouth, px"] < 1.5  # of 256, and the film has half of them
    assert 1.5 < found["pasted: outside the mouth, px"] < 10  # from 32 pixels, but where the face is
    assert {"dubbed: opening, film of the sound", "pasted: opening, film of the sound"} <= set(found)
    assert "pasted" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "dub_films_0.png").is_file()
    short = write_video(tmp_path / "film.mp4", picture.expand(7, -1, -1, -1))
    with pytest.raises(MediaError, match=r"film\.mp4: has 7 frames"):
        run_dub(subject, [short], FinderReader(), out_dir=tmp_path / "none")


def test_clips_end_at_cuts_and_turned_heads_keep_their_mouths(bundle: ModelBundle, film: Path) -> None:
    measures = torch.ones(20, len(MEASURES), dtype=torch.float64)
    measures[14:, COLUMN["yaw"]] = 60.0
    faces = FilmedFaces(measures, torch.ones(20), (9,), (128, 128))
    settings = SETTINGS.resolve(bundle)
    shots = Shots(bundle, settings, film, faces, back_and_forth(20, 45))
    plan, cuts = shots.plan(4)
    assert [clip.first for clip in plan if clip.index in cuts] == [0, 9, 30]
    assert sum(clip.count for clip in plan) == 45 and all(clip.count <= 4 for clip in plan)
    assert [shots.is_dubbed(clip) for clip in plan[:6]] == [True, True, True, True, True, False]
    assert math.isclose(float(shots.weights[0]), 1.0) and not shots.weights[14:].any()
