"""Write one ComfyUI graph as the browser saves it (UI format) and as the server runs it (API format).

Nodes stand in columns, columns in titled groups, groups side by side: nothing overlaps by construction. What a
node looks like comes from the server's own `/object_info`, so a wrong input, type or choice is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Union

from workflow_style import (
    APP_INPUTS,
    APP_OUTPUTS,
    FOLDS_ON_CANVAS,
    GROWTH,
    PREVIEW,
    group_colour,
    node_colours,
    vue_room,
)

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
ROW, WIDGET_ROW, TITLE, GAP, MARGIN = 20, 26, 30, 24, 24
NORMAL, BYPASS = 0, 4
FRONTEND = "1.27.10"


class WorkflowError(Exception):
    """A graph that does not fit the nodes of the server."""


@dataclass
class Node:
    """One node; `node["IMAGE"]` or `node[0]` is its output of that name or number."""

    id: int
    type: str
    info: dict[str, Any]  # from /object_info; empty for a note
    inputs: dict[str, Any]
    title: str
    width: int
    height: int
    mode: int = NORMAL
    at: tuple[int, int] = (0, 0)

    def __getitem__(self, output: int | str) -> Link:
        names = self.info["output_name"]
        slot = output if isinstance(output, int) else names.index(output)
        return Link(self, slot, self.info["output"][slot])


@dataclass
class Link:
    source: Node
    slot: int
    type: str


Socket = Union[Node, Link]  # a node stands for its first output


@dataclass
class Group:
    title: str
    columns: list[list[Node]] = field(default_factory=lambda: [[]])
    below: bool = False  # the group before this one
    bounding: tuple[int, int, int, int] = (0, 0, 0, 0)


def specs(info: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any], bool]]:
    """(name, type, options, whether it is optional) of every input, in the order of the node's definition."""
    for part in ("required", "optional"):  # a note has no info and no inputs
        for name, spec in info.get("input", {}).get(part, {}).items():
            yield name, spec[0], spec[1] if len(spec) > 1 else {}, part == "optional"


def is_widget(kind: Any, options: dict[str, Any]) -> bool:
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def choices(kind: Any, options: dict[str, Any]) -> list[Any] | None:
    """What a combo offers; None for other inputs."""
    return kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None


def has_seed_control(name: str, kind: Any, options: dict[str, Any]) -> bool:
    """Whether the browser adds the widget that says what happens to the value after a run."""
    return kind == "INT" and bool(options.get("control_after_generate", name in ("seed", "noise_seed")))


class Workflow:
    """Build with `note`, `group`, `column` and `add`; read with `ui` and `api`."""

    def __init__(self, object_info: dict[str, Any], pack_version: str) -> None:
        self.object_info, self.pack_version = object_info, pack_version
        self.nodes: list[Node] = []
        self.groups: list[Group] = []

    def note(self, text: str, *, width: int = 420, title: str = "Read me") -> None:
        """A Markdown note in the current column, tall enough for its text."""
        lines = sum(1 + len(line) // (width // 6) for line in text.splitlines())
        self._place(Node(len(self.nodes) + 1, "MarkdownNote", {}, {"text": text}, title, width, 60 + 15 * lines))

    def group(self, title: str, *, below: bool = False) -> None:
        """Begin a group: to the right of the last one, or below it."""
        self.groups.append(Group(title, below=below))

    def column(self) -> None:
        """Begin the next column of the current group."""
        self.groups[-1].columns.append([])

    def add(
        self,
        kind: str,
        *,
        title: str = "",
        wide: int = 320,
        bypass: bool = False,
        unlisted: str = "",
        **inputs: Any,
    ) -> Node:
        """A node in the current column, `wide` pixels; inputs are values or `Socket`s, defaults need not be given.

        `unlisted` names a combo whose value may be missing on this server (a file that the user chooses).
        Raises: WorkflowError.
        """
        if kind not in self.object_info:
            raise WorkflowError(f"the server has no node {kind}")
        info = self.object_info[kind]
        filled = _fill(kind, info, inputs, unlisted)
        height = _height(kind, info)
        mode = BYPASS if bypass else NORMAL
        node = Node(len(self.nodes) + 1, kind, info, filled, title or info["display_name"], wide, height, mode)
        return self._place(node)

    def _place(self, node: Node) -> Node:
        self.nodes.append(node)
        self.groups[-1].columns[-1].append(node)
        return node

    def _lay_out(self) -> None:
        right, last = 0, None
        for group in self.groups:
            if group.below and last is not None:
                x, y = last.bounding[0], last.bounding[3] + MARGIN
            else:
                x, y = right, 0
            left, bottom = x, y
            for column in group.columns:
                x += MARGIN
                top = y + 2 * MARGIN + TITLE  # the group's own title, then that of the first node
                for node in column:
                    node.at = (x, top)
                    top += node.height + GROWTH.get(node.type, 0) + TITLE + GAP
                bottom = max(bottom, top - TITLE - GAP + MARGIN)
                x += max(node.width for node in column)
            group.bounding = (left, y, x + MARGIN, bottom)
            right, last = max(right, x + 2 * MARGIN), group

    def ui(self) -> dict[str, Any]:
        """The graph as the browser saves it."""
        self._lay_out()
        links: list[list[Any]] = []
        leaving: dict[tuple[int, int], list[int]] = {}  # (node, output) -> links
        nodes = [
            {**_saved(node, self.pack_version), "inputs": _slots(node, links, leaving)} for node in self.nodes
        ]
        for saved, node in zip(nodes, self.nodes, strict=True):
            outputs = zip(node.info.get("output_name", ()), node.info.get("output", ()), strict=True)
            saved["outputs"] = [
                {"name": name, "type": kind, "links": leaving.get((node.id, slot))}
                for slot, (name, kind) in enumerate(outputs)
            ]
        groups = [
            {"id": i, "title": g.title, "bounding": _box(g), "color": _colour(g), "font_size": 24, "flags": {}}
            for i, g in enumerate(self.groups, 1)
        ]
        view = {"ds": {"scale": 0.6, "offset": [60, 90]}, "frontendVersion": FRONTEND}
        return {
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": groups,
            "config": {},
            "extra": {**view, "linearData": self._app()},
            "version": 0.4,
        }

    def _app(self) -> dict[str, Any]:
        """What App mode shows, where the browser has it: widgets as [node, name], and nodes of results."""
        on = [node for node in self.nodes if node.mode == NORMAL]
        inputs = [[node.id, name] for node in on for name in APP_INPUTS.get(node.type, ())]
        return {"inputs": inputs, "outputs": [node.id for node in on if node.type in APP_OUTPUTS]}

    def api(self) -> dict[str, Any]:
        """The graph as the server runs it: without notes, links led past bypassed nodes as the browser does."""
        return {
            str(node.id): {
                "class_type": node.type,
                "inputs": {name: _api_value(v) for name, v in node.inputs.items() if _api_value(v) is not None},
                "_meta": {"title": node.title},
            }
            for node in self.nodes
            if node.info and node.mode == NORMAL
        }


def _slots(node: Node, links: list[list[Any]], leaving: dict[tuple[int, int], list[int]]) -> list[dict[str, Any]]:
    """The sockets at the left of a node; the links that enter them are added to `links` and `leaving`."""
    slots: list[dict[str, Any]] = []
    for name, kind, options, optional in specs(node.info):
        link = node.inputs.get(name)
        widget = is_widget(kind, options)
        if widget and not isinstance(link, Link):
            continue
        slot: dict[str, Any] = {"name": name, "type": "COMBO" if isinstance(kind, list) else kind}
        slot |= {"shape": 7} if optional else {}
        slot |= {"widget": {"name": name}} if widget else {}
        slot["link"] = None
        if isinstance(link, Link):
            slot["link"] = number = len(links) + 1
            links.append([number, link.source.id, link.slot, node.id, len(slots), link.type])
            leaving.setdefault((link.source.id, link.slot), []).append(number)
        slots.append(slot)
    return slots


def _saved(node: Node, pack_version: str) -> dict[str, Any]:
    """A node as the browser saves it, without its sockets."""
    saved = {
        "id": node.id,
        "type": node.type,
        "pos": list(node.at),
        "size": [node.width, node.height],
        "flags": {},
        "order": node.id - 1,
        "mode": node.mode,
        "properties": {},
        "widgets_values": [],
        **node_colours(node.type),
    }
    if node.title != node.info.get("display_name"):
        saved["title"] = node.title
    if not node.info:
        return {**saved, "widgets_values": [node.inputs["text"]]}
    values: list[Any] = []
    for name, kind, options, _ in specs(node.info):
        if is_widget(kind, options):
            value = node.inputs.get(name)
            values.append(options.get("default") if isinstance(value, Link) else value)
            values += ["fixed"] if has_seed_control(name, kind, options) else []
    ours = node.type.startswith("LetsTalk")
    pack = {"cnr_id": "letstalk-portrait", "ver": pack_version} if ours else {"cnr_id": "comfy-core"}
    return {**saved, "properties": {**pack, "Node name for S&R": node.type}, "widgets_values": values}


def _fill(kind: str, info: dict[str, Any], given: dict[str, Any], unlisted: str) -> dict[str, Any]:
    """The inputs of a node, defaults included, in the order of its definition. Raises: WorkflowError."""
    if unknown := set(given) - {name for name, *_ in specs(info)}:
        raise WorkflowError(f"{kind} has no input {sorted(unknown)}")
    filled = {}
    for name, type_, options, optional in specs(info):
        offered = choices(type_, options)
        if name in given:
            value = given[name][0] if isinstance(given[name], Node) else given[name]
        elif is_widget(type_, options):
            value = options.get("default", offered[0] if offered else None)
        elif optional:
            continue
        else:
            raise WorkflowError(f"{kind}.{name} needs a link")
        if isinstance(value, Link):
            if type_ != "*" and not {value.type, "*"} & set(str(type_).split(",")):
                raise WorkflowError(f"{kind}.{name} takes {type_}, not {value.type} of {value.source.type}")
        elif offered is not None and value not in offered and name != unlisted:
            raise WorkflowError(f"{kind}.{name}: {value!r} is not one of {offered}")
        filled[name] = value
    return filled


def _api_value(value: Any) -> Any:
    while isinstance(value, Link) and value.source.mode == BYPASS:
        passes = [v for v in value.source.inputs.values() if isinstance(v, Link) and v.type == value.type]
        value = passes[0] if passes else None
    return [str(value.source.id), value.slot] if isinstance(value, Link) else value


def _height(kind: str, info: dict[str, Any]) -> int:
    """Of a node with what it folds away folded away, in whichever way of drawing it is higher."""
    shown = folded = 0
    for name, type_, options, _ in specs(info):
        if is_widget(type_, options):
            rows = 1 + has_seed_control(name, type_, options) + any(key.endswith("_upload") for key in options)
            shown, folded = (shown, folded + rows) if options.get("advanced") else (shown + rows, folded)
    sockets = sum(not is_widget(type_, options) for _, type_, options, _ in specs(info))
    on_canvas = WIDGET_ROW * (shown if kind in FOLDS_ON_CANVAS else shown + folded)
    by_vue = WIDGET_ROW * shown + vue_room(info, shown, folded > 0)
    return 16 + ROW * max(sockets, len(info["output"])) + max(on_canvas, by_vue) + PREVIEW.get(kind, 0)


def _colour(group: Group) -> str:
    return group_colour([node.type for column in group.columns for node in column])


def _box(group: Group) -> list[int]:
    left, top, right, bottom = group.bounding
    return [left, top, right - left, bottom - top]
