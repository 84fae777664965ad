"""Every node of ComfyUI that patches a MODEL by numbers alone works on ours, or does nothing to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model_setup import Setup, guided, sample

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
OF_UNETS = {  # ask for parts that only U-Nets have; they fail on Flux and Wan, too
    "FreeU",
    "FreeU_V2",
    "HyperTile",
}
SLOW = {"TorchCompileModel"}


def defaults(node: Any) -> dict[str, Any] | None:
    """Inputs of a node that takes one MODEL and widgets and gives a MODEL first, else None."""
    info = node.GET_NODE_INFO_V1() if hasattr(node, "GET_NODE_INFO_V1") else None
    inputs = (info["input"] if info else node.INPUT_TYPES()).get("required", {})
    outputs = info["output"] if info else node.RETURN_TYPES
    if "model" not in inputs or not outputs or outputs[0] != "MODEL":
        return None
    values: dict[str, Any] = {}
    for name, spec in inputs.items():
        kind, options = spec[0], spec[1] if len(spec) > 1 else {}
        if name == "model":
            continue
        choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
        if choices is None and kind not in WIDGETS:
            return None
        if choices is not None and not choices:
            return None  # files that are not there
        values[name] = options.get("default", choices[0] if choices else 0)
    return values


def native(comfy_nodes: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for name, node in sorted(comfy_nodes.items()):
        if name.startswith("LetsTalk") or name in OF_UNETS | SLOW:
            continue
        values = defaults(node)
        if values is not None:
            yield name, node, values


def test_native_patches_leave_a_model_that_samples(setup: Setup, comfy_nodes: dict[str, Any]) -> None:
    failed, tried = {}, []
    for name, node, values in native(comfy_nodes):
        tried.append(name)
        try:
            if hasattr(node, "GET_NODE_INFO_V1"):
                patched = node.execute(model=setup.patcher, **values).args[0]
            else:
                patched = getattr(node(), node.FUNCTION)(model=setup.patcher, **values)[0]
            assert sample(setup, guided(setup, patched)).isfinite().all(), "not finite"
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    assert not failed, failed
    assert len(tried) > 15, tried
