"""What a running node knows of the graph around it."""

from __future__ import annotations

from typing import Any


def is_wired(dynprompt: Any, node_id: str | None, output: int) -> bool:
    """Whether another node takes this output of a node in ComfyUI's running graph; False outside of one."""
    if dynprompt is None or node_id is None:
        return False
    link = [str(node_id), output]
    nodes = (dynprompt.get_node(other) for other in dynprompt.all_node_ids())
    values = (value for node in nodes for value in node.get("inputs", {}).values() if isinstance(value, list))
    return any(len(value) == 2 and [str(value[0]), value[1]] == link for value in values)
