"""A real ComfyUI in a process of its own, and a client that talks to it as the browser does."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
BOOT_SECONDS = 240.0
T = TypeVar("T")


class Refused(Exception):
    """The server did not accept a graph; `reply` is its answer: `error` and `node_errors`."""

    def __init__(self, reply: dict[str, Any]) -> None:
        super().__init__(json.dumps(reply, indent=1))
        self.reply = reply


class Failed(Exception):
    """A graph ended in an error or an interrupt; `messages` are those of its history."""

    def __init__(self, messages: list[Any]) -> None:
        super().__init__(json.dumps(messages, indent=1))
        self.messages = messages

    def __contains__(self, kind: str) -> bool:
        return any(name == kind for name, _ in self.messages)


class Client:
    """HTTP and WebSocket in a thread of its own, so that tests read from top to bottom."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.id = uuid.uuid4().hex
        self.messages: list[tuple[str, dict[str, Any]]] = []  # (kind, data), as they came
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._open())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=120)

    async def _open(self) -> None:
        import aiohttp  # ComfyUI needs it, LetsTalk does not

        self._session = aiohttp.ClientSession(self.url)
        self._socket: Any = None
        self._listener: asyncio.Task[None] | None = None

    async def _listen(self) -> None:
        async for message in self._socket:
            if isinstance(message.data, bytes):  # a preview picture: its kind, then the picture
                entry = ("binary", {"kind": int.from_bytes(message.data[:4], "big"), "size": len(message.data)})
            else:
                parsed = json.loads(message.data)
                entry = (parsed["type"], parsed["data"])
            with self._changed:
                self.messages.append(entry)
                self._changed.notify_all()

    async def _connect(self) -> None:
        self._socket = await self._session.ws_connect("/ws", params={"clientId": self.id}, max_msg_size=0)
        flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
        await self._socket.send_str(json.dumps(flags))
        self._listener = asyncio.create_task(self._listen())

    async def _request(self, method: str, path: str, **options: Any) -> tuple[int, bytes]:
        async with self._session.request(method, path, **options) as reply:
            return reply.status, await reply.read()

    async def _close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._listener is not None:
            await asyncio.wait([self._listener])
        await self._session.close()

    def connect(self) -> None:
        """Open the WebSocket; from then on `messages` grows."""
        self._do(self._connect())

    def request(self, method: str, path: str, **options: Any) -> tuple[int, bytes]:
        """Status and body of a reply; options as in aiohttp. Raises: OSError while nothing listens."""
        return self._do(self._request(method, path, **options))

    def wait_for(self, kind: str, which: Callable[[dict[str, Any]], bool], timeout: float) -> dict[str, Any]:
        """The first message of this kind that fits, past ones included. Raises: TimeoutError."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = next((data for name, data in self.messages if name == kind and which(data)), None)
                if found is not None:
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    seen = [name for name, _ in self.messages][-20:]
                    raise TimeoutError(f"no {kind!r} that fits within {timeout:g} s; last messages: {seen}")

    def close(self) -> None:
        """The second time nothing happens."""
        if self._loop.is_closed():
            return
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class ComfyServer:
    """ComfyUI with this checkout as its only custom node, on the CPU unless the arguments say otherwise.

    `comfyui` is its checkout, `base` a folder of its own for models, input, output and temp. A context manager.
    """

    def __init__(self, comfyui: Path, base: Path, arguments: Sequence[str] = ("--cpu",)) -> None:
        self.base, self.log_path = base, base / "comfyui.log"
        self._comfyui, self._arguments = comfyui, list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._object_info: dict[str, Any] | None = None

    def __enter__(self) -> ComfyServer:
        (self.base / "custom_nodes").mkdir(parents=True, exist_ok=True)
        pack = self.base / "custom_nodes" / "LetsTalk"
        if not pack.exists():  # a base may be used again
            pack.symlink_to(ROOT, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "COV_"))}
        environment.update(PYTHONDONTWRITEBYTECODE="1", HF_HUB_OFFLINE="1")
        command = [sys.executable, "main.py", "--port", str(port), "--base-directory", str(self.base)]
        command += ["--database-url", f"sqlite:///{self.base / 'comfy.db'}", "--disable-api-nodes"]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments], cwd=self._comfyui, env=environment, stdout=log, stderr=log
            )
        self.client = Client(f"http://127.0.0.1:{port}")
        try:
            self._wait_until_ready()
            self.client.connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server; the second time nothing happens."""
        self.client.close()
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End the server as a crash or a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                if self.client.request("GET", "/queue")[0] == 200:
                    return
            except OSError:  # aiohttp's connection errors are OSErrors too
                pass
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with status {self._process.returncode}:\n{self.log[-4000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"ComfyUI was not ready after {BOOT_SECONDS:g} s:\n{self.log[-4000:]}")
            time.sleep(0.3)

    @property
    def log(self) -> str:
        """What ComfyUI printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def temp(self) -> Path:
        """ComfyUI's folder for temporary files."""
        return self.base / "temp"

    def get(self, path: str, **query: str) -> bytes:
        """Body of a reply. Raises: LookupError unless the status is 200."""
        status, body = self.client.request("GET", path, params=query)
        if status != 200:
            raise LookupError(f"GET {path} {query}: status {status}, {body[:500]!r}")
        return body

    def get_json(self, path: str, **query: str) -> Any:
        return json.loads(self.get(path, **query))

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and parsed body of a reply (None if it has none)."""
        status, reply = self.client.request("POST", path, json=body)
        return status, json.loads(reply) if reply else None

    def object_info(self) -> dict[str, Any]:
        """Every node of the server, by id."""
        if self._object_info is None:
            self._object_info = self.get_json("/object_info")
        return self._object_info

    def upload(self, path: Path, name: str | None = None) -> str:
        """Put a file into ComfyUI's input folder, as drag and drop does. Returns its name there."""
        import aiohttp

        form = aiohttp.FormData()
        form.add_field("image", path.read_bytes(), filename=name or path.name)
        form.add_field("type", "input")
        status, reply = self.client.request("POST", "/upload/image", data=form)
        assert status == 200, (status, reply)
        name_there: str = json.loads(reply)["name"]
        return name_there

    def queue(self, graph: dict[str, Any]) -> str:
        """Queue an API-format graph. Returns its prompt id. Raises: Refused."""
        status, reply = self.post("/prompt", {"prompt": graph, "client_id": self.client.id})
        if status != 200:
            raise Refused(reply)
        prompt_id: str = reply["prompt_id"]
        return prompt_id

    def wait(self, prompt_id: str, timeout: float = 300.0) -> dict[str, Any]:
        """The history of a prompt that ended well. Raises: Failed, TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            history: dict[str, Any] | None = self.get_json(f"/history/{prompt_id}").get(prompt_id)
            if history is not None:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"prompt {prompt_id} did not end within {timeout:g} s")
            time.sleep(0.1)
        if history["status"]["status_str"] != "success":
            raise Failed(history["status"]["messages"])
        return history

    def run(self, graph: dict[str, Any], timeout: float = 300.0) -> dict[str, Any]:
        """Queue a graph and wait for its end. Returns its history. Raises: Refused, Failed, TimeoutError."""
        return self.wait(self.queue(graph), timeout)

    def wait_for(
        self,
        prompt_id: str,
        kind: str,
        which: Callable[[dict[str, Any]], bool] = lambda _: True,
        timeout: float = 120,
    ) -> dict[str, Any]:
        """The first WebSocket message of this kind about a prompt that fits. Raises: TimeoutError."""

        def fits(data: dict[str, Any]) -> bool:
            return prompt_id in (data.get("prompt_id"), data.get("prompt")) and which(data)

        return self.client.wait_for(kind, fits, timeout)

    def events(self, prompt_id: str, kind: str) -> list[dict[str, Any]]:
        """All WebSocket messages of this kind about a prompt; ours name it `prompt`, ComfyUI's `prompt_id`."""
        messages = list(self.client.messages)
        return [d for k, d in messages if k == kind and prompt_id in (d.get("prompt_id"), d.get("prompt"))]

    def interrupt(self) -> None:
        """What the Cancel button does."""
        status, _ = self.client.request("POST", "/interrupt", json={})
        assert status == 200

    def file(self, item: dict[str, str]) -> Path:
        """Where a file lies that the history or an event names by filename, subfolder and type."""
        return self.base / item["type"] / item["subfolder"] / item["filename"]

    def view(self, item: dict[str, str]) -> bytes:
        """The same file as the browser gets it."""
        return self.get("/view", filename=item["filename"], subfolder=item["subfolder"], type=item["type"])
