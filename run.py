#!/usr/bin/env python3
"""Try LetsTalk, or test it, from a fresh checkout.

    python3 run.py demo [generate options]    make two talking videos with the bundled model, of a person like in a
                                              photograph and of a drawn one: out/demo.mp4 and out/demo_drawn.mp4
    python3 run.py test [pytest options]      run the tests, e.g. python3 run.py test -k memory_bank

What is needed is installed once, into .venv beside this file; a Python that has it all already is used as it is.
"""
# Standard library only. The syntax is that of Python 3.6, so that an old Python can read this file and say so.

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "letstalk.json"  # what run.py installed here: name -> hash of what was asked for
OLDEST_PYTHON = (3, 10)
REQUIREMENTS = {"demo": ["requirements.txt"], "test": ["requirements.txt", "requirements-test.txt"]}
ESPEAK = "espeakng-loader>=0.2"  # espeak-ng as a package, for machines without the program
COMFYUI_URL = "https://github.com/comfyanonymous/ComfyUI"
COMFYUI_COMMIT = "a125cd84b054a57729b5eecab930ca9408719832"  # 0.3.64, the oldest version the pack supports
COMFYUI_RETRY_SECONDS = 24 * 3600
PHOTOGRAPH, DRAWING = "eva.jpg", "ada.png"  # bundled portraits that the demo animates


class Stop(Exception):
    """Nothing more can be done; the message says what is wrong and what helps."""


def say(line: str) -> None:
    print("run.py: " + line, flush=True)


# -------------------- Python and packages


def check_python(version: Tuple[int, ...], command: str, newer: Optional[str] = None) -> None:
    """Raises: Stop if this Python is too old; `newer` names one on this machine that is not."""
    if version[:2] >= OLDEST_PYTHON:
        return
    found = ".".join(str(part) for part in version[:3])
    remedy = "install Python 3.10 to 3.13 (system package manager, or the installer from python.org) and use that"
    if newer:
        remedy = f"this machine has one, run: {newer} {command}"
    raise Stop(f"LetsTalk needs Python 3.10 or newer, this is {found} ({sys.executable}); {remedy}")


def find_newer_python() -> Optional[str]:
    """Name of a command on this machine that starts a Python new enough, or None."""
    for name in ("python3.12", "python3.11", "python3.13", "python3.10"):
        try:
            if shutil.which(name) and subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL) == 0:
                return name
        except OSError:
            continue
    return None


def read_requirements(*paths: Path) -> List[str]:
    """Requirement lines of these files, without comments."""
    lines = [
        line.split("#")[0].strip() for path in paths for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in lines if line]


def release(version: str) -> Tuple[int, ...]:
    """(2, 11, 0) of "2.11.0+cu130": enough to compare."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[+a-z]", version)[0]))


def is_met(requirement: str) -> bool:
    """Whether this Python has what a line asks: a name, perhaps `==`, `>=` or `~=`, perhaps a python_version.

    Reads only the metadata of installed packages: nothing heavy is imported.
    """
    from importlib.metadata import PackageNotFoundError, version

    specifier, _, marker = requirement.partition(";")
    marked = re.search(r"python_version\s*(<|>=)\s*['\"]([\d.]+)['\"]", marker)
    if marked and (sys.version_info[:2] < release(marked.group(2))) != (marked.group(1) == "<"):
        return True
    parts = re.match(r"([\w.-]+)\s*(?:(==|>=|~=)\s*([\w.+]+))?", specifier.strip())
    if parts is None:
        return False
    name, operator, wanted = parts.groups()
    try:
        found = release(version(name))
    except PackageNotFoundError:
        return False
    if operator is None:
        return True
    return found == release(wanted) if operator == "==" else found >= release(wanted)


def missing(requirements: Sequence[str]) -> List[str]:
    """The requirement lines that this Python does not meet."""
    return [line for line in requirements if not is_met(line)]


# -------------------- .venv


def venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def read_stamp() -> Dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(name: str, value: str) -> None:
    try:
        STAMP.write_text(json.dumps({**read_stamp(), name: value}, indent=1), encoding="utf-8")
    except OSError:
        pass  # only costs a second look next time


def fingerprint(requirements: Sequence[str]) -> str:
    """Hash of what is asked for, with the tested versions."""
    asked = "\n".join([*requirements, *read_requirements(ROOT / "constraints.txt"), *read_hashes(requirements)])
    return hashlib.sha256(asked.encode()).hexdigest()


def needed_gigabytes() -> float:
    """Free space that an installation takes: PyTorch for Linux brings the CUDA libraries with it."""
    if any([*VENV.glob("lib/python*/site-packages/torch"), *VENV.glob("Lib/site-packages/torch")]):
        return 1.5
    index = os.environ.get("PIP_INDEX_URL", "") + os.environ.get("PIP_EXTRA_INDEX_URL", "")
    return 8.0 if sys.platform.startswith("linux") and "/cpu" not in index else 3.0


def check_disk(folder: Path, needed: float, what: str) -> None:
    """Raises: Stop if the disk of the folder has too little space."""
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < needed:
        raise Stop(
            f"not enough disk space for {what}: {needed:.1f} GB needed, {free:.1f} GB free in {folder};"
            " make room, or move the checkout to a larger disk"
        )


def make_venv() -> None:
    """Make .venv, or make it again if its Python is gone. Raises: Stop."""
    if venv_python().exists():
        probe = f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
        if subprocess.call([str(venv_python()), "-c", probe], stderr=subprocess.DEVNULL) != 0:
            raise Stop(f"the Python in {VENV} does not start or is older than 3.10; delete that folder, run again")
        return
    if VENV.exists() and not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
        raise Stop(f"{VENV} is not a virtual environment; move it away and run again")
    check_disk(ROOT, needed_gigabytes(), "PyTorch and the other packages")
    say("making .venv with Python {}.{}.{}".format(*sys.version_info[:3]))
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        shutil.rmtree(str(VENV), ignore_errors=True)
        if "ensurepip" in result.stdout:
            raise Stop("this Python has no ensurepip, which .venv needs; on Ubuntu: sudo apt install python3-venv")
        said = " ".join(result.stdout.split())[-300:]
        raise Stop(explain(result.stdout) or f"could not make {VENV}: {said}")


def explain(complaints: str) -> Optional[str]:
    """What to do about a failed installation, from what pip complained of; None if that is not clear."""
    if re.search(r"No space left on device|Errno 28|WinError 112|Disk quota exceeded", complaints):
        needed, downloads = needed_gigabytes(), tempfile.gettempdir()
        return f"the disk is full: {needed:.1f} GB are needed for {VENV} and downloads in {downloads}; make room"
    if "DO NOT MATCH THE HASHES" in complaints:
        return (
            "a package is not the file that LetsTalk was tested with: the index serves another, or it changed on"
            " the way; check PIP_INDEX_URL and your network, pip's lines name the package"
        )
    unreachable = (
        r"NewConnectionError|NameResolutionError|Max retries exceeded|ConnectTimeout|ReadTimeout|ProxyError"
        r"|SSLError|name resolution|getaddrinfo|Network is unreachable|from versions: none"
        r"|Connection (refused|reset|aborted|broken|to \S+ timed out)"
    )
    if re.search(unreachable, complaints):
        return (
            "the package index cannot be reached; check the network (behind a proxy set HTTPS_PROXY, for a mirror"
            " set PIP_INDEX_URL) and run again, what is already installed is kept"
        )
    if re.search(r"Permission denied|Errno 13|Access is denied", complaints):
        return f"no permission to write to {VENV}; run as its owner, or delete that folder"
    return None


def pip_install(python: str, requirements: Sequence[str]) -> None:
    """Run pip with its progress on the screen. Raises: Stop."""
    for module in (["pip", "--version"], ["ensurepip", "--upgrade"]):  # some tools make a .venv without pip
        command = [python, "-m", *module]
        if subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            break
    else:
        raise Stop(f"the Python in {VENV} has no pip and cannot get it; delete that folder and run again")
    hashed = VENV / "hashes.txt"
    lines = read_hashes(requirements)
    if lines:
        hashed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        run_pip(python, ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(hashed)])
    run_pip(python, ["-c", str(ROOT / "constraints.txt"), *requirements])


def read_hashes(requirements: Sequence[str]) -> List[str]:
    """Lines of hashes.txt for these requirements: pip checks either all packages of a call or none."""
    known = ROOT / "hashes.txt"
    asked = {re.split(r"[^\w.-]", line)[0].lower() for line in requirements}
    lines = read_requirements(known) if known.exists() else []
    return [line for line in lines if line.partition("==")[0].lower() in asked]


def run_pip(python: str, arguments: Sequence[str]) -> None:
    """Install with pip's progress on the screen. Raises: Stop."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", cwd=str(ROOT))
    complaints: List[str] = []  # pip draws its progress on stdout and complains on stderr

    def relay() -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                complaints.append(line)
                sys.stderr.write(line)
                sys.stderr.flush()

    relaying = threading.Thread(target=relay, daemon=True)
    relaying.start()
    code = process.wait()
    relaying.join(timeout=5)
    if code:
        raise Stop(explain("".join(complaints)) or f"pip failed with exit code {code}; its last lines say why")


def install(python: str, name: str, requirements: Sequence[str]) -> None:
    """Bring .venv to what is asked for under this name, unless that is known to be done. Raises: Stop."""
    wanted = fingerprint(requirements)
    stamped = read_stamp().get(name)
    if stamped == wanted:
        return
    probe = [python, str(ROOT / "run.py"), "missing", *requirements]
    if stamped is not None or subprocess.call(probe, stdout=subprocess.DEVNULL) != 0:
        needed, downloads = needed_gigabytes(), Path(tempfile.gettempdir())
        check_disk(VENV, needed, "PyTorch and the other packages")
        if downloads.stat().st_dev != VENV.stat().st_dev:
            check_disk(downloads, needed * 0.4, "downloads (TMPDIR names another folder for them)")
        say(f"installing {len(requirements)} packages for `{name}` into .venv; the first time takes minutes")
        pip_install(python, requirements)
    write_stamp(name, wanted)


def try_install(python: str, name: str, requirements: Sequence[str], without: str) -> None:
    """Install what the command can do without."""
    try:
        install(python, name, requirements)
    except Stop as reason:
        say(f"{reason}; going on without {without}")


def prepare(command: str) -> str:
    """The Python that runs the command, with all that it needs. Raises: Stop."""
    requirements = read_requirements(*(ROOT / name for name in REQUIREMENTS[command]))
    in_venv = os.path.realpath(sys.prefix) == os.path.realpath(str(VENV))
    if not in_venv and not missing(requirements):
        return sys.executable
    make_venv()
    python = str(venv_python())
    install(python, command, requirements)
    if command == "test":
        if not (shutil.which("espeak-ng") or shutil.which("espeak")):
            try_install(python, "espeak-ng", [ESPEAK], "tests that let espeak-ng speak")
        comfyui = find_comfyui() or fetch_comfyui()
        if comfyui is not None:
            needs = read_requirements(comfyui / "requirements.txt")
            try_install(python, "ComfyUI", needs, "tests inside ComfyUI")
    return python


# -------------------- ComfyUI, which some tests load the pack into


def comfyui_cache() -> Path:
    return Path.home() / ".cache" / "letstalk" / "ComfyUI"


def find_comfyui() -> Optional[Path]:
    """A ComfyUI checkout on this machine: $COMFYUI_PATH, else the one fetched before. Raises: Stop."""
    named = os.environ.get("COMFYUI_PATH")
    folder = Path(named).expanduser() if named else comfyui_cache()
    if (folder / "main.py").is_file() and (folder / "comfy").is_dir():
        return folder
    if named:
        raise Stop(f"COMFYUI_PATH={named} is not a ComfyUI folder (main.py, comfy/); correct it or unset it")
    return None


def fetch_comfyui() -> Optional[Path]:
    """Fetch the pinned ComfyUI; None if that fails, and then not tried again for a day."""
    failed = read_stamp().get("ComfyUI fetch failed", "0")
    if shutil.which("git") is None or time.time() - float(failed) < COMFYUI_RETRY_SECONDS:
        return None
    say("fetching ComfyUI for the tests")
    folder = comfyui_cache()
    partial = folder.with_name(f"ComfyUI.{os.getpid()}.partial")
    git = ["git", "-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=20", "-C", str(partial)]
    fetch = ["fetch", "-q", "--depth", "1", COMFYUI_URL, COMFYUI_COMMIT]
    try:
        partial.mkdir(parents=True)
        for step in (["init", "-q"], fetch, ["checkout", "-q", "FETCH_HEAD"]):
            subprocess.run(git + step, check=True, timeout=120, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"})
        partial.rename(folder)
    except (OSError, subprocess.SubprocessError):
        shutil.rmtree(str(partial), ignore_errors=True)
        write_stamp("ComfyUI fetch failed", str(time.time()))
        say(f"could not fetch {COMFYUI_URL}; going on without tests inside ComfyUI, COMFYUI_PATH names a checkout")
        return None
    return folder


# -------------------- commands


def run(command: Sequence[str]) -> int:
    """Run a command in the checkout and wait for its end, also after Ctrl-C, which it gets itself."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    process = subprocess.Popen(list(command), cwd=str(ROOT), env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def demo(options: Sequence[str]) -> int:
    """Make talking videos of two bundled portraits, a photograph's and a drawing, and a bundled recording."""
    assets = ROOT / "letstalk_core" / "demo"
    portraits = {"demo": assets / "portraits" / PHOTOGRAPH, "demo_drawn": assets / "portraits" / DRAWING}
    speech = assets / "speech" / "hello.wav"
    if not all(file.is_file() for file in (assets / "dit.safetensors", speech, *portraits.values())):
        raise Stop(f"the demo model in {assets} is not complete; clone the repository again")
    python = prepare("demo")
    out = ROOT / "out"
    out.mkdir(exist_ok=True)
    for name, portrait in portraits.items():
        video, sheet = str(out / (name + ".mp4")), str(out / (name + ".png"))
        generate = [python, "-m", "letstalk_core.cli.__main__", "generate", str(portrait), str(speech)]
        code = run([*generate, "-o", video, "--contact-sheet", sheet, "--overwrite", *options])
        if code:
            return code
    for name in portraits:
        say("the video is {0}.mp4, its frames at a glance {0}.png".format(out / name))
    return 0


def test(options: Sequence[str]) -> int:
    """Run the tests."""
    return run([prepare("test"), "-m", "pytest", *options])


def main(arguments: Sequence[str]) -> int:
    command = arguments[0] if arguments else "--help"
    try:
        if command in ("-h", "--help", "help"):
            print(__doc__)
            return 0
        newer = None if sys.version_info >= OLDEST_PYTHON else find_newer_python()
        check_python(sys.version_info[:3], " ".join(["run.py", *arguments]), newer)
        if command == "missing":  # how `install` asks the Python in .venv
            lacks = missing(arguments[1:])
            print("\n".join(lacks))
            return 1 if lacks else 0
        if command not in REQUIREMENTS:
            raise Stop(f"unknown command {command!r}; known are demo and test, see: python3 run.py --help")
        return demo(arguments[1:]) if command == "demo" else test(arguments[1:])
    except Stop as reason:
        say(str(reason))
        return 2
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
