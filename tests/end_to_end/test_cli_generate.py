"""The command line from the outside: exit codes, what is printed, what is left on the disk."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from letstalk_core.cli.__main__ import main
from letstalk_core.generate.talking_portrait import GenerateSettings
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.load import DEMO_FOLDER
from letstalk_core.sampling.clip import SolverClipSampler

from .command import FAST, Cli, stop_after, video_frames


def test_generate_writes_a_video_with_sound_and_says_what_it_is(cli: Cli) -> None:
    code = cli(0.6, "--json", "--contact-sheet", str(cli.out / "s.png"))
    captured = cli.capsys.readouterr()
    assert code == 0
    summary = json.loads(captured.out)
    assert (summary["frames"], summary["seconds"], summary["fps"]) == (15, 0.6, 25.0)
    assert summary["settings"]["steps"] == 1 and len(summary["models"]["dit"]) == 64
    assert "15 frames" in captured.err and "Traceback" not in captured.err
    assert video_frames(cli.out / "v.mp4") == 15
    with av.open(str(cli.out / "v.mp4")) as container:
        assert len(container.streams.audio) == 1
        assert any("AI-generated" in value for value in container.metadata.values())
        assert any(summary["models"]["dit"] in value for value in container.metadata.values())
    assert cli.left() == ["s.png", "v.mp4"]


def test_as_the_authors_do_every_started_frame_counts_and_the_model_may_hear_vocals(cli: Cli) -> None:
    vocals = cli.make_wav(0.61, "vocals.wav")
    assert cli(0.61, "--json", "--as-authors") == 0
    captured = cli.capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["frames"] == 16 and summary["settings"]["as_authors"] and "--vocals FILE" in captured.err
    assert cli(0.61, "--json", "--as-authors", "--vocals", str(vocals), "--overwrite") == 0
    assert "--vocals" not in cli.capsys.readouterr().err
    assert cli(0.61, "--json", "--vocals", str(cli.make_wav(0.9, "other.wav")), "--overwrite") == 2
    cli.error("lasts 0.90 s", "0.61 s")
    assert "as_authors" not in GenerateSettings().to_dict()  # else runs of earlier versions would not go on


def test_quiet_prints_nothing_and_png_frames_can_be_the_only_result(cli: Cli) -> None:
    options = ["--png", str(cli.out / "f"), "--quiet", "--size", "16x24", "--fps", "10"]
    assert cli(0.2, *options, video=False) == 0
    assert cli.capsys.readouterr() == ("", "")
    assert len(list((cli.out / "f").glob("*.png"))) == 2
    with Image.open(next((cli.out / "f").glob("*.png"))) as image:
        assert image.size == (16, 24)


def test_the_bundled_model_says_that_it_is_a_demo(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letstalk_core.networks.load.DEMO_FOLDER", cli.bundle)
    assert main(["generate", str(cli.portrait), str(cli.make_wav(0.1)), "-o", str(cli.out / "v.mp4"), *FAST]) == 0
    assert "demo model" in cli.capsys.readouterr().err


def test_ctrl_c_leaves_a_playable_video_of_what_is_done(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs begin with it ignored
    stop_after(2, monkeypatch)
    assert cli(1.0, "--json") == 130
    assert video_frames(cli.out / "v.mp4") == 8
    assert json.loads(cli.capsys.readouterr().out)["interrupted"] is True
    assert cli.left() == ["v.mp4"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_before_the_first_frame_leaves_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(0, monkeypatch)
    assert cli(0.6, "--steps", "2") == 130
    assert cli.left() == []


def test_resume_continues_to_the_same_frames(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wav = cli.make_wav(1.0)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    falling = ("--cfg-audio", "1.6:1.0")
    assert cli(wav, *falling, "--png", str(whole)) == 0
    (cli.out / "v.mp4").unlink()
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        assert cli(wav, *falling, "--resume", "--png", str(resumed)) == 130
    assert (cli.out / "v.mp4.work").is_dir() and video_frames(cli.out / "v.mp4") == 12
    assert cli(wav, *falling, "--resume", "--png", str(resumed)) == 0
    assert cli.left() == ["v.mp4"] and video_frames(cli.out / "v.mp4") == 25
    for path in whole.glob("*.png"):
        with Image.open(path) as a, Image.open(resumed / path.name) as b:
            assert a.tobytes() == b.tobytes()


def test_the_program_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "letstalk_core.cli.__main__", "generate", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert result.returncode == 0 and "--cfg-audio" in result.stdout


SCENE = DEMO_FOLDER / "scenes" / "studio.png"


CROP = ["--steps", "1", "--device", "cpu"]


def test_the_face_of_a_picture_is_animated_and_pasted_back(cli: Cli) -> None:
    options = ["--png", str(cli.out / "f"), "--json"]
    assert cli(0.1, *options, portrait=SCENE, fast=CROP) == 0
    with av.open(str(cli.out / "v.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (1280, 720)
    frame, picture = load_portrait(sorted((cli.out / "f").iterdir())[0]), load_portrait(SCENE)
    changed = (frame != picture).any(-1)
    assert changed[330:590, 510:770].float().mean() > 0.9 and not changed[:, :250].any()


def test_the_part_around_the_face_can_be_the_video(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    class Detector:
        def __call__(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image)
            return torch.tensor([[10.0, 10.0, 22.0, 24.0, 0.9]])

    monkeypatch.setattr("letstalk_core.cli.inputs.KorniaFaceDetector", Detector)
    options = ["--crop-face", "--face-detector", "yunet", "--png", str(cli.out / "f")]
    assert cli(0.1, *options, fast=CROP) == 0
    assert seen[0].shape == (48, 40, 3) and video_frames(cli.out / "v.mp4") == 2
    assert load_portrait(sorted((cli.out / "f").iterdir())[0]).shape == (32, 32, 3)


def test_a_picture_without_a_face_is_refused_before_anything_is_made(cli: Cli) -> None:
    assert cli(0.1, fast=CROP) == 2
    cli.error("portrait.png", "no face", "--no-crop")
    assert cli(0.1, "--no-crop", "--steps", "1", fast=CROP) == 0
    assert f"note: {cli.portrait}: no face was found" in cli.capsys.readouterr().err
    (cli.out / "v.mp4").unlink()
    assert cli(0.1, "--no-crop", "--crop-face", fast=CROP) == 2
    cli.error("--no-crop and --crop-face")
    assert cli.left() == []


def test_a_continued_run_uses_the_threads_that_it_began_with(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    wav, before, used = cli.make_wav(1.0), torch.get_num_threads(), []
    sample = SolverClipSampler.__call__
    monkeypatch.setattr(
        SolverClipSampler, "__call__", lambda *a, **k: used.append(torch.get_num_threads()) or sample(*a, **k)
    )
    try:
        with monkeypatch.context() as patch:
            stop_after(3, patch)
            assert cli(wav, "--resume", "--threads", "3") == 130
        assert set(used) == {3}
        cli.capsys.readouterr()
        assert cli(wav, "--threads", "2") == 0
        assert set(used) == {3} and "note: uses 3 CPU threads" in cli.capsys.readouterr().err
        assert cli(wav, "--threads", "2", "--overwrite") == 0
        assert used[-1] == 2
    finally:
        torch.set_num_threads(before)


def test_drift_is_reported_and_drawn(cli: Cli) -> None:
    options = ["--json", "--drift-plot", str(cli.out / "d.png"), "--drift-level", "0.9"]
    assert cli(1.0, *options) == 0
    captured = cli.capsys.readouterr()
    drift = json.loads(captured.out)["drift"]
    assert drift["level"] == 0.9 and len(drift["identity"]) == 7 and drift["lowest"] < 0.9
    assert drift["re_anchored"] and f"re-anchored after {len(drift['re_anchored'])} of 7 clips" in captured.err
    assert "likeness 0." in captured.err
    with Image.open(cli.out / "d.png") as image:
        assert image.size == (960, 360)
    assert cli(1.0, "--json", "--overwrite") == 0
    captured = cli.capsys.readouterr()
    plain = json.loads(captured.out)["drift"]
    assert plain["level"] == 0 and plain["re_anchored"] == [] and "likeness" not in captured.err
    assert plain["identity"][0] == drift["identity"][0] and plain["identity"] != drift["identity"]


def test_given_motion_moves_the_face_and_is_part_of_the_run(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, table = cli.make_wav(0.5), cli.out / "motion.csv"
    table.write_text("frame,yaw\n0,0\n12,1.2\n")
    moved = ("--motion", str(table), "--quiet", "--overwrite")
    assert cli(audio, "--quiet") == 0
    drawn = (cli.out / "v.mp4").read_bytes()
    assert cli(audio, *moved) == 0
    first = (cli.out / "v.mp4").read_bytes()
    assert first != drawn
    stop_after(2, monkeypatch)
    assert cli(audio, *moved, "--resume") == 130
    monkeypatch.undo()
    table.write_text("frame,yaw\n0,0\n12,0.6\n")
    cli.capsys.readouterr()
    assert cli(audio, *moved) == 2
    cli.error("differs in motion")
    table.write_text("frame,yaw\n0,0\n12,1.2\n")
    assert cli(audio, *moved) == 0 and (cli.out / "v.mp4").read_bytes() == first
    assert cli(audio, "--emotion", "merry", "--overwrite", "--quiet") == 2
    cli.error("'merry'", "happy")
