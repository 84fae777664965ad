"""How much the pack adds to ComfyUI's start: `python benchmarks/import_time.py [repeats]`.

Each repeat is a process that imports ComfyUI with its built-in nodes, then loads the pack as ComfyUI does. The
goal is less than half a second.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOAD = """
import asyncio, sys, time
base, sys.argv = sys.argv[1], ["main.py", "--cpu", "--base-directory", sys.argv[1]]
import comfy.options
comfy.options.enable_args_parsing()
import utils.extra_config
import server, execution, nodes
asyncio.run(nodes.init_builtin_extra_nodes())
started = time.perf_counter()
assert asyncio.run(nodes.load_custom_node(base + "/custom_nodes/LetsTalk", set(nodes.NODE_CLASS_MAPPINGS)))
seconds = time.perf_counter() - started
print("SECONDS", seconds, sum(name.startswith("LetsTalk") for name in nodes.NODE_CLASS_MAPPINGS))
"""


def measure(comfyui: Path) -> tuple[float, int]:
    """Seconds of one load, and how many nodes it gave."""
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "custom_nodes").mkdir()
        (Path(base) / "custom_nodes" / "LetsTalk").symlink_to(ROOT, target_is_directory=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        result = subprocess.run(
            [sys.executable, "-c", LOAD, base], cwd=comfyui, env=environment, capture_output=True, text=True
        )
    line = next((line for line in result.stdout.splitlines() if line.startswith("SECONDS")), None)
    if line is None:
        sys.exit(result.stdout + result.stderr)
    _, seconds, count = line.split()
    return float(seconds), int(count)


def main(repeats: int) -> None:
    sys.path.insert(0, str(ROOT))
    import run

    comfyui = run.find_comfyui()
    if comfyui is None:
        sys.exit("no ComfyUI here: `python3 run.py test` fetches one, COMFYUI_PATH names another")
    times = [measure(comfyui) for _ in range(repeats)]
    seconds = [time for time, _ in times]
    median, most = statistics.median(seconds), max(seconds)
    print(f"{times[0][1]} nodes, {repeats} starts: median {median:.2f} s, most {most:.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
