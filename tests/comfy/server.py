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
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BOOT_SECONDS = 240.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the proxy of this machine


class Failed(Exception):
    """A graph was not accepted, or ended in an error or an interrupt; `messages` are those of its history."""

    def __init__(self, messages: Any) -> None:
        super().__init__(json.dumps(messages, indent=1))
        self.messages = messages

    def __contains__(self, kind: str) -> bool:
        return any(name == kind for name, _ in self.messages)


class Client:
    """HTTP, and a WebSocket in a thread of its own, so that tests read from top to bottom."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.id = uuid.uuid4().hex
        self.messages: list[tuple[str, dict[str, Any]]] = []  # (kind, data), as they came
        self._changed = threading.Condition()

    def connect(self) -> None:
        """Open the WebSocket; from then on `messages` grows, until the server ends."""
        opened = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._listen(opened)), daemon=True).start()
        if not opened.wait(120):
            raise TimeoutError(f"{self.url}: its WebSocket did not open within 120 s")

    async def _listen(self, opened: threading.Event) -> None:
        import aiohttp  # ComfyUI needs it, LetsTalk does not

        address, options = f"{self.url}/ws?clientId={self.id}", {"max_msg_size": 0}
        async with aiohttp.ClientSession() as session, session.ws_connect(address, **options) as messages:
            await messages.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            opened.set()
            async for message in messages:
                if message.type is aiohttp.WSMsgType.ERROR:  # the server was killed
                    return
                if isinstance(message.data, bytes):  # a preview picture: its kind, then the picture
                    kind = int.from_bytes(message.data[:4], "big")
                    entry = ("binary", {"kind": kind, "size": len(message.data)})
                else:
                    parsed = json.loads(message.data)
                    entry = (parsed["type"], parsed["data"])
                with self._changed:
                    self.messages.append(entry)
                    self._changed.notify_all()

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of a reply; `body` goes as JSON. Raises: OSError while nothing listens."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with DIRECT.open(request, timeout=120) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

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
            except OSError:
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
        status, body = self.client.request("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)
        if status != 200:
            raise LookupError(f"GET {path} {query}: status {status}, {body[:500]!r}")
        return body

    def get_json(self, path: str, **query: str) -> Any:
        return json.loads(self.get(path, **query))

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and parsed body of a reply (None if it has none)."""
        status, reply = self.client.request("POST", path, body)
        return status, json.loads(reply) if reply else None

    def object_info(self) -> dict[str, Any]:
        """Every node of the server, by id."""
        if self._object_info is None:
            self._object_info = self.get_json("/object_info")
        return self._object_info

    def queue(self, graph: dict[str, Any]) -> str:
        """Queue an API-format graph. Returns its prompt id. Raises: Failed."""
        status, reply = self.post("/prompt", {"prompt": graph, "client_id": self.client.id})
        if status != 200:
            raise Failed(reply)
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
        """Queue a graph and wait for its end. Returns its history. Raises: Failed, TimeoutError."""
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
        assert self.post("/interrupt", {})[0] == 200

    def file(self, item: dict[str, str]) -> Path:
        """Where a file lies that the history or an event names by filename, subfolder and type."""
        return self.base / item["type"] / item["subfolder"] / item["filename"]

    def view(self, item: dict[str, str]) -> bytes:
        """The same file as the browser gets it."""
        return self.get("/view", filename=item["filename"], subfolder=item["subfolder"], type=item["type"])
