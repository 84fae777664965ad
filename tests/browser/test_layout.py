"""Templates as they look in both frontends and both renderers: their order, their boxes, what is folded away."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.browser.conftest import Visit
    from tests.comfy.server import ComfyServer

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NAMES = sorted((path.stem for path in WORKFLOWS.glob("*.json")), key=lambda name: int(name.split("_")[0]))


@pytest.fixture(scope="module")
def seen(
    any_frontend: tuple[str, ComfyServer], visit_to: Callable[[ComfyServer], Visit]
) -> tuple[str, dict[str, Any]]:
    """Name of the frontend, and what layout.mjs saw."""
    name, server = any_frontend
    return name, visit_to(server)("layout.mjs", name)


def drawn(seen: tuple[str, dict[str, Any]], renderer: str) -> dict[str, Any]:
    frontend, looks = seen
    if (frontend, renderer) == ("own", "vue"):
        pytest.skip("frontend 1.27 has Vue nodes as an experiment that changes the sizes of all nodes")
    found: dict[str, Any] = looks[renderer]
    return found


def apart(a: list[float], b: list[float]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def within(a: list[float], b: list[float]) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def test_templates_are_listed_in_their_order(seen: tuple[str, dict[str, Any]]) -> None:
    assert seen[1]["order"] == NAMES
    cards = [card.strip().replace(" ", "_") for card in seen[1]["cards"]]  # among other texts that begin so
    assert list(dict.fromkeys(card for card in cards if card in NAMES)) == NAMES


def test_app_mode_has_something_to_drop_files_on(seen: tuple[str, dict[str, Any]]) -> None:
    if seen[0] == "own":
        pytest.skip("frontend 1.27 has no App mode")
    assert len(seen[1]["app"]) == 2 and all("drop one here" in words for words in seen[1]["app"])


def test_people_find_the_short_node_first(seen: tuple[str, dict[str, Any]]) -> None:
    first = {word: (found or [None])[0] for word, found in seen[1]["search"].items()}
    assert len(first) == 6 and set(first.values()) == {"LetsTalkPortraitVideo"}, seen[1]["search"]


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_no_node_covers_another_or_leaves_its_group(renderer: str, seen: tuple[str, dict[str, Any]]) -> None:
    for name, look in drawn(seen, renderer).items():
        if name not in NAMES:
            continue
        assert all(node["drawn"] == (renderer == "vue") for node in look["nodes"])
        for one, other in combinations(look["nodes"], 2):
            assert apart(one["box"], other["box"]), f"{name}: {one} and {other} overlap"
        for node in look["nodes"]:
            assert any(within(node["box"], group["box"]) for group in look["groups"]), f"{name}: {node}"


def test_nodes_and_groups_are_coloured_by_role(seen: tuple[str, dict[str, Any]]) -> None:
    for name in NAMES:
        look = seen[1]["canvas"][name]
        assert all(node["colour"] for node in look["nodes"]), name
        assert len({group["colour"] for group in look["groups"]}) >= 3, name


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_a_fresh_sampler_shows_seven_settings_and_the_rest_on_a_click(
    renderer: str, seen: tuple[str, dict[str, Any]]
) -> None:
    folding = drawn(seen, renderer)["folding"]
    assert folding["before"] <= 7 < folding["after"]
    assert renderer == "vue" or max(folding["rows"]) < 30, "what is folded away leaves no gap"


@pytest.mark.parametrize("renderer", ["canvas", "vue"])
def test_a_long_error_is_not_cut_off(renderer: str, seen: tuple[str, dict[str, Any]]) -> None:
    complaint = drawn(seen, renderer)["complaint"]
    assert complaint["last"] == "remedy" and max(complaint["hidden"], complaint["outside"]) <= 1, complaint


def test_the_extension_raises_no_error(seen: tuple[str, dict[str, Any]]) -> None:
    assert seen[1]["errors"] == []
