"""`letstalk convert SOURCE -o FILE`: public checkpoints to one safetensors file that holds its config."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from ..networks.config import Config

KINDS = ("dit", "autoencoder", "audio_encoder")
DENOISER_ONLY = ("num_heads", "memory_frames", "clip_frames")  # what its shapes do not tell
PICKLES = (".pt", ".pth", ".ckpt", ".bin")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="turn a public checkpoint into a LetsTalk model file",
        description="Take a denoiser checkpoint of the authors (model, ema and audioproj in one file, or as"
        " prefixes in that of a training framework), a DC-AE file or folder in either public format, or a wav2vec2"
        " folder. Pickled code is never run.",
    )
    add = parser.add_argument
    add("source", help="file or folder")
    add("-o", "--output", required=True, help="the .safetensors file to write")
    add("--kind", choices=KINDS, help="what the source is, if it is not recognised")
    add("--weights", choices=("ema", "model"), default="ema", help="which weights of a denoiser (ema)")
    add("--num-heads", type=int, help="temporal and audio attention heads, if the width is no preset's")
    add("--memory-frames", type=int, help="frames a denoiser remembers (what its time table has beyond a clip)")
    add("--clip-frames", type=int, help="frames of one clip of a denoiser (16)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="store the weights so (default: as they are)")
    add("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run)


def _recognise(source: Path) -> str:
    """The kind of a source, from its config.json or the names inside. Raises: CheckpointError."""
    if not source.exists():
        raise CheckpointError(f"{source}: no such file or folder; check the path")
    if source.is_dir():
        try:
            config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return "autoencoder"
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{source / 'config.json'}: cannot be read ({error}); get the folder again"
            ) from None
        return "audio_encoder" if isinstance(config, dict) and "model_type" in config else "autoencoder"
    if _holds_denoiser(source):
        return "dit"
    return "autoencoder"


def _holds_denoiser(source: Path) -> bool:
    from ..networks.checkpoint import load_pickled_tensors, read_header
    from ..networks.transformer.official_layout import flat_names, holds_denoiser

    if source.suffix in PICKLES:
        content = load_pickled_tensors(source, device="meta")  # names only; tensors stay on disk where they can
        return "audioproj" in content or holds_denoiser(flat_names(content))
    return source.suffix == ".safetensors" and holds_denoiser(read_header(source).shapes)


def _load(args: argparse.Namespace, kind: str) -> dict[str, tuple[Config, Mapping[str, Tensor]]]:
    if kind == "dit":
        from ..networks.transformer.convert import load_official

        changes = {name: getattr(args, name) for name in DENOISER_ONLY if getattr(args, name) is not None}
        loaded = load_official(args.source, weights=args.weights, **changes)
        sys.stderr.writelines(f"{note}\n" for note in loaded.notes)
        parts: dict[str, tuple[Config, Mapping[str, Tensor]]] = {"dit": (loaded.dit_config, loaded.dit)}
        if loaded.projection_config is not None and loaded.projection is not None:
            parts["audio_projection"] = (loaded.projection_config, loaded.projection)
        return parts
    if kind == "autoencoder":
        from ..networks.autoencoder.convert import read_autoencoder

        return {"autoencoder": read_autoencoder(args.source)}
    from ..networks.audio_encoder import load_wav2vec2_folder

    encoder = load_wav2vec2_folder(args.source)
    return {"audio_encoder": (encoder.config, encoder.state_dict())}


def _check(source: str, parts: Mapping[str, tuple[Config, Mapping[str, Tensor]]]) -> None:
    """Every tensor must fit the network that the config builds, so that the file written will load."""
    from ..networks.checkpoint import check_keys
    from ..networks.load import build_model

    for config, tensors in parts.values():
        if config.kind != "audio_encoder":  # already loaded into its network
            check_keys(source, tensors, build_model(config, device="meta").state_dict())


def run(args: argparse.Namespace) -> int:
    import torch

    from ..networks.checkpoint import save_checkpoint
    from .output import check_output

    output = check_output(args.output, overwrite=args.overwrite)
    if output.suffix != ".safetensors":
        raise ConfigError(f"{output}: the name of a model file must end in .safetensors")
    kind = args.kind or _recognise(Path(args.source))
    parts = _load(args, kind)
    _check(args.source, parts)
    if args.dtype:
        dtype = getattr(torch, args.dtype)
        parts = {
            name: (config, {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()})
            for name, (config, tensors) in parts.items()
        }
    save_checkpoint(output, parts, {"source": Path(args.source).name})
    numbers = {name: sum(t.numel() for t in tensors.values()) for name, (_, tensors) in parts.items()}
    sys.stderr.write(f"wrote {output}: " + ", ".join(f"{k} ({n / 1e6:.2f} M)" for k, n in numbers.items()) + "\n")
    if kind == "dit" and "audio_projection" not in parts:
        sys.stderr.write(
            "note: the source has no audio projection (audioproj), without which nothing can be generated\n"
        )
    return 0
