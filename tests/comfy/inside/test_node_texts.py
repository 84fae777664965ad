"""Help pages and locales say what the schemas of the nodes say, in every language."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


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
