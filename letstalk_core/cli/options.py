"""Options that say how a video is made, the same for one video and for many."""

from __future__ import annotations

import argparse


def scale(text: str) -> float | str:
    """A guidance scale: a number, or what `asscale` reads of one that changes, when there are models to ask."""
    try:
        return float(text)
    except ValueError:
        return text


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model, and what every command lets it do in another way."""
    add = parser.add_argument
    add("--model", metavar="DIR", help="model folder (default: the demo model)")
    add("--steps", type=int, help="sampling steps per clip (default: by model)")
    add("--seed", type=int, default=0, help="same seed, same video (default 0)")
    add("--fps", type=float, help="frames per second (default: what the model was trained at)")
    add(
        "--cfg-audio",
        type=scale,
        metavar="SCALE",
        help="audio guidance; 1 is none and fastest, 1.6:1.0 falls over the steps (default: by model)",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Options of the model, of what it makes and of what it runs on; none says where results go."""
    add_model(parser)
    add = parser.add_argument
    add("--solver", help="euler, heun, dpmpp_2m or ddpm (default: by model)")
    add("--schedule", choices=("model", "karras"), default="model", help="noise levels (default: the model's)")
    add("--shift", type=float, help="flow models: above 1 spends more steps at high noise (default: by model)")
    add(
        "--cfg-portrait",
        type=scale,
        default=1.0,
        metavar="SCALE",
        help="portrait guidance, in the same way (default 1)",
    )
    add(
        "--size",
        metavar="N|WxH|own",
        help="size of the video in pixels; own: that of the animated part of the picture, for models with carry"
        " (default: what the model was trained at)",
    )
    add("--no-puppet", action="store_true", help="a photograph's face as the model makes it, not drawn from it")
    add("--no-carry", action="store_true", help="plain frames, without the portrait's own detail carried along")
    add("--no-crop", action="store_true", help="animate the whole picture instead of the part around its face")
    add("--crop-face", action="store_true", help="a video of that part alone, not of the whole picture")
    add(
        "--face-detector",
        choices=("bundled", "yunet"),
        default="bundled",
        help="what finds the face; yunet needs kornia and its weights (default bundled)",
    )
    add(
        "--memory-noise",
        type=float,
        metavar="SIGMA",
        help="noise on remembered frames, 0 to 1 (default: by model)",
    )
    add(
        "--match-statistics",
        action="store_true",
        help="hold remembered frames to the portrait's colour statistics",
    )
    add(
        "--drift-level",
        type=float,
        default=0.0,
        metavar="SCORE",
        help="pull the memory back to the portrait after clips that are less like it than this, 0 to 1 (default 0:"
        " never)",
    )
    add(
        "--movement",
        type=float,
        default=1.0,
        metavar="AMOUNT",
        help="how much head, brows and gaze move, 0 to 2, for models conditioned on it (default 1)",
    )
    add(
        "--emotion",
        metavar="NAME",
        help="a look that is added: happy, sad, angry, surprised or stern; with a strength, as in happy:0.5",
    )
    add(
        "--as-authors",
        action="store_true",
        help="count frames, pad the sound and scale the portrait as the authors' code does",
    )
    add_machine(parser)
    add("--compile", action="store_true", help="compile the networks first (minutes; for long runs on a GPU)")
    add("--sign", metavar="CERT", help="sign the video (Content Credentials) with this certificate chain, PEM")
    add("--sign-key", metavar="KEY", help="private key of the first certificate, PEM")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """What the models run on."""
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="of the models")
    add("--threads", type=int, help="CPU threads; a continued run keeps the number it began with")


def add_results(parser: argparse.ArgumentParser) -> None:
    """What may be replaced, and what is said."""
    add = parser.add_argument
    add("--overwrite", action="store_true", help="replace existing results")
    add("--json", action="store_true", help="print a summary as JSON on stdout")
    add("--quiet", action="store_true", help="print errors only")
