"""What all tests share: seeds, ComfyUI where there is one, and its stand-in where there is none."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import hypothesis
import pytest

import run

if TYPE_CHECKING:
    from tests.comfy.server import ComfyServer

ROOT = Path(__file__).resolve().parents[1]
UNTESTED = pytest.StashKey[dict[str, str]]()  # what, and why
SLOW = {"browser", "experiments", "test_fuzz", "test_ray", "test_soak", "test_train"}
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes of two threads would wait for each other on two cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
collect_ignore = ["comfy/inside"]  # test_inside_comfyui.py runs them, in a process of their own

hypothesis.settings.register_profile("letstalk", deadline=None)  # busy machines are slow, not wrong
hypothesis.settings.load_profile("letstalk")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    random.seed(0)
    if "numpy" in sys.modules:  # importing them here would slow down tests that need neither
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def load_file(name: str, path: Path) -> ModuleType:
    """A fresh module from a file, without leaving it in sys.modules."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in for ComfyUI's `folder_paths`, fresh, with its models in a temporary folder."""
    module = load_file("folder_paths", ROOT / "folder-paths-stubs" / "folder_paths" / "__init__.py")
    monkeypatch.setitem(sys.modules, "folder_paths", module)
    monkeypatch.setattr(module, "models_dir", str(tmp_path / "models"))
    return module


@pytest.fixture
def folders(folder_paths: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """nodes/adapters/folders.py on that stand-in, in a pack of its own; the packages around it need ComfyUI."""
    monkeypatch.setattr(folder_paths, "input_directory", str(Path(folder_paths.models_dir).with_name("input")))
    for folder in ("", "nodes", "nodes/adapters"):
        package = ModuleType(".".join(["letstalk_pack", *folder.split("/")]).strip("."))
        package.__path__ = [str(ROOT / folder)]
        monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.delitem(sys.modules, "letstalk_pack.nodes.adapters.folders", raising=False)
    return importlib.import_module("letstalk_pack.nodes.adapters.folders")


@pytest.fixture(scope="session")
def make_tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_tiny_bundle(movement=…): a folder of random networks, 32 px frames, 4-frame clips, flow. Read only."""
    import torch

    from benchmarks.tiny import save_models, tiny_configs
    from letstalk_core.networks.load import build_model

    def make(**projection: Any) -> Path:
        autoencoder, encoder, tokens, dit = tiny_configs(levels=3, width=16, layers=2, grid=8, scaling_factor=0.5)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            configs = (autoencoder, encoder, dataclasses.replace(tokens, **projection), dit)
            models = {config.kind: build_model(config) for config in configs}
            for kind in ("autoencoder", "audio_projection", "dit"):
                models[kind].init_weights()
            for parameter in models["dit"].parameters():  # open the gates that start closed
                torch.nn.init.normal_(parameter, std=0.3)
        folder = tmp_path_factory.mktemp("tiny-bundle")
        save_models(folder, models)
        return folder

    return make


@pytest.fixture(scope="session")
def espeak() -> None:
    """Skips tests of drawn or measured speech where the library is not installed."""
    from letstalk_core.errors import DependencyError
    from letstalk_research.data.synthetic.speech import espeak_version

    try:
        espeak_version()
    except DependencyError as error:
        pytest.skip(f"ESPEAK-NG IS MISSING, NOTHING THAT SPEAKS IS TESTED: {error}")


@pytest.fixture(scope="session")
def comfyui(request: pytest.FixtureRequest) -> Path:
    """A real ComfyUI checkout whose packages are installed; without one the tests that ask for it are skipped."""
    folder = run.find_comfyui()
    if folder is None:
        reason = "no ComfyUI here: `python3 run.py test` fetches one, COMFYUI_PATH names another"
    elif not run.has(sys.executable, run.read_lines(folder / "requirements.txt")):
        reason = f"packages that {folder} asks for are missing: `python3 run.py test` installs them"
    else:
        return folder
    skip_untested(request.config, "the pack inside ComfyUI", reason)


class StartServer(Protocol):
    def __call__(self, *arguments: str) -> ComfyServer: ...


@pytest.fixture(scope="session")
def start_server(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Boots a real ComfyUI with this pack (some 15 s); it runs until the session ends."""
    from tests.comfy.server import ComfyServer

    def start(*arguments: str) -> ComfyServer:
        return running.enter_context(ComfyServer(comfyui, tmp_path_factory.mktemp("comfyui"), arguments))

    with ExitStack() as running:
        yield start


@pytest.fixture(scope="session")
def server(start_server: StartServer) -> ComfyServer:
    """The real ComfyUI that the tests share: on the CPU, with latent previews, everything else as by default."""
    return start_server("--cpu", "--preview-method", "latent2rgb")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whole folders and files that take long: `-m "not slow"` leaves them out."""
    for item in items:
        if SLOW & {*item.path.parts[-3:], item.path.stem}:
            item.add_marker("slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: a file stays in one process, and so does what shares a ComfyUI server; slow folders begin."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = Path(nodeid.partition("::")[0])
            if path.stem == "test_inside_comfyui":  # each of its tests starts a process of its own
                return nodeid
            if path.parent.name == "browser":
                return "browser"
            return "server" if path.stem.startswith(("test_server_", "test_workflow_")) else str(path)

    config.option.loadscopereorder = False
    return Grouped(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show with a failed test what its ComfyUI printed."""
    report = yield
    for value in getattr(item, "funcargs", {}).values() if report.failed else ():
        if hasattr(value, "log_path"):
            report.sections.append(("ComfyUI's log", value.log[-6000:]))
    return report


def skip_untested(config: pytest.Config, what: str, reason: str) -> NoReturn:
    """Skip, and say at the end of the session what was not tested."""
    config.stash.setdefault(UNTESTED, {})[what] = reason
    pytest.skip(reason)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that started this one what was not tried."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["untested"] = session.config.stash.get(UNTESTED, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash.setdefault(UNTESTED, {}).update(getattr(node, "workeroutput", {}).get("untested", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in plain sight what was not tried."""
    for what, reason in config.stash.get(UNTESTED, {}).items():
        terminalreporter.section(f"NOT TESTED: {what}", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason)
