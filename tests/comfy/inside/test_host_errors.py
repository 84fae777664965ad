"""Errors as a user of ComfyUI meets them: short names, words of nodes, the language of the browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graph_setup import DEMO, node


@pytest.fixture
def host(sub: Any) -> Any:
    return sub("nodes.adapters.host_errors")


@pytest.fixture
def chinese(base: Path) -> Iterator[None]:
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps({"Comfy.Locale": "zh"}))
    yield
    settings.unlink()


def failing(run_graph: Any) -> dict[str, Any]:
    """What ComfyUI tells the browser of a Talking Video without a model."""
    numbers = {"seed": 0, "steps": 0, "schedule": "model", "audio_scale": 0.0, "portrait_scale": 1.0}
    graph = {
        "vae": node("LetsTalkLoadAutoencoder", autoencoder=DEMO),
        "talk": node("LetsTalkTalkingVideo", vae=["vae", 0], max_frames=0, crf=18, **numbers),
    }
    with pytest.raises(AssertionError) as caught:
        run_graph(graph)
    told: dict[str, Any] = next(data for name, data in caught.value.messages if name == "execution_error")
    return told


def test_the_name_of_an_error_is_short(run_graph: Any) -> None:
    told = failing(run_graph)
    assert told["exception_type"] == "LetsTalk.ConfigError"
    assert told["exception_message"].strip() == "connect either guider, or model and positive"


def test_an_error_is_in_the_language_of_the_browser(run_graph: Any, chinese: None) -> None:
    message = failing(run_graph)["exception_message"]
    assert "guider" in message and "\u8fde\u63a5" in message  # connect


def test_translations_say_all_that_the_messages_say(host: Any) -> None:
    """Every group of a pattern is in its text, and no pattern is so wide that it swallows other messages."""
    for pattern, text in json.loads((host.LOCALES / "zh" / "errors.json").read_text(encoding="utf-8")):
        groups = re.compile(pattern).groups
        assert {f"\\{i + 1}" for i in range(groups)} <= {text[i : i + 2] for i in range(len(text))}, pattern
        assert re.fullmatch(pattern, "another message: 3") is None
        assert len(re.sub(r"\W|\.\*", "", pattern)) > 12, pattern


@pytest.mark.parametrize("told", ["belongs to a run that differs in seed", "is not of format 3"])
def test_no_option_of_the_command_line_is_named(sub: Any, host: Any, tmp_path: Path, told: str) -> None:
    """A work folder of another run, and one of another version, refused as the sampling nodes meet them."""
    folder = sub("letstalk_core.generate.work_folder")
    work = folder.WorkFolder(tmp_path / "mine", keep=True)
    work.begin({"seed": 1})
    work.release()
    if "format" in told:
        (tmp_path / "mine" / "run.json").write_text(json.dumps({"format": 999}))
    with pytest.raises(Exception) as caught:
        folder.WorkFolder(tmp_path / "mine", keep=True).begin({"seed": 2})
    text = host.in_words_of_comfyui(str(caught.value))
    assert "--" not in text and "unfinished" in text and "start anew" in text
