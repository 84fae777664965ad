"""Damage to bytes, JSON and TOML values, drawn from a seeded generator."""

from __future__ import annotations

import copy
import json
import struct
from random import Random
from typing import Any

HOSTILE_NAMES = (
    "../outside/victim.txt", "../../etc/passwd", "/etc/passwd", "..", ".", "", " ", "a/../../outside/new",
    "..\\outside\\victim.txt", "C:\\Windows\\system.ini", "\\\\server\\share\\x", "nul\0byte", "x" * 5000,
    "link", "link/victim.txt", "folder_link/victim.txt", "\ud800", "\u202egnp.exe", "~", "~/x", "file:///etc/passwd",
    "http://127.0.0.1:9/x", "concat:a|b", "%2e%2e/outside", "-rf", "a\nb", "ünï/ço∂é", "a" * 300 + ".safetensors",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 3, 7, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**31),
    -(2**63), 10**30, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
TABLE_VALUES = (*NUMBERS, True, False, "", "x", "euler", "x" * 10_000, [], {}, [[]], [None], {"a": {"a": {}}})
WORDS = [struct.pack("<I", n) for n in (0, 1, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)]


def bad_value(rng: Random) -> Any:
    """A JSON value nobody expects."""
    kind = rng.randrange(12)
    if kind == 0:
        deep: Any = 1
        for _ in range(rng.choice((20, 500, 100_000))):
            deep = [deep]
        return deep
    if kind == 1:
        return rng.choice(HOSTILE_NAMES)
    if kind == 2:
        return [rng.choice(NUMBERS) for _ in range(rng.randrange(6))]
    if kind == 3:
        return None
    if kind <= 8:
        return rng.choice(NUMBERS)
    return copy.deepcopy(rng.choice(TABLE_VALUES))


def bad_json(rng: Random, value: Any) -> Any:
    """A copy of a JSON value in which a few nodes are replaced, dropped, doubled or renamed."""
    holder = {"": copy.deepcopy(value)}
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        parent, key = _any_node(rng, holder)
        action = rng.randrange(10)
        if action == 0 and parent is not holder:
            del parent[key]
        elif action == 1 and isinstance(parent, dict) and parent is not holder:
            parent[rng.choice((*HOSTILE_NAMES, "kind", "config", "__metadata__"))] = parent.pop(key)
        elif action == 2 and isinstance(parent, list):
            parent.extend(parent * rng.choice((1, 2, 50)))
        elif action == 3 and isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
            parent[key] = rng.choice((-parent[key], parent[key] * 2, parent[key] * 10**6, str(parent[key])))
        else:
            parent[key] = bad_value(rng)
    return holder[""]


def _any_node(rng: Random, root: dict[str, Any]) -> tuple[Any, Any]:
    """A container of the tree and a key of it; deeper nodes are as likely as shallow ones."""
    found = []
    stack: list[Any] = [root]
    while stack and len(found) < 2000:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))[:50]
        for key in keys:
            found.append((node, key))
            if isinstance(node[key], (dict, list)) and len(found) < 2000:
                stack.append(node[key])
    return rng.choice(found)


def dump_json(value: Any) -> bytes:
    """JSON with lone surrogates, NaN and nesting beyond what Python's encoder follows."""
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError):
        return b"[" * 100_000


def bad_text(rng: Random, text: str) -> bytes:
    """Damaged lines of a text."""
    lines = text.splitlines(keepends=True) or [""]
    for _ in range(rng.choice((1, 1, 2, 5))):
        i = rng.randrange(len(lines))
        action = rng.randrange(7)
        if action == 0:
            lines[i] = ""
        elif action == 1:
            lines[i] = lines[i] * 2
        elif action == 2:
            lines[i] = lines[i][: rng.randrange(len(lines[i]) + 1)]
        elif action == 3:
            lines[i] = "[" * rng.choice((1, 200, 60_000)) + "\n"
        elif action == 4:
            lines[i] = "a." * rng.choice((3, 20_000)) + "a = 1\n"
        elif action == 5:
            rng.shuffle(lines)
        else:
            lines[i] = lines[i].replace("=", rng.choice(("==", ":", " ")), 1)
    data = "".join(lines).encode("utf-8", "surrogatepass")
    return bad_bytes(rng, data) if rng.random() < 0.3 else data


def bad_bytes(rng: Random, data: bytes, head: int = 4096) -> bytes:
    """Flipped, cut, doubled, foreign and extreme bytes; half of them near the start, where headers are."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        if not result:
            return bytes(rng.randbytes(rng.randrange(64)))
        at = rng.randrange(min(len(result), head) if rng.random() < 0.6 else len(result))
        action = rng.randrange(9)
        if action <= 1:
            result[at] ^= 1 << rng.randrange(8)
        elif action == 2:
            result[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif action == 3:
            word = rng.choice(WORDS)
            word = word if rng.random() < 0.5 else word[::-1]
            result[at : at + len(word)] = word
        elif action == 4:
            del result[at : at + rng.choice((1, 4, 64, 4096))]
        elif action == 5:
            result[at:at] = rng.randbytes(rng.choice((1, 4, 64, 4096)))
        elif action == 6:
            part = result[at : at + rng.choice((8, 512, 8192))]
            result[at:at] = part
        elif action == 7 and rng.random() < 0.3:
            del result[at:]
        else:
            result[at : at + 8] = rng.randbytes(8)
    return bytes(result)
