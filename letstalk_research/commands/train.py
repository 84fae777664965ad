"""`letstalk train STAGE --config RECIPE`: train one of the networks from a recipe."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from letstalk_core.errors import ConfigError

if TYPE_CHECKING:
    from ..training.config import Recipe
    from ..training.runtime import Stage

STAGES = ("autoencoder", "carry", "audio", "dit", "faces", "lips")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train autoencoder, masks of carry, audio encoder, denoiser or lips from a recipe",
        description="Train one network. A run whose folder holds checkpoints goes on exactly where it was. Ctrl-C"
        " or SIGTERM writes a checkpoint and ends with 128 + the signal's number.",
    )
    add = parser.add_argument
    add("stage", choices=STAGES)
    add("--config", required=True, help="TOML recipe, or the name of a shipped one such as demo_dit")
    add(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        dest="overrides",
        help="change a key of the recipe, e.g. --set loop.run=runs/one --set optimizer.lr=3e-4; may be repeated",
    )
    add(
        "--init-from",
        metavar="FILE",
        help="(dit) start spatial attention and Mix-FFN from a public SANA transformer of the same width; what"
        " does not fit is reported by name",
    )
    add("--dry-run", action="store_true", help="print the resolved recipe as JSON and stop")
    parser.set_defaults(run=run)


def build_stage(recipe: Recipe) -> Stage:
    """The stage object of a recipe."""
    from ..training.audio import AudioStage
    from ..training.autoencoder import AutoencoderStage
    from ..training.carry import CarryStage
    from ..training.diffusion import DiTStage
    from ..training.faces import FacesStage
    from ..training.lips import LipsStage

    stages: dict[str, Callable[[Any], Stage]] = {
        "autoencoder": AutoencoderStage, "carry": CarryStage, "audio": AudioStage, "dit": DiTStage,
        "faces": FacesStage, "lips": LipsStage,
    }  # fmt: skip
    return stages[recipe.stage](recipe)


def run(args: argparse.Namespace) -> int:
    from ..training.recipe import load_recipe

    overrides = list(args.overrides)
    if args.init_from is not None:
        if args.stage != "dit":
            raise ConfigError(f"--init-from: is for the dit stage, not {args.stage!r}")
        overrides.append(f"objective.init_from={json.dumps(args.init_from)}")
    recipe = load_recipe(args.stage, args.config, overrides)
    if args.dry_run:
        sys.stdout.write(json.dumps(recipe.to_dict(), indent=2) + "\n")
        return 0
    import torch

    from ..training.loop import train
    from . import show_log

    show_log()

    try:
        result = train(build_stage(recipe))
    finally:
        if torch.distributed.is_initialized():  # gloo's threads may abort a process that ends with them
            torch.distributed.destroy_process_group()
    if result.signal is not None:
        sys.stderr.write(f"stopped at step {result.step}; run the same command again to go on\n")
        return 128 + result.signal
    sys.stderr.write("".join(f"wrote {path}\n" for path in result.exported))
    return 0


def main() -> int:
    """Run as `python -m letstalk_research.commands.train STAGE …`, as `accelerate launch -m` does."""
    parser = argparse.ArgumentParser(prog="letstalk")
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["train", *sys.argv[1:]])
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
