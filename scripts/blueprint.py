"""Turn a graph into a subgraph blueprint: one node for the library of nodes, with the graph inside.

Newer ComfyUI lists `subgraphs/*.json` of a pack there; 0.3.64 ignores the folder. Format: what the browser saves
when one publishes a subgraph: a workflow of one node whose type is the id of a definition.
"""

from __future__ import annotations

import uuid
from typing import Any

from workflow_file import Link, Node, Workflow, WorkflowError

INPUT, OUTPUT = -10, -20  # ids of the nodes at the edges of a subgraph
SPACE = uuid.UUID("6d1c4a52-4b0f-5c1e-9a55-9b8f1f1b7c02")  # ids must stay the same when the file is made again
EDGE, FAR = [0, 0, 120, 120], 160


def blueprint(workflow: Workflow, name: str, sources: dict[str, Link], results: dict[str, Link]) -> dict[str, Any]:
    """The workflow's nodes as the subgraph `name`.

    sources: what comes from outside, by name: links to it become links to an input, and its node is left out.
    results: what goes outside, by name; nodes that take it are left out if nothing else is done with them.
    Raises: WorkflowError for a note or a node that would lose its only link.
    """
    outside = {link.source.id for link in sources.values()}
    ends = {node.id for node in workflow.nodes if _ends(node, results)}
    inside = [node for node in workflow.nodes if node.info and node.id not in outside | ends]
    if not inside or any(link.source.id not in {node.id for node in inside} for link in results.values()):
        raise WorkflowError(f"{name}: its results must come from nodes inside")
    saved = {node["id"]: node for node in workflow.ui()["nodes"]}
    links: list[dict[str, Any]] = []

    def connect(origin: tuple[int, int], target: tuple[int, int], kind: str) -> int:
        link = {"id": len(links) + 1, "origin_id": origin[0], "origin_slot": origin[1]}
        links.append({**link, "target_id": target[0], "target_slot": target[1], "type": kind})
        return len(links)

    entering: dict[str, list[int]] = {key: [] for key in sources}
    leaving: dict[tuple[int, int], list[int]] = {}
    nodes = []
    for node in inside:
        entry = {**saved[node.id], "inputs": [dict(slot) for slot in saved[node.id]["inputs"]]}
        for slot, socket in enumerate(entry["inputs"]):
            link = node.inputs.get(socket["name"])
            if not isinstance(link, Link):
                continue
            key = next(
                (k for k, s in sources.items() if (s.source.id, s.slot) == (link.source.id, link.slot)), None
            )
            if key is None:
                origin = (link.source.id, link.slot)
                socket["link"] = connect(origin, (node.id, slot), link.type)
                leaving.setdefault(origin, []).append(socket["link"])
            else:
                origin = (INPUT, list(sources).index(key))
                socket["link"] = connect(origin, (node.id, slot), link.type)
                entering[key].append(socket["link"])
        nodes.append(entry)
    going = {}
    for slot, (key, link) in enumerate(results.items()):
        origin = (link.source.id, link.slot)
        going[key] = connect(origin, (OUTPUT, slot), link.type)
        leaving.setdefault(origin, []).append(going[key])
    for entry in nodes:
        outputs = saved[entry["id"]]["outputs"]
        entry["outputs"] = [{**out, "links": leaving.get((entry["id"], i))} for i, out in enumerate(outputs)]
    right = max(entry["pos"][0] + entry["size"][0] for entry in nodes)
    left = min(entry["pos"][0] for entry in nodes)
    identity = str(uuid.uuid5(SPACE, name))
    definition = {
        "id": identity,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": len(saved), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": INPUT, "bounding": [left - FAR, *EDGE[1:]]},
        "outputNode": {"id": OUTPUT, "bounding": [right + FAR - EDGE[2], *EDGE[1:]]},
        "inputs": [_pin(name, key, link, entering[key]) for key, link in sources.items()],
        "outputs": [_pin(name, key, link, [going[key]]) for key, link in results.items()],
        "widgets": [],
        "nodes": nodes,
        "groups": [],
        "links": links,
        "extra": {},
    }
    instance = {
        "id": 1,
        "type": identity,
        "pos": [0, 0],
        "size": [320, 120],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [{"name": key, "type": link.type, "link": None} for key, link in sources.items()],
        "outputs": [{"name": key, "type": link.type, "links": None} for key, link in results.items()],
        "title": name,
        "properties": {},
        "widgets_values": [],
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [instance],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [definition]},
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _ends(node: Node, results: dict[str, Link]) -> bool:
    """Whether a node only takes results, as Save Video does."""
    taken = [value for value in node.inputs.values() if isinstance(value, Link)]
    wanted = {(link.source.id, link.slot) for link in results.values()}
    return (
        bool(taken)
        and all((link.source.id, link.slot) in wanted for link in taken)
        and not any(link.source.id == node.id for link in results.values())
    )


def _pin(name: str, key: str, link: Link, ids: list[int]) -> dict[str, Any]:
    identity = str(uuid.uuid5(SPACE, f"{name}/{key}"))
    return {"id": identity, "name": key, "type": link.type, "linkIds": ids, "pos": [0, 0]}
