"""Bring node help and the English locale up to date with the nodes: `python scripts/update_node_help.py URL`.

URL is that of a running ComfyUI with this pack, http://127.0.0.1:8188 by default. Written are
`locales/en/nodeDefs.json` and, in `js/docs/<node>/<language>.md`, everything between the headings of inputs and
wiring. The rest of the pages, and `locales/zh/nodeDefs.json`, are written by hand.
"""

from __future__ import annotations

import itertools
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORDS = {  # language: headings of inputs, outputs and wiring; words for optional and default
    "en": ("## Inputs", "## Outputs", "## Wiring", "optional", "default"),
    "zh": ("## 输入", "## 输出", "## 连接", "可选", "默认"),
}


def inputs_of(node: dict[str, Any]) -> Iterator[tuple[str, list[Any], bool]]:
    """Name, specification and whether it is optional, of every input."""
    for kind in ("required", "optional"):
        for name, spec in node["input"].get(kind, {}).items():
            yield name, spec, kind == "optional"


def english(node: dict[str, Any]) -> dict[str, Any]:
    """The entry of a node in the English locale: what its schema says."""
    entry: dict[str, Any] = {"display_name": node["display_name"], "description": node["description"]}
    entry["inputs"] = {name: {"name": name, "tooltip": spec[1]["tooltip"]} for name, spec, _ in inputs_of(node)}
    tips = node.get("output_tooltips") or [None] * len(node["output_name"])
    outputs = {}
    for i, (name, tip) in enumerate(zip(node["output_name"], tips, strict=True)):
        outputs[str(i)] = {"name": name, "tooltip": tip} if tip else {"name": name}
    return {**entry, "outputs": outputs} if outputs else entry


def values(spec: list[Any], default: str) -> str:
    """What a number, a switch or a short list may be."""
    kind, options = spec
    if kind == "COMBO":
        short = 1 < len(options["options"]) <= 5 and all(len(option) < 20 for option in options["options"])
        return ", ".join(options["options"]) if short else ""
    if "default" not in options:
        return ""
    value = options["default"]
    span = f"{options['min']:g} … {options['max']:g}, " if options.get("max", 1e9) < 1e6 else ""
    return f"{span}{default} {json.dumps(value) if isinstance(value, (bool, str)) else f'{value:g}'}"


def lists(node: dict[str, Any], texts: dict[str, Any], language: str) -> str:
    """Inputs and outputs of a node as Markdown: lists, for the help panel is too narrow for tables."""
    inputs_title, outputs_title, _, optional, default = WORDS[language]
    lines = [inputs_title, ""]
    for name, spec, is_optional in inputs_of(node):
        text = texts["inputs"][name]
        facts = [spec[0], optional if is_optional else "", values(spec, default)]
        about = ", ".join(fact for fact in facts if fact)
        lines.append(f"- {labelled(name, text['name'])} ({about}): {text['tooltip']}")
    if node["output_name"]:
        lines += ["", outputs_title, ""]
    for i, (name, kind) in enumerate(zip(node["output_name"], node["output"], strict=True)):
        text = texts["outputs"][str(i)]
        tip = f": {text['tooltip']}" if "tooltip" in text else ""
        lines.append(f"- {labelled(name, text['name'])} ({kind}){tip}")
    return "\n".join([*lines, "", ""])


def labelled(name: str, translated: str) -> str:
    return f"`{name}`" if name == translated else f"{translated} `{name}`"


def refreshed(page: str, told: str, language: str) -> str:
    """A page with other lists of inputs and outputs. Raises: ValueError if it lacks the headings."""
    inputs_title, _, wiring_title, *_ = WORDS[language]
    return page[: page.index(inputs_title)] + told + page[page.index(wiring_title) :]


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8188"
    with urllib.request.urlopen(f"{url}/object_info") as reply:
        nodes = {name: node for name, node in json.load(reply).items() if name.startswith("LetsTalk")}
    texts = {"en": {name: english(node) for name, node in nodes.items()}}
    texts["zh"] = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    locale = ROOT / "locales" / "en" / "nodeDefs.json"
    locale.write_text(json.dumps(texts["en"], ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    for name, language in itertools.product(nodes, WORDS):
        path = ROOT / "js" / "docs" / name / f"{language}.md"
        told = lists(nodes[name], texts[language][name], language)
        path.write_text(refreshed(path.read_text(encoding="utf-8"), told, language), encoding="utf-8")


if __name__ == "__main__":
    main()
