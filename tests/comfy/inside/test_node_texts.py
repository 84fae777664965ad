"""What the browser is told of the pack and its nodes, and that help pages and locales say the same."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SHORT_NODE = "LetsTalkPortraitVideo"
FOLDED = {SHORT_NODE: "steps", "LetsTalkTalkingVideo": "schedule", "LetsTalkLongVideoSampler": "schedule"}
ITS_WORDS = {"talking", "talking head", "lip sync", "audio to video", "portrait", "avatar"}


@pytest.fixture(scope="module")
def help_script() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "update_node_help.py")))


@pytest.fixture
def infos(comfy_nodes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every node of the pack as `/object_info` tells it."""
    return {n: node.GET_NODE_INFO_V1() for n, node in comfy_nodes.items() if n.startswith("LetsTalk")}


def locale(language: str) -> dict[str, Any]:
    path = ROOT / "locales" / language / "nodeDefs.json"
    entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def test_the_english_locale_is_what_the_schemas_say(infos: dict[str, Any], help_script: SimpleNamespace) -> None:
    assert {name: help_script.english(node) for name, node in infos.items()} == locale("en"), (
        "start ComfyUI and run scripts/update_node_help.py"
    )


def keys_of(texts: Any) -> Any:
    """The keys of nested dictionaries, and at their ends whether there is a text."""
    return {key: keys_of(value) for key, value in texts.items()} if isinstance(texts, dict) else bool(texts)


def test_every_input_and_output_is_translated(infos: dict[str, Any], help_script: SimpleNamespace) -> None:
    chinese = locale("zh")
    assert chinese.keys() == infos.keys()
    for name, node in infos.items():
        english = help_script.english(node)
        assert keys_of(chinese[name]) == keys_of(english), name


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_node_has_a_help_page_with_up_to_date_lists(
    language: str, infos: dict[str, Any], help_script: SimpleNamespace
) -> None:
    texts = locale(language)
    for name, node in infos.items():
        page = (ROOT / "js" / "docs" / name / f"{language}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {texts[name]['display_name']}\n"), name
        told = help_script.lists(node, texts[name], language)
        assert help_script.refreshed(page, told, language) == page, (
            f"{name}/{language}.md: start ComfyUI and run scripts/update_node_help.py"
        )


def test_no_help_page_is_left_of_a_node_that_is_gone(infos: dict[str, Any]) -> None:
    assert {path.name for path in (ROOT / "js" / "docs").iterdir()} == infos.keys()


# schemas


def inputs_of(info: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {key: (spec[0], spec[1] if len(spec) > 1 else {}) for key, spec in specs.items()}


def test_every_node_says_what_it_is_and_what_each_input_does(infos: dict[str, Any], pack: Any) -> None:
    assert pack.WEB_DIRECTORY == "./js" and infos
    for name, info in infos.items():
        assert info["category"].partition("/")[0] == "LetsTalk", name
        assert info["display_name"] and info["description"], name
        for key, (_, options) in inputs_of(info).items():
            assert len(options.get("tooltip", "")) > 10, f"{name}.{key} has no tooltip"


@pytest.mark.parametrize("name", FOLDED)
def test_a_sampler_shows_at_most_seven_widgets_at_first(name: str, infos: dict[str, Any]) -> None:
    """The seed brings one more, which says what happens to it after a run."""
    widgets = {key: options for key, (kind, options) in inputs_of(infos[name]).items() if kind in WIDGETS}
    shown = [key for key, options in widgets.items() if not options.get("advanced")]
    control = any(options.get("control_after_generate") for options in widgets.values())
    assert "seed" in shown and len(shown) + control <= 7
    assert FOLDED[name] in widgets.keys() - set(shown), "what is folded away is still there"


def test_search_words_of_the_short_node_are_told_and_its_own(infos: dict[str, Any]) -> None:
    """Also by 0.3.64, whose schema does not know them."""
    told = {name: set(info["search_aliases"]) for name, info in infos.items()}
    assert told.pop(SHORT_NODE) >= ITS_WORDS
    assert not any(ITS_WORDS & words for words in told.values())
