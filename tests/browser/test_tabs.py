"""The panel in less simple visits: two tabs of one template, an interrupt, seeking, and nodes drawn by Vue."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .conftest import Visit


@pytest.fixture(scope="module")
def seen(visit: Visit) -> dict[str, Any]:
    """What tabs.mjs saw."""
    return visit("tabs.mjs")


def test_a_run_shows_in_the_tab_where_it_was_queued(seen: dict[str, Any]) -> None:
    tabs = seen["tabs"]
    (_, first), (_, second) = tabs["graphs"]
    assert first == second, "the two graphs are to have one id"
    assert {panel["phase"] for panel in tabs["other"]} == {"idle"}
    assert tabs["own"]["phase"] == "done" and tabs["own"]["line"].startswith("6 clips · 3.8 s")
    assert tabs["other_again"]["phase"] == "idle"


def test_seeking_finds_the_stretch_and_the_second_in_it(seen: dict[str, Any]) -> None:
    at = seen["seek"]
    for where, second in {"home": 0, "end": 7, "back": 0, "click": 6}.items():  # it plays on meanwhile
        assert re.match(rf"{second}\.\d s of 9\.6 s", at[where]["aria"]), at[where]
    assert at["home"]["file"] != at["end"]["file"]
    assert at["played_to"]["head"] > at["click"]["head"]
    assert at["over"]["phase"] == "done"


def test_after_an_interrupt_the_panel_is_calm(seen: dict[str, Any]) -> None:
    stopped = seen["interrupted"]
    (state,) = stopped["states"]  # nothing moves any more
    assert state["phase"] == "stopped" and re.match(r"stopped · [1-5]\.\d s of 10\.3 s", state["line"]), state
    assert stopped["message"] == "" and stopped["animated"] == "0px"
    assert stopped["buttons"] == 2  # play and mute; there is nothing to follow


def test_workflows_load_and_run_with_nodes_drawn_by_vue(seen: dict[str, Any]) -> None:
    vue = seen["vue"]
    assert vue["drawn"] == vue["nodes"] > 0
    assert vue["kinds"].count("executed") == 2 and vue["kinds"][-1] == "execution_success"
