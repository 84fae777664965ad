"""Templates as they look in both frontends and both renderers: their order, their boxes, what is folded away."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from .conftest import Frontend

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NAMES = sorted((path.stem for path in WORKFLOWS.glob("*.json")), key=lambda name: int(name.split("_")[0]))


@pytest.fixture(scope="module")
def seen(frontend: Frontend) -> dict[str, Any]:
    """What layout.mjs saw."""
    return frontend.visit("layout.mjs", frontend.name)


@pytest.fixture(params=["canvas", "vue"])
def drawn(request: pytest.FixtureRequest, frontend: Frontend, seen: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of a renderer, and what was seen of it."""
    frontend.skip_old_vue(request.param)
    return request.param, seen[request.param]


def apart(a: list[float], b: list[float]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def within(a: list[float], b: list[float]) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def test_templates_are_listed_in_their_order(seen: dict[str, Any]) -> None:
    assert seen["order"] == NAMES
    cards = [card.strip().replace(" ", "_") for card in seen["cards"]]  # among other texts that begin so
    assert list(dict.fromkeys(card for card in cards if card in NAMES)) == NAMES


def test_app_mode_has_something_to_drop_files_on(frontend: Frontend, seen: dict[str, Any]) -> None:
    if frontend.name == "own":
        pytest.skip("frontend 1.27 has no App mode")
    assert len(seen["app"]) == 2 and all("drop one here" in words for words in seen["app"])


def test_people_find_the_short_node_first(seen: dict[str, Any]) -> None:
    first = {word: (found or [None])[0] for word, found in seen["search"].items()}
    assert len(first) == 6 and set(first.values()) == {"LetsTalkPortraitVideo"}, seen["search"]


def test_no_node_covers_another_or_leaves_its_group(drawn: tuple[str, dict[str, Any]]) -> None:
    renderer, looks = drawn
    for name, look in ((name, looks[name]) for name in NAMES):
        assert all(node["drawn"] == (renderer == "vue") for node in look["nodes"])
        for one, other in combinations(look["nodes"], 2):
            assert apart(one["box"], other["box"]), f"{name}: {one} and {other} overlap"
        for node in look["nodes"]:
            assert any(within(node["box"], group["box"]) for group in look["groups"]), f"{name}: {node}"


def test_nodes_and_groups_are_coloured_by_role(seen: dict[str, Any]) -> None:
    for name in NAMES:
        look = seen["canvas"][name]
        assert all(node["colour"] for node in look["nodes"]), name
        assert len({group["colour"] for group in look["groups"]}) >= 3, name


def test_a_fresh_sampler_shows_seven_settings_and_the_rest_on_a_click(drawn: tuple[str, dict[str, Any]]) -> None:
    renderer, folding = drawn[0], drawn[1]["folding"]
    assert folding["before"] <= 7 < folding["after"]
    assert renderer == "vue" or max(folding["rows"]) < 30, "what is folded away leaves no gap"


def test_a_long_error_is_not_cut_off(drawn: tuple[str, dict[str, Any]]) -> None:
    complaint = drawn[1]["complaint"]
    assert complaint["last"] == "remedy" and max(complaint["hidden"], complaint["outside"]) <= 1, complaint
