"""`letstalk encode`: encode the clips of a training folder once, for the training of the denoiser."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "encode",
        help="encode a training folder's clips into cached latents and audio states",
        description="Clips that already have latents of the same models are kept, so the command may be stopped,"
        " repeated while clips are still being added, and shared between processes with --first and --stride.",
    )
    add = parser.add_argument
    add("folder", help="folder with manifest.jsonl")
    add("--autoencoder", required=True, metavar="FILE", help="autoencoder .safetensors")
    add("--audio-encoder", required=True, metavar="FILE", help="audio encoder .safetensors")
    add("--noisy-copies", action="store_true", help="also encode frames with noise, for the memory")
    add("--batch", type=int, default=8, help="frames encoded at once (default 8)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    add("--threads", type=int, help="CPU threads")
    add("--first", type=int, default=0, help="index of this process, from 0")
    add("--stride", type=int, default=1, help="number of processes sharing the work")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from letstalk_core.cli.hardware import at_least, check_share, choose_device, use_threads
    from letstalk_core.files import file_sha256
    from letstalk_core.networks.load import load_model

    from ..data.encoding import encode_folder

    check_share(args.first, args.stride)
    at_least(1, batch=args.batch)
    use_threads(args.threads)
    device = choose_device(args.device)
    autoencoder = load_model(args.autoencoder, "autoencoder", device=device)
    audio_encoder = load_model(args.audio_encoder, "audio_encoder", device=device)
    hashes = {"autoencoder": file_sha256(args.autoencoder), "audio_encoder": file_sha256(args.audio_encoder)}
    done = skipped = frames = 0
    start = time.monotonic()
    for record, problem in encode_folder(
        args.folder,
        autoencoder,
        audio_encoder,
        hashes=hashes,
        batch=args.batch,
        noisy_copies=args.noisy_copies,
        device=device,
        first=args.first,
        stride=args.stride,
    ):
        if problem is not None:
            skipped += 1
            sys.stderr.write(f"skipped: {problem}\n")
            continue
        done, frames = done + 1, frames + record.frames
        if done % 25 == 0:
            sys.stderr.write(f"{done} clips, {frames / (time.monotonic() - start):.1f} frames/s\n")
    sys.stderr.write(f"{done} clips encoded, {skipped} skipped, in {args.folder}\n")
    return 0
