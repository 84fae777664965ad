#!/usr/bin/env python3
"""Try LetsTalk, or test it, from a fresh checkout.

    python3 run.py demo [generate options]    a photograph and a drawing talk: out/demo.mp4, out/demo_drawn.mp4
    python3 run.py test [pytest options]      run all in two processes, or e.g. python3 run.py test -k memory_bank

What is needed is installed once, into .venv beside this file; a Python that has it all already is used as it is.
"""
# Standard library only, in the syntax of Python 3.6: an old Python must be able to read this file and say so.

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import List, Optional, Sequence

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
CACHE = Path.home() / ".cache" / "letstalk" / "ComfyUI"
COMFYUI_URL = "https://github.com/comfyanonymous/ComfyUI"
COMFYUI_COMMIT = "a125cd84b054a57729b5eecab930ca9408719832"  # 0.3.64, the oldest version the pack supports


class Stop(Exception):
    """Nothing more can be done; the message says what is wrong and what helps."""


def read_lines(*paths: Path) -> List[str]:
    """Lines of those of these files that are there, without comments."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.exists())
    return list(filter(None, (line.split("#")[0].strip() for line in text.splitlines())))


def has(python: str, requirements: Sequence[str]) -> bool:
    """Whether a Python has all of this; pip looks, installs nothing and asks no index."""
    pip = [python, "-m", "pip", "install", "--isolated", "--dry-run", "--no-index", "--no-deps", *requirements]
    return subprocess.call(pip, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def make_venv() -> None:
    """Make .venv unless it is there. Raises: Stop."""
    probe = [PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]
    if Path(PYTHON).exists() and subprocess.call(probe) == 0:
        return
    if VENV.exists() and any(VENV.iterdir()):
        raise Stop(f"{VENV} holds no Python of 3.10 or newer that starts; move it away and run again")
    if shutil.disk_usage(str(ROOT)).free < 3e9:  # PyTorch for a CPU; with CUDA it takes 8
        raise Stop(f"not enough disk space in {ROOT}: 3 to 8 GB are needed; make room")
    print("run.py: making .venv; the first time takes minutes", flush=True)
    if subprocess.call([sys.executable, "-m", "venv", str(VENV)]):
        shutil.rmtree(str(VENV), ignore_errors=True)
        raise Stop(f"could not make {VENV}; on Ubuntu this helps: sudo apt install python3-venv")


def install(name: str, requirements: Sequence[str], without: str = "") -> None:
    """Bring .venv to the tested versions, once for each name; go on `without` if that may fail. Raises: Stop."""
    stamp, names = VENV / f"{name}.installed", {re.split(r"[^\w.-]", line)[0].lower() for line in requirements}
    hashes = [line for line in read_lines(ROOT / "hashes.txt") if line.partition("==")[0].lower() in names]
    asked = "\n".join([*requirements, *read_lines(ROOT / "constraints.txt"), *hashes])
    if stamp.exists() and stamp.read_text(encoding="utf-8") == asked:
        return
    if stamp.exists() or not has(PYTHON, requirements):  # what was installed by hand stays as it is
        print(f"run.py: installing what `{name}` needs into .venv", flush=True)
        (VENV / "hashes.txt").write_text("\n".join(hashes), encoding="utf-8")
        exact = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(VENV / "hashes.txt")]
        calls = [exact] * bool(hashes) + [["-c", str(ROOT / "constraints.txt"), *requirements]]
        subprocess.call([PYTHON, "-m", "ensurepip"], stdout=subprocess.DEVNULL)  # some tools leave pip out
        if any(subprocess.call([PYTHON, "-m", "pip", "install", *call], cwd=str(ROOT)) for call in calls):
            if without:
                return print(f"run.py: pip failed; going on without {without}", flush=True)
            raise Stop("pip failed, see above; check network (HTTPS_PROXY, PIP_INDEX_URL) and disk (3 to 8 GB)")
    stamp.write_text(asked, encoding="utf-8")


def find_comfyui(fetch: bool = False) -> Optional[Path]:
    """A ComfyUI checkout: $COMFYUI_PATH, else the pinned one, fetched before or now. Raises: Stop."""
    folder = Path(os.environ.get("COMFYUI_PATH") or CACHE).expanduser()
    if (folder / "main.py").is_file() and (folder / "comfy").is_dir():
        return folder
    if folder != CACHE:
        raise Stop(f"COMFYUI_PATH={folder} is not a ComfyUI folder (main.py, comfy/); correct it or unset it")
    if not fetch:
        return None
    partial, environment = CACHE.with_name("ComfyUI.partial"), {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    fetching = "-c http.lowSpeedLimit=1000 -c http.lowSpeedTime=20 fetch -q --depth 1".split()
    try:
        partial.mkdir(parents=True, exist_ok=True)
        for step in (["init", "-q"], [*fetching, COMFYUI_URL, COMFYUI_COMMIT], ["checkout", "-qf", "FETCH_HEAD"]):
            subprocess.run(["git", *step], cwd=str(partial), check=True, timeout=300, env=environment)
        return partial.rename(CACHE) and CACHE
    except (OSError, subprocess.SubprocessError):
        print(f"run.py: no {COMFYUI_URL}, going on without; COMFYUI_PATH names a checkout", flush=True)
        return None


def prepare(command: str) -> str:
    """The Python that runs the command, with all that it needs. Raises: Stop."""
    requirements = read_lines(ROOT / "requirements.txt", *[ROOT / "requirements-test.txt"] * (command == "test"))
    if os.path.realpath(sys.prefix) != os.path.realpath(str(VENV)) and has(sys.executable, requirements):
        return sys.executable
    make_venv()
    install(command, requirements)
    if command == "test":
        if not (shutil.which("espeak-ng") or shutil.which("espeak")):
            install("espeak-ng", ["espeakng-loader>=0.2"], "tests that let espeak-ng speak")
        comfyui = find_comfyui(fetch=True)
        if comfyui:
            install("ComfyUI", read_lines(comfyui / "requirements.txt"), "tests inside ComfyUI")
    return PYTHON


def main(arguments: Sequence[str]) -> int:
    command, options = (arguments or ["help"])[0], arguments[1:]
    if command in ("-h", "--help", "help"):
        return print(__doc__) or 0
    if command not in ("demo", "test"):
        raise Stop(f"unknown command {command!r}; known are demo and test, see: python3 run.py --help")
    if sys.version_info < (3, 10):
        newer = next(filter(shutil.which, ("python3.12", "python3.11", "python3.13", "python3.10")), None)
        remedy = f"run: {newer} run.py {command}" if newer else "install Python 3.10 to 3.13"
        raise Stop(f"LetsTalk needs Python 3.10 or newer, this is {sys.version.split()[0]}; {remedy}")
    calls, out = [["pytest", *(options or ["-n", "2"])]] * (command == "test"), str(ROOT / "out" / "demo")
    if command == "demo":
        names = "portraits/eva.jpg portraits/ada.png speech/hello.wav dit.safetensors".split()
        eva, ada, speech, _ = files = [str(ROOT / "letstalk_core" / "demo" / name) for name in names]
        if not all(map(os.path.isfile, files)):
            raise Stop(f"the demo model in {ROOT / 'letstalk_core'} is not complete; clone the repository again")
        (ROOT / "out").mkdir(exist_ok=True)
        generate = "letstalk_core.cli.__main__ generate --overwrite --contact-sheet".split()
        for face, name in ((eva, out), (ada, out + "_drawn")):
            calls.append([*generate, f"{name}.png", "-o", f"{name}.mp4", face, speech, *options])
    python, code = prepare(command), 0
    os.environ.pop("PYTHONSAFEPATH", None)  # what runs is in this folder
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the child as well, which ends in its own time
    while calls and code == 0:
        code = subprocess.call([python, "-m", *calls.pop(0)], cwd=str(ROOT))
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Stop, KeyboardInterrupt) as reason:
        print(f"run.py: {reason or 'interrupted; run it again to go on'}", flush=True)
        sys.exit(2 if str(reason) else 130)
