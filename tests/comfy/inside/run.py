"""Run the tests of this folder inside a ComfyUI process: python tests/comfy/inside/run.py [pytest arguments].

They have a process of their own: ComfyUI reads the command line when it is imported, and its `nodes.py` and this
repository's `nodes` package must not meet on `sys.path`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


def command(comfyui: Path, arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """The process to start (in the folder of ComfyUI) and its environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "COMFYUI_PATH": str(comfyui), "HF_HUB_OFFLINE": "1"}
    paths = [a for a in arguments if not a.startswith("-") and (HERE / a).exists()]
    others = [a for a in arguments if a not in paths]
    files = [str(HERE / path) for path in paths] or [str(HERE)]
    options = ["-c", str(HERE / "pytest.ini"), "--rootdir", str(HERE)]
    return [sys.executable, "-P", "-m", "pytest", *options, *others, *files], environment


def main() -> int:
    sys.path.insert(0, str(ROOT))
    import run

    comfyui = run.find_comfyui()
    if comfyui is None:
        sys.exit("no ComfyUI here: `python3 run.py test` fetches one, COMFYUI_PATH names another")
    arguments, environment = command(comfyui, sys.argv[1:])
    return subprocess.call(arguments, cwd=comfyui, env=environment)


if __name__ == "__main__":
    sys.exit(main())
