"""The command line from the outside: exit codes, what is printed, what is left on the disk."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from letstalk_core.cli.__main__ import main
from letstalk_core.media.portrait.image import load_portrait
from letstalk_core.networks.load import DEMO_FOLDER

Wav = Callable[..., Path]
FAST = ["--steps", "1", "--device", "cpu", "--no-crop"]  # the tests' pictures have no faces


class Cli:
    """`letstalk generate` of a small portrait and a tone, or of what is given, into the empty folder `out`."""

    def __init__(self, portrait: Path, make_wav: Wav, out: Path, bundle: Path, capsys: Any) -> None:
        self.portrait, self.make_wav, self.out, self.bundle, self.capsys = portrait, make_wav, out, bundle, capsys

    def __call__(
        self, sound: float | Path, *options: str, fast: Any = FAST, video: bool = True, **files: Path
    ) -> int:
        sound = self.make_wav(sound) if isinstance(sound, float) else sound
        portrait, model = files.get("portrait", self.portrait), files.get("model", self.bundle)
        output = ["-o", str(self.out / "v.mp4")] if video else []
        return main(["generate", str(portrait), str(sound), *output, "--model", str(model), *fast, *options])

    def error(self, *words: str) -> None:
        """Stderr is one line that says "error:" and the words, beside notes; stdout is empty."""
        captured = self.capsys.readouterr()
        lines = [line for line in captured.err.strip().splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1 and lines[0].startswith("error: "), captured.err
        assert all(word in lines[0] for word in words), captured.err
        assert captured.out == ""

    def left(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir())


@pytest.fixture
def cli(portrait_png: Path, make_wav: Wav, tmp_path: Path, tiny_bundle: Path, request: Any) -> Cli:
    (tmp_path / "out").mkdir()
    captured = request.getfixturevalue("capfd" if "capfd" in request.fixturenames else "capsys")
    return Cli(portrait_png, make_wav, tmp_path / "out", tiny_bundle, captured)


def video_frames(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def stop_after(clips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C when so many clips are done."""
    from letstalk_core.cli.progress import ProgressLine

    def press(self: ProgressLine, now: Any) -> None:
        if now.clip == clips and now.step == 0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProgressLine, "__call__", press)


# ---- what works


def test_generate_writes_a_video_with_sound_and_says_what_it_is(cli: Cli) -> None:
    import av

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
    from letstalk_core.generate.talking_portrait import GenerateSettings

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
    from PIL import Image

    with Image.open(next((cli.out / "f").glob("*.png"))) as image:
        assert image.size == (16, 24)


def test_an_existing_video_is_replaced_only_when_asked(cli: Cli) -> None:
    (cli.out / "v.mp4").write_text("precious")
    assert cli(0.1) == 2
    cli.error("v.mp4", "--overwrite")
    assert (cli.out / "v.mp4").read_text() == "precious"
    assert cli(0.1, "--overwrite") == 0
    assert video_frames(cli.out / "v.mp4") == 2


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
    assert cli(wav, "--png", str(whole)) == 0
    (cli.out / "v.mp4").unlink()
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        assert cli(wav, "--resume", "--png", str(resumed)) == 130
    assert (cli.out / "v.mp4.work").is_dir() and video_frames(cli.out / "v.mp4") == 12
    assert cli(wav, "--resume", "--png", str(resumed)) == 0
    assert cli.left() == ["v.mp4"] and video_frames(cli.out / "v.mp4") == 25
    from PIL import Image

    for path in whole.glob("*.png"):
        with Image.open(path) as a, Image.open(resumed / path.name) as b:
            assert a.tobytes() == b.tobytes()


def test_the_program_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "letstalk_core.cli.__main__", "generate", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert result.returncode == 0 and "--cfg-audio" in result.stdout


# ---- bad sound


def _nan_wav(path: Path) -> None:
    samples = struct.pack("<1600f", *[0.1] * 800, *[float("nan")] * 800)
    fmt = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(samples)) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def _samples_wav(path: Path, count: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"\1\0" * count)


def _silent_video(path: Path) -> None:
    from letstalk_core.media.video.writer import VideoWriter

    with VideoWriter(path.with_suffix(".mp4"), 25, (16, 16)) as writer:
        writer.write(torch.zeros(3, 16, 16, 3, dtype=torch.uint8))
    path.with_suffix(".mp4").replace(path)


BAD_SOUND: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a sound"),
    "folder": lambda path: path.mkdir(),
    "no-audio-stream": _silent_video,
    "nan": _nan_wav,
    "no-samples": lambda path: _samples_wav(path, 0),
    "one-sample": lambda path: _samples_wav(path, 1),
}


@pytest.mark.parametrize("case", BAD_SOUND)
def test_bad_sound_gives_one_line_and_leaves_nothing(cli: Cli, case: str, tmp_path: Path) -> None:
    audio = tmp_path / "bad-sound.wav"
    BAD_SOUND[case](audio)
    assert cli(audio, "--contact-sheet", str(cli.out / "s.png")) == 2
    cli.error("bad-sound")
    assert cli.left() == []


# ---- pictures


def _picture(path: Path, mode: str, size: tuple[int, int] = (40, 40), **options: Any) -> None:
    from PIL import Image

    Image.new(mode, size, 90 if mode in ("L", "P", "I;16") else None).save(path, **options)


BAD_PICTURES: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a picture"),
    "folder": lambda path: path.mkdir(),
    "cut-short": lambda path: (_picture(path, "RGB", (300, 300)), path.write_bytes(path.read_bytes()[:200])),
    "1x1": lambda path: _picture(path, "RGB", (1, 1)),
    "20000-wide": lambda path: _picture(path, "RGB", (20_000, 20)),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_bad_picture_gives_one_line_and_leaves_nothing(cli: Cli, case: str, tmp_path: Path) -> None:
    portrait = tmp_path / "bad-picture.png"
    BAD_PICTURES[case](portrait)
    assert cli(0.2, portrait=portrait) == 2
    cli.error("bad-picture")
    assert cli.left() == []


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "I;16"])
def test_pictures_of_every_common_kind_are_taken(cli: Cli, mode: str, tmp_path: Path) -> None:
    _picture(tmp_path / "picture.png", mode)
    assert cli(0.1, portrait=tmp_path / "picture.png") == 0


SCENE = DEMO_FOLDER / "scenes" / "studio.png"


CROP = ["--steps", "1", "--device", "cpu"]


def test_the_face_of_a_picture_is_animated_and_pasted_back(cli: Cli) -> None:
    import av

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

    monkeypatch.setattr("letstalk_core.media.portrait.detect.KorniaFaceDetector", Detector)
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


# ---- bad models


def _replace(folder: Path, name: str, content: bytes) -> None:
    (folder / name).unlink()
    (folder / name).write_bytes(content)


def _foreign(folder: Path) -> None:
    from safetensors.torch import save

    _replace(folder, "dit.safetensors", save({"x": torch.zeros(3)}))


def _misfit(folder: Path) -> None:
    """The config in the header describes another network than the tensors."""
    content = (folder / "dit.safetensors").read_bytes()
    assert content.count(b'\\"depth\\": 1') == 1
    _replace(folder, "dit.safetensors", content.replace(b'\\"depth\\": 1', b'\\"depth\\": 2'))


BAD_MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda f: (f / "dit.safetensors").unlink(), "lacks dit.safetensors"),
    "empty": (lambda f: _replace(f, "dit.safetensors", b""), "dit.safetensors"),
    "cut-short": (
        lambda f: _replace(f, "dit.safetensors", (f / "dit.safetensors").read_bytes()[:-100]),
        "cut short",
    ),
    "text": (lambda f: _replace(f, "dit.safetensors", b"<html>not found</html>"), "dit.safetensors"),
    "foreign": (_foreign, "no LetsTalk config"),
    "another-kind": (
        lambda f: _replace(f, "dit.safetensors", (f / "autoencoder.safetensors").read_bytes()),
        "not a model of kind",
    ),
    "misfit": (_misfit, "tensors missing"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_gives_one_line_and_leaves_nothing(cli: Cli, case: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in cli.bundle.iterdir():
        (folder / file.name).symlink_to(file)
    spoil, words = BAD_MODELS[case]
    spoil(folder)
    assert cli(0.2, model=folder) == 2
    cli.error(words)
    assert cli.left() == []


# ---- bad settings and outputs


@pytest.mark.parametrize(
    "options",
    [
        ["--steps", "0"],
        ["--steps", "many"],
        ["--solver", "magic"],
        ["--solver", "ddpm"],
        ["--fps", "0"],
        ["--fps", "nan"],
        ["--size", "33"],
        ["--size", "0"],
        ["--size", "wide"],
        ["--cfg-audio", "-1"],
        ["--memory-noise", "2"],
        ["--movement", "2.5"],
        ["--shift", "0"],
        ["--threads", "0"],
        ["--device", "cuda:99"],
        ["--device", "toaster"],
        ["--model", "/nonexistent"],
        ["--no-such-option"],
    ],
    ids=" ".join,
)
def test_impossible_options_give_one_line_and_leave_nothing(cli: Cli, options: list[str]) -> None:
    try:
        code = cli(0.2, *options)
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    assert code == 2
    cli.error()
    assert cli.left() == []


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("missing/v.mp4", "does not exist"),
        ("v.avi", ".mp4"),
        ("folder.mp4", "is a folder"),
        ("file/v.mp4", "does not exist"),
    ],
)
def test_an_impossible_output_is_refused_before_any_work(cli: Cli, target: str, words: str) -> None:
    (cli.out / "folder.mp4").mkdir()
    (cli.out / "file").touch()
    assert cli(0.2, "-o", str(cli.out / target), video=False) == 2
    cli.error(words)
    assert cli.left() == ["file", "folder.mp4"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs permissions that bind")
def test_a_folder_without_permission_is_refused(cli: Cli) -> None:
    cli.out.chmod(0o500)
    assert cli(0.2) == 2
    cli.error("not writable")


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_disk_that_fills_up_half_way_keeps_what_is_done_and_says_how_much_is_missing(
    cli: Cli, capfd: pytest.CaptureFixture[str]
) -> None:
    import resource

    wav, before = cli.make_wav(8.0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        code = cli(wav, "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(r"About [\d.]+ kB are needed for the \d+ of 200 frames", errors[0])
    assert cli.left() == ["v.mp4.work"]
    assert cli(wav) == 0
    assert "continues from" in capfd.readouterr().err
    assert video_frames(cli.out / "v.mp4") == 200 and cli.left() == ["v.mp4"]


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_disk_that_is_full_from_the_start_leaves_nothing(cli: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    import resource

    wav, before = cli.make_wav(1.0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        code = cli(wav, "--quiet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2 and cli.left() == []


def test_a_continued_run_uses_the_threads_that_it_began_with(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    wav, before, used = cli.make_wav(1.0), torch.get_num_threads(), []
    from letstalk_core.sampling.clip import SolverClipSampler

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


# ---- drift and signing


def test_drift_is_reported_and_drawn(cli: Cli) -> None:
    options = ["--json", "--drift-plot", str(cli.out / "d.png"), "--drift-level", "0.9"]
    assert cli(1.0, *options) == 0
    captured = cli.capsys.readouterr()
    drift = json.loads(captured.out)["drift"]
    assert drift["level"] == 0.9 and len(drift["identity"]) == 7 and drift["lowest"] < 0.9
    assert drift["re_anchored"] and f"re-anchored after {len(drift['re_anchored'])} of 7 clips" in captured.err
    assert "likeness 0." in captured.err
    from PIL import Image

    with Image.open(cli.out / "d.png") as image:
        assert image.size == (960, 360)
    assert cli(1.0, "--json", "--overwrite") == 0
    captured = cli.capsys.readouterr()
    plain = json.loads(captured.out)["drift"]
    assert plain["level"] == 0 and plain["re_anchored"] == [] and "likeness" not in captured.err
    assert plain["identity"][0] == drift["identity"][0] and plain["identity"] != drift["identity"]


def test_signing_needs_certificate_key_and_video(cli: Cli) -> None:
    assert cli(0.1, "--sign", "chain.pem") == 2
    cli.error("--sign CERT", "--sign-key KEY")
    assert cli.left() == []


def test_a_video_is_signed_when_it_is_joined_and_again_after_a_retake(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from letstalk_core.media.video import content_credentials

    signed: list[tuple[int, int]] = []

    class Signer:
        def __init__(self, certificate: Path, key: Path) -> None:
            assert (certificate.name, key.name) == ("chain.pem", "signer.key")

        def sign(self, path: Path, details: dict[str, Any], title: str | None = None) -> None:
            assert title == "v.mp4"
            signed.append((video_frames(path), details["settings"]["steps"]))

    monkeypatch.setattr(content_credentials, "ContentSigner", Signer)
    wav, sign = cli.make_wav(1.0), ("--sign", "chain.pem", "--sign-key", "signer.key", "--keep-work")
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        assert cli(wav, *sign) == 130
    assert cli(wav, *sign) == 0
    assert signed == [(12, 1), (25, 1)]
    plot = cli.out / "d.png"
    assert cli(wav, *sign, "--retake", "0-0.5", "--drift-plot", str(plot)) == 0
    assert signed[2:] == [(25, 1)] and plot.is_file()


def test_no_video_has_its_name_before_it_is_signed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from letstalk_core.errors import OutputError
    from letstalk_core.media.video import content_credentials

    state: dict[str, Any] = {"works": False}
    details_seen: list[dict[str, Any]] = []

    class Signer:
        def __init__(self, certificate: Path, key: Path) -> None:
            pass

        def sign(self, path: Path, details: dict[str, Any], title: str | None = None) -> None:
            state["there"] = (cli.out / "v.mp4").read_bytes() if (cli.out / "v.mp4").exists() else None
            if not state["works"]:
                raise OutputError(f"{path}: cannot be signed")
            details_seen.append(details)
            with path.open("ab") as file:
                file.write(b"\0\0\0\x0efreesigned")  # a box that players skip

    monkeypatch.setattr(content_credentials, "ContentSigner", Signer)
    wav, sign = cli.make_wav(1.0), ("--sign", "chain.pem", "--sign-key", "signer.key", "--keep-work", "--quiet")
    assert cli(wav, *sign) == 2
    cli.error("cannot be signed")
    assert state["there"] is None and cli.left() == ["v.mp4.work"]
    state["works"] = True
    assert cli(wav, *sign) == 0
    old = (cli.out / "v.mp4").read_bytes()
    assert state["there"] is None and old.endswith(b"signed") and video_frames(cli.out / "v.mp4") == 25
    state["works"] = False
    assert cli(wav, *sign, "--retake", "0-0.5") == 2
    assert state["there"] == old == (cli.out / "v.mp4").read_bytes()
    state["works"] = True
    assert cli(wav, *sign, "--retake", "0-0.5") == 0
    new = (cli.out / "v.mp4").read_bytes()
    assert state["there"] == old and new != old and new.endswith(b"signed")
    assert "retakes" not in details_seen[0]
    assert details_seen[1]["retakes"] == [{"seconds": [0.0, 1.0], "seed": 1}]


def test_a_video_tells_which_seconds_were_made_anew(cli: Cli) -> None:
    from letstalk_core.cli.info import describe

    def told(path: Path) -> Any:
        return describe(path)["metadata"]["letstalk"].get("retakes")

    wav, again = cli.make_wav(5.0), ("--keep-work", "--quiet", "--overwrite")
    assert cli(wav, *again) == 0
    assert told(cli.out / "v.mp4") is None
    for seconds, seed in (("4.5-5", "3"), ("0.3-2", "4"), ("0.3-2", "4")):  # the same once more is no other take
        command = ("--retake", seconds, "--retake-seed", seed, *again)
        assert cli(wav, *command) == 0
    takes = [{"seconds": [3.84, 5.0], "seed": 3}, {"seconds": [0.0, 3.84], "seed": 4}]
    assert told(cli.out / "v.mp4") == takes
    assert main(["info", str(cli.out / "v.mp4")]) == 0
    assert "retakes 1:\n      seconds: 0.0, 3.84\n      seed: 4" in cli.capsys.readouterr().out
    (cli.out / "v.mp4").unlink()  # joined again from the work folder
    assert cli(wav, *again, "--png", str(cli.out / "f")) == 0
    assert told(cli.out / "v.mp4") == takes == told(cli.out / "f" / "frame_000000.png")


def test_a_png_frame_says_how_it_was_made(cli: Cli) -> None:
    assert cli(0.1, "--png", str(cli.out / "f"), "--seed", "5") == 0
    cli.capsys.readouterr()
    assert main(["info", "--json", str(cli.out / "f" / "frame_000000.png")]) == 0
    found = json.loads(cli.capsys.readouterr().out)
    assert (found["width"], found["height"]) == (32, 32)
    metadata = found["metadata"]
    assert metadata["comment"].startswith("AI-generated")
    assert metadata["letstalk"]["settings"]["seed"] == 5
    assert set(metadata["letstalk"]["models_sha256"]) == {"autoencoder", "audio_encoder", "dit"}
    assert metadata["digital_source_type"].endswith("trainedAlgorithmicMedia")


# ---- info and convert


def test_info_shows_models_banks_and_videos(cli: Cli) -> None:
    from letstalk_core.sampling.memory_bank import MemoryBank

    bank = MemoryBank(2, 1)
    bank.reset(torch.zeros(1, 4, 8, 8))
    bank.save(cli.out / "bank.safetensors")
    cli(0.2, "--seed", "77", "--quiet")

    def info(path: Path) -> dict[str, Any]:
        assert main(["info", "--json", str(path)]) == 0
        found: dict[str, Any] = json.loads(cli.capsys.readouterr().out)
        return found

    model = info(cli.bundle / "dit.safetensors")
    assert model["parts"]["dit"]["config"]["clip_frames"] == 4 and set(model["parts"]) == {
        "dit",
        "audio_projection",
    }
    assert model["parameters"] == sum(part["parameters"] for part in model["parts"].values())
    assert info(cli.out / "bank.safetensors")["memory_bank"]["recent"] == 2
    video = info(cli.out / "v.mp4")
    assert video["metadata"]["letstalk"]["settings"]["seed"] == 77
    assert main(["info", str(cli.out / "v.mp4")]) == 0
    assert "seed: 77" in cli.capsys.readouterr().out


def test_info_of_a_damaged_file_gives_one_line(cli: Cli, tmp_path: Path) -> None:
    for name in ("x.safetensors", "x.mp4"):
        (tmp_path / name).write_bytes(b"damaged")
        assert main(["info", str(tmp_path / name)]) == 2
        cli.error(name)


@pytest.mark.parametrize("header", ["{", "[1]", "[" * 9999])
def test_info_of_a_damaged_memory_bank_gives_one_line(cli: Cli, header: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "bank.safetensors", metadata={"letstalk.memory_bank": header})
    assert main(["info", str(tmp_path / "bank.safetensors")]) == 2
    cli.error("bank.safetensors: is a damaged memory bank")


def test_info_shows_notes_about_a_model(cli: Cli, tmp_path: Path) -> None:
    from letstalk_core.networks.checkpoint import save_checkpoint
    from letstalk_core.networks.presets import DIT

    parts = {"dit": (DIT["demo"], {"weight": torch.zeros(1)})}
    save_checkpoint(tmp_path / "dit.safetensors", parts, {"letstalk.recipe": "demo", "source": "a.pt"})
    assert main(["info", "--json", str(tmp_path / "dit.safetensors")]) == 0
    assert json.loads(cli.capsys.readouterr().out)["metadata"] == {"letstalk.recipe": "demo", "source": "a.pt"}


def test_a_denoiser_of_the_authors_is_converted(cli: Cli, tmp_path: Path) -> None:
    from letstalk_core.networks.load import load_model
    from letstalk_core.networks.transformer.convert import dit_to_official, projection_to_official

    dit = load_model(cli.bundle / "dit.safetensors", "dit")
    projection = load_model(cli.bundle / "dit.safetensors", "audio_projection")
    spoken = {k: v for k, v in projection.state_dict().items() if "movement" not in k}  # theirs knows no movement
    official = {
        "model": {k: torch.zeros_like(v) for k, v in dit_to_official(dit.state_dict(), dit.config).items()},
        "ema": dit_to_official(dit.state_dict(), dit.config),
        "audioproj": projection_to_official(spoken),
    }
    torch.save(official, tmp_path / "official.pt")
    arguments = ["convert", str(tmp_path / "official.pt"), "-o", str(cli.out / "dit.safetensors")]
    assert main(arguments) == 2  # no preset is 16 wide
    cli.error("num_heads")
    assert cli.left() == []


def test_a_wav2vec2_folder_and_an_autoencoder_are_converted(cli: Cli, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from letstalk_core.networks.autoencoder.convert import config_to_diffusers
    from letstalk_core.networks.load import load_model

    for kind in ("audio_encoder", "autoencoder"):
        model = load_model(cli.bundle / f"{kind}.safetensors")
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "autoencoder":
            config = config_to_diffusers(model.config)
        else:
            config = {"model_type": "wav2vec2", **model.config.to_dict()}
        (folder / "config.json").write_text(json.dumps(config))
        save_file(model.state_dict(), str(folder / "model.safetensors"))
        target = cli.out / f"{kind}.safetensors"
        assert main(["convert", str(folder), "-o", str(target), "--dtype", "float16"]) == 0
        again = load_model(target)
        for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3, msg=name)  # stored in float16


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "folder"])
def test_a_source_that_is_no_model_gives_one_line(cli: Cli, name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for file in ("x.pt", "x.safetensors"):
        (tmp_path / file).write_bytes(b"nothing of use")
    assert main(["convert", str(tmp_path / name), "-o", str(cli.out / "m.safetensors")]) == 2
    cli.error(name)
    assert cli.left() == []


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
