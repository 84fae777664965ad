"""ComfyUI in this very process, with the pack loaded as a custom node, and graphs run without a server."""

from __future__ import annotations

import asyncio
import copy
import importlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
BASE = Path(tempfile.mkdtemp(prefix="letstalk-inside-"))


def _boot() -> None:
    """Import ComfyUI as its main.py would, on the CPU and with a base directory of its own."""
    for name in ("custom_nodes", "input", "output", "temp", "models"):
        (BASE / name).mkdir(exist_ok=True)
    (BASE / "custom_nodes" / "LetsTalk").symlink_to(ROOT, target_is_directory=True)
    sys.argv = ["main.py", "--cpu", "--base-directory", str(BASE)]
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    import comfy.options

    comfy.options.enable_args_parsing()
    import utils.extra_config  # noqa: F401  before anything else can shadow the package `utils`


_boot()

import torch  # noqa: E402

import nodes as comfy_nodes_module  # noqa: E402  ComfyUI's own nodes.py


@pytest.fixture(scope="session", autouse=True)
def _loaded() -> Iterator[None]:
    async def load() -> None:
        await comfy_nodes_module.init_builtin_extra_nodes()
        before = set(comfy_nodes_module.NODE_CLASS_MAPPINGS)
        assert await comfy_nodes_module.load_custom_node(str(BASE / "custom_nodes" / "LetsTalk"), before)

    asyncio.run(load())
    yield
    shutil.rmtree(BASE, ignore_errors=True)


@pytest.fixture(autouse=True)
def _as_in_a_prompt() -> Iterator[None]:
    """Nodes run under inference mode; every test starts from the same random state."""
    random.seed(0)
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def _nothing_to_continue() -> None:
    """Runs of a test do not go on from what another test left unfinished."""
    shutil.rmtree(BASE / "output" / "letstalk_work", ignore_errors=True)


@pytest.fixture(scope="session")
def base(_loaded: None) -> Path:
    """ComfyUI's base directory: input, output, temp, models."""
    return BASE


@pytest.fixture(scope="session")
def pack(_loaded: None) -> ModuleType:
    """The pack as ComfyUI imported it; its name looks like a path."""
    return next(m for m in list(sys.modules.values()) if getattr(m, "__file__", "") == str(_pack_file()))


def _pack_file() -> Path:
    return BASE / "custom_nodes" / "LetsTalk" / "__init__.py"


@pytest.fixture(scope="session")
def sub(pack: ModuleType) -> Callable[[str], ModuleType]:
    """`sub("nodes.adapters.model")` or `sub("letstalk_core.networks.load")`: a module of the loaded pack."""
    return lambda name: importlib.import_module(f"{pack.__name__}.{name}")


@pytest.fixture(scope="session")
def comfy_nodes(_loaded: None) -> dict[str, Any]:
    """Every node class by id."""
    mappings: dict[str, Any] = comfy_nodes_module.NODE_CLASS_MAPPINGS
    return mappings


@pytest.fixture(scope="module")
def kit(sub: Callable[[str], ModuleType]) -> Any:
    """The bundled model and what renders a video with it."""
    from sampling_setup import make_kit

    return make_kit(sub)


@pytest.fixture
def setup(sub: Callable[[str], ModuleType], tmp_path: Path) -> Any:
    """A small random model whose output is added to the portrait."""
    from model_setup import make_setup

    return make_setup(sub, tmp_path, portrait_residual=True, residual_scale=0.4)


class GraphError(AssertionError):
    """A graph that was refused, or failed in a node; `messages` are what ComfyUI reports."""

    def __init__(self, messages: Any) -> None:
        super().__init__(str(messages))
        self.messages = messages


class _Server:
    """Just enough of ComfyUI's server for its executor; keeps the events."""

    def __init__(self) -> None:
        self.client_id = "inside"
        self.last_node_id: str | None = None
        self.last_prompt_id = "p"
        self.sockets_metadata: dict[str, Any] = {}
        self.events: list[tuple[str, Any]] = []

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.events.append((event, data))


class Graphs:
    """Runs API-format graphs in one executor, so that a second run finds the first one's cache."""

    def __init__(self) -> None:
        import execution

        self.server = _Server()
        self._execution = execution
        self._executor = execution.PromptExecutor(self.server, cache_type=execution.CacheType.CLASSIC)
        self._count = 0

    def __call__(self, api: dict[str, Any]) -> dict[str, Any]:
        """Validate and execute. Returns node id -> outputs, a list per socket, of what ran or was cached.

        Raises: GraphError.
        """
        api = copy.deepcopy(api)  # ComfyUI writes into it
        self._count += 1
        prompt_id = f"prompt-{self._count}"
        self.server.events.clear()
        ok, error, outputs, node_errors = asyncio.run(self._execution.validate_prompt(prompt_id, api, None))
        if not ok:
            raise GraphError((error, node_errors))
        self._executor.execute(api, prompt_id, {"client_id": "inside"}, outputs)
        if not self._executor.success:
            raise GraphError(self._executor.status_messages)
        cache = self._executor.caches.outputs
        found = {node: cache.get(node) for node in api}
        return {
            node: getattr(entry, "outputs", entry[0] if isinstance(entry, tuple) else entry)
            for node, entry in found.items()
            if entry is not None
        }

    @property
    def ui(self) -> dict[str, Any]:
        """What nodes showed in the last run: node id -> ui."""
        result: dict[str, Any] = self._executor.history_result.get("outputs", {})
        return result

    @property
    def cached(self) -> list[str]:
        """Nodes that the last run took from the cache."""
        return [n for event, data in self.server.events if event == "execution_cached" for n in data["nodes"]]


@pytest.fixture
def run_graph(_loaded: None) -> Graphs:
    """Fresh executor: `outputs = run_graph(api)`; `outputs["3"][0][0]` is the first socket of node 3."""
    return Graphs()
