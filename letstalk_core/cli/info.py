"""`letstalk info FILE`: what a model file, a memory bank or a video says of itself; headers only."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .output import printable

OURS = ("file", "bytes", "type")  # lines whose words are not the file's


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "info",
        help="show what a model file, memory bank or video says of itself",
        description="Show configs, tensors and metadata of a model file, or streams and metadata of a video.",
    )
    parser.add_argument("file", help="model, memory bank, video or sound")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def describe(path: Path) -> dict[str, Any]:
    """All that `info` shows. Raises: CheckpointError, MediaError."""
    if path.suffix == ".safetensors" or path.is_dir():
        return _describe_model(path)
    from ..media.video.content_credentials import read_credentials

    found = _describe_picture(path) if path.suffix.lower() == ".png" else _describe_media(path)
    credentials = read_credentials(path)
    return found if credentials is None else {**found, "content_credentials": credentials}


def _about(path: Path, kind: str) -> dict[str, Any]:
    return {"file": str(path), "bytes": path.stat().st_size, "type": kind}


def _describe_model(path: Path) -> dict[str, Any]:
    from ..networks.checkpoint import read_header
    from ..sampling.memory_bank import FORMAT

    header = read_header(path)
    if FORMAT in header.metadata:
        found = _about(path, "memory bank") | {"memory_bank": _maybe_json(header.metadata[FORMAT])}
        if not isinstance(found["memory_bank"], dict):
            raise CheckpointError(f"{path}: is a damaged memory bank; save it again")
    else:
        found = _about(path, "LetsTalk model" if header.parts else "safetensors file without LetsTalk config")
    found["parts"] = {
        name: {
            "kind": config.kind,
            "parameters": sum(math.prod(s) for k, s in header.shapes.items() if k.startswith(f"{name}.")),
            "config": config.to_dict(),
        }
        for name, config in header.parts.items()
    }
    found["tensors"] = len(header.shapes)
    found["parameters"] = sum(math.prod(s) for s in header.shapes.values())
    found["dtypes"] = dict(Counter(header.dtypes.values()))
    shown = ("letstalk.version", "letstalk.parts", FORMAT)
    found["metadata"] = {k: v for k, v in header.metadata.items() if k not in shown}
    return found


def _describe_picture(path: Path) -> dict[str, Any]:
    """A PNG; frames of `letstalk generate --png` say in it how they were made."""
    from ..media.portrait.image import read_texts

    (height, width), texts = read_texts(path)
    metadata = {k: _maybe_json(v) for k, v in texts.items()}
    return _about(path, "picture (PNG)") | {"width": width, "height": height, "metadata": metadata}


def _describe_media(path: Path) -> dict[str, Any]:
    from ..media.av_input import open_media

    with open_media(path) as container:
        streams = []
        for stream in container.streams:
            entry: dict[str, Any] = {"type": stream.type}
            if stream.type in ("video", "audio") and stream.codec_context is not None:
                entry["codec"] = stream.codec_context.name
                context = stream.codec_context
                if stream.type == "video":
                    entry |= {"width": context.width, "height": context.height}
                    entry |= {"fps": float(stream.average_rate or 0), "frames": stream.frames}
                else:
                    entry |= {"sample_rate": context.sample_rate, "channels": context.channels}
            streams.append(entry)
        return _about(path, f"media ({container.format.long_name})") | {
            "seconds": container.duration / 1e6 if container.duration else None,
            "streams": streams,
            "metadata": {k: _maybe_json(v) for k, v in container.metadata.items()},
        }


def _maybe_json(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _lines(value: Any, indent: int = 0) -> list[str]:
    """What we say ourselves is printed plainly; whatever a file says is quoted, on one line, without controls."""
    space, lines = "  " * indent, []
    for key, item in value.items():
        name = printable(str(key))
        if isinstance(item, dict):
            lines += [f"{space}{name}:", *_lines(item, indent + 1)] if item else []
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for i, entry in enumerate(item):
                lines += [f"{space}{name} {i}:", *_lines(entry, indent + 1)]
        else:
            plain = indent == 0 and key in OURS
            text = ", ".join(_text(part, plain) for part in (item if isinstance(item, (list, tuple)) else [item]))
            lines.append(f"{space}{name}: {text}")
    return lines


def _text(value: Any, plain: bool) -> str:
    if not isinstance(value, str) or plain:
        return printable(str(value))
    return '"' + printable(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def run(args: argparse.Namespace) -> int:
    found = describe(Path(args.file))
    sys.stdout.write((json.dumps(found, indent=2) if args.json else "\n".join(_lines(found))) + "\n")
    return 0
